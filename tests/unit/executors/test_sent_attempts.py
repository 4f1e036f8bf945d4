from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from backfill.executors import QueuedAttempt
from backfill.executors.sent import SentAttempts
from backfill.keys import TaskInstanceKey
from backfill.messages import Attempt, ExecutorEvent
from backfill.states import IN_FLIGHT, TaskInstanceState

SECOND = timedelta(seconds=1)


def a_queued_attempt(number: int = 1) -> QueuedAttempt:
    attempt = Attempt(number, TaskInstanceKey("sales", "load", "run"), str(uuid4()), 1)
    return QueuedAttempt(attempt, "backfill", datetime(2024, 1, 1, tzinfo=UTC))


def reported(queued: QueuedAttempt, state: TaskInstanceState) -> ExecutorEvent:
    return ExecutorEvent(queued.attempt.task_instance_id, queued.attempt.attempt_id, state)


class Watch:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_what_was_sent_is_remembered_oldest_first() -> None:
    sent, attempts = SentAttempts(), [a_queued_attempt(n) for n in range(3)]
    sent.add([attempts])
    assert sent.not_started() == attempts


@pytest.mark.parametrize("state", sorted(set(TaskInstanceState) - IN_FLIGHT))
def test_an_attempt_that_is_over_is_forgotten(state: TaskInstanceState) -> None:
    sent, queued = SentAttempts(), a_queued_attempt()
    sent.add([[queued]])
    sent.note(reported(queued, state))
    assert sent.not_started() == []
    assert sent.running_or_fresh(SECOND) == set()


def test_an_attempt_that_runs_need_not_be_sent_again_and_is_known() -> None:
    watch = Watch()
    sent, queued = SentAttempts(clock=watch), a_queued_attempt()
    sent.add([[queued]])
    sent.note(reported(queued, TaskInstanceState.RUNNING))
    watch.seconds += 1000
    assert sent.not_started() == []
    assert sent.running_or_fresh(SECOND) == {queued.attempt.attempt_id}


def test_an_attempt_is_fresh_for_a_while_after_it_was_sent() -> None:
    watch = Watch()
    sent, queued = SentAttempts(clock=watch), a_queued_attempt()
    sent.add([[queued]])
    watch.seconds += 1
    assert sent.running_or_fresh(SECOND) == {queued.attempt.attempt_id}
    watch.seconds += 0.5
    assert sent.running_or_fresh(SECOND) == set()
    assert sent.not_started() == [queued]


def test_the_report_of_a_stranger_changes_nothing() -> None:
    sent, queued = SentAttempts(), a_queued_attempt()
    sent.add([[queued]])
    for state in TaskInstanceState:
        sent.note(reported(a_queued_attempt(), state))
    assert sent.not_started() == [queued]


def test_attempts_whose_end_nobody_reported_do_not_pile_up_without_end() -> None:
    sent, attempts = SentAttempts(limit=3), [a_queued_attempt(n) for n in range(5)]
    sent.add([attempts[:4]])
    sent.add([attempts[4:]])
    assert sent.not_started() == attempts[2:]


def test_what_is_to_be_forgotten_may_be_unknown() -> None:
    sent, queued = SentAttempts(), a_queued_attempt()
    sent.add([[queued]])
    sent.forget([queued.attempt.attempt_id, "unknown"])
    assert sent.not_started() == []


def test_a_message_is_outstanding_until_all_of_its_attempts_are_over() -> None:
    sent, attempts = SentAttempts(), [a_queued_attempt(n) for n in range(3)]
    sent.add([attempts[:2], attempts[2:]])
    assert sent.outstanding("backfill") == 2
    for queued in attempts:
        sent.note(reported(queued, TaskInstanceState.RUNNING))
    assert sent.outstanding("backfill") == 2
    sent.note(reported(attempts[0], TaskInstanceState.SUCCESS))
    sent.note(reported(attempts[0], TaskInstanceState.SUCCESS))
    assert sent.outstanding("backfill") == 2
    sent.note(reported(attempts[1], TaskInstanceState.NONE))
    assert sent.outstanding("backfill") == 1
    assert sent.outstanding("another") == 0


def test_a_message_that_is_sent_again_in_other_company_is_outstanding_once() -> None:
    sent, attempts = SentAttempts(), [a_queued_attempt(n) for n in range(3)]
    sent.add([attempts])
    sent.add([[queued] for queued in attempts])
    assert sent.outstanding("backfill") == 3
    sent.forget(queued.attempt.attempt_id for queued in attempts)
    assert sent.outstanding("backfill") == 0


def test_what_is_adopted_is_remembered_and_not_taken_for_fresh() -> None:
    sent, queued = SentAttempts(), a_queued_attempt()
    sent.adopt([queued])
    assert sent.not_started() == [queued]
    assert sent.running_or_fresh(SECOND * 10**6) == set()
    assert sent.outstanding("backfill") == 1
    sent.note(reported(queued, TaskInstanceState.SUCCESS))
    assert sent.not_started() == []
    assert sent.outstanding("backfill") == 0


def test_adoption_changes_nothing_about_what_is_known() -> None:
    sent, queued = SentAttempts(), a_queued_attempt()
    sent.add([[queued]])
    sent.note(reported(queued, TaskInstanceState.RUNNING))
    sent.adopt([queued])
    assert sent.not_started() == []
    assert sent.outstanding("backfill") == 1
