from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from backfill.exceptions import FailTask, RescheduleTask, SensorTimeout, SkipTask, TaskTimeout
from backfill.states import TRANSITIONS, TaskInstanceState
from backfill.store.claims import Claim
from workers.conclusion import Ended, Left, conclude
from workers.outcome import (
    Failed,
    Fenced,
    HandedBack,
    Orphaned,
    Outcome,
    Rescheduled,
    Skipped,
    StopReason,
    Succeeded,
    TaskStopped,
    error_text,
    outcome_of,
)

DATE = datetime(2024, 1, 1, tzinfo=UTC)
MakeClaim = Callable[..., Claim]


def task(**changes: Any) -> Any:
    attributes = {
        "task_id": "load",
        "retries": 0,
        "retry_delay": timedelta(seconds=300),
        "retry_exponential_backoff": False,
        "max_retry_delay": None,
        "dag": SimpleNamespace(fail_stop=False, task_dict={}),
    }
    return SimpleNamespace(**(attributes | changes))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (SkipTask("nothing there"), Skipped),
        (RescheduleTask(DATE), Rescheduled),
        (SystemExit(), Succeeded),
        (SystemExit(0), Succeeded),
        (TaskStopped(StopReason.WORKER_STOPS), HandedBack),
        (TaskStopped(StopReason.FENCED), Fenced),
        (TaskStopped(StopReason.ORPHANED), Orphaned),
    ],
)
def test_an_error_means_what_the_rules_say(error: BaseException, kind: type[Outcome]) -> None:
    assert isinstance(outcome_of(error), kind)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        SystemExit(1),
        SystemExit("bad"),
        TaskTimeout("over"),
        KeyboardInterrupt(),
        GeneratorExit(),
        TaskStopped(StopReason.TERMINATED),
    ],
)
def test_anything_else_is_a_failure_that_may_be_retried(error: BaseException) -> None:
    assert outcome_of(error) == Failed(error, retryable=True)


@pytest.mark.parametrize("error", [FailTask("no"), SensorTimeout("over")])
def test_some_failures_are_never_retried(error: BaseException) -> None:
    assert outcome_of(error) == Failed(error, retryable=False)


def test_an_error_that_has_no_text_has_its_class() -> None:
    assert error_text(ValueError()) == "ValueError"
    assert error_text(SystemExit(3)) == "the task ended with exit code 3"


def test_an_error_whose_text_fails_is_still_reported() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert error_text(Broken()) == "Broken: (its text cannot be made: ValueError)"


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Succeeded(), TaskInstanceState.SUCCESS),
        (Skipped(SkipTask("x")), TaskInstanceState.SKIPPED),
        (Rescheduled(DATE), TaskInstanceState.UP_FOR_RESCHEDULE),
        (Failed(ValueError("x")), TaskInstanceState.FAILED),
    ],
)
def test_each_outcome_has_its_state(outcome: Outcome, state: TaskInstanceState, make_claim: MakeClaim) -> None:
    conclusion = conclude(outcome, make_claim(), task())
    assert isinstance(conclusion, Ended)
    assert conclusion.finish.state is state
    assert any(state in each.targets and TaskInstanceState.RUNNING in each.sources for each in TRANSITIONS)


@pytest.mark.parametrize("outcome", [HandedBack(), Fenced(), Orphaned()])
def test_an_attempt_that_was_left_has_no_final_state(
    outcome: HandedBack | Fenced | Orphaned, make_claim: MakeClaim
) -> None:
    claim = make_claim()
    assert conclude(outcome, claim, task()) == Left(claim.task_instance_id, claim.attempt_id, outcome)


@pytest.mark.parametrize(
    ("retries", "try_number", "max_tries", "retryable", "state"),
    [
        (2, 1, 2, True, TaskInstanceState.UP_FOR_RETRY),
        (2, 2, 2, True, TaskInstanceState.UP_FOR_RETRY),
        (2, 3, 2, True, TaskInstanceState.FAILED),
        (2, 1, 2, False, TaskInstanceState.FAILED),
        (0, 1, 0, True, TaskInstanceState.FAILED),
    ],
)
def test_a_failure_is_retried_while_tries_are_left(
    retries: int, try_number: int, max_tries: int, retryable: bool, state: TaskInstanceState, make_claim: MakeClaim
) -> None:
    claim = make_claim(try_number=try_number, max_tries=max_tries)
    conclusion = conclude(Failed(ValueError("x"), retryable=retryable), claim, task(retries=retries))
    assert isinstance(conclusion, Ended)
    assert conclusion.finish.state is state
    assert (conclusion.finish.retry_delay is not None) == (state is TaskInstanceState.UP_FOR_RETRY)


def test_nothing_is_retried_under_disable_retry(make_claim: MakeClaim) -> None:
    claim = make_claim(max_tries=3, job_params={"disable_retry": True})
    conclusion = conclude(Failed(ValueError("x")), claim, task(retries=3))
    assert isinstance(conclusion, Ended)
    assert conclusion.finish.state is TaskInstanceState.FAILED


def test_a_task_that_cannot_be_loaded_is_retried_by_what_its_row_says(make_claim: MakeClaim) -> None:
    states = []
    for max_tries in (0, 1):
        conclusion = conclude(Failed(ValueError("x")), make_claim(max_tries=max_tries), None)
        assert isinstance(conclusion, Ended)
        states.append(conclusion.finish.state)
    assert states == [TaskInstanceState.FAILED, TaskInstanceState.UP_FOR_RETRY]


def test_fail_stop_spares_teardowns_and_the_task_itself(make_claim: MakeClaim) -> None:
    others = {
        "load": SimpleNamespace(task_id="load", is_teardown=False),
        "clean": SimpleNamespace(task_id="clean", is_teardown=True),
        "report": SimpleNamespace(task_id="report", is_teardown=False),
    }
    dag = SimpleNamespace(fail_stop=True, task_dict=others)
    conclusion = conclude(Failed(ValueError("x")), make_claim(), task(dag=dag))
    assert isinstance(conclusion, Ended)
    assert conclusion.stop_run is not None
    assert conclusion.stop_run.spared_task_ids == {"load", "clean"}
    retried = conclude(Failed(ValueError("x")), make_claim(max_tries=1), task(dag=dag, retries=1))
    assert isinstance(retried, Ended)
    assert retried.stop_run is None
