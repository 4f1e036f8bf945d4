from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from uuid import uuid4

import pytest

from backfill.executors import QueuedAttempt
from backfill.executors.bundling import (
    BUNDLE_WORK,
    LARGEST_BUNDLE,
    LONGEST_IN_COMPANY,
    Backlog,
    pack,
    task_of,
)
from backfill.executors.durations import KEPT, Durations
from backfill.keys import TaskInstanceKey
from backfill.messages import Attempt

IDLE = Backlog(slots=2, outstanding=0)
BUSY = Backlog(slots=2, outstanding=4)


def attempts(count: int, task_id: str = "short", queue: str = "backfill") -> list[QueuedAttempt]:
    def one(number: int) -> QueuedAttempt:
        key = TaskInstanceKey("sales", task_id, f"run {number}")
        return QueuedAttempt(Attempt(number, key, str(uuid4()), 1), queue, datetime(2024, 1, 1, tzinfo=UTC))

    return [one(number) for number in range(count)]


@pytest.fixture
def durations() -> Durations:
    known = Durations()
    known.note(("sales", "short"), 0.001)
    known.note(("sales", "medium"), BUNDLE_WORK / 3)
    known.note(("sales", "long"), LONGEST_IN_COMPANY * 2)
    return known


def sizes(ready: Sequence[QueuedAttempt], durations: Durations, backlog: Backlog) -> list[int]:
    return [len(bundle) for bundle in pack(ready, durations, {"backfill": backlog})]


def test_while_slots_are_idle_each_of_them_gets_something(durations: Durations) -> None:
    assert sizes(attempts(1), durations, IDLE) == [1]
    assert sizes(attempts(2), durations, IDLE) == [1, 1]
    assert sizes(attempts(9), durations, IDLE) == [5, 4]
    assert sizes(attempts(9), durations, Backlog(slots=2, outstanding=1)) == [9]
    assert sizes(attempts(60), durations, Backlog(slots=64, outstanding=0)) == [1] * 60


def test_where_all_slots_are_busy_each_is_to_have_one_message_waiting(durations: Durations) -> None:
    assert sizes(attempts(10), durations, Backlog(slots=2, outstanding=2)) == [5, 5]
    assert sizes(attempts(10), durations, Backlog(slots=2, outstanding=3)) == [10]


def test_behind_a_backlog_bundles_grow_to_their_limits(durations: Durations) -> None:
    assert sizes(attempts(250), durations, BUSY) == [100, 100, 50]
    assert LARGEST_BUNDLE == 100
    assert sizes(attempts(7, "medium"), durations, BUSY) == [3, 3, 1]


def test_what_is_long_or_unknown_travels_alone(durations: Durations) -> None:
    assert sizes(attempts(3, "long"), durations, BUSY) == [1, 1, 1]
    assert sizes(attempts(3, "unknown"), durations, BUSY) == [1, 1, 1]


def test_what_was_lost_with_others_travels_alone(durations: Durations) -> None:
    ready = attempts(5)
    ready[2] = replace(ready[2], alone=True)
    assert sizes(ready, durations, BUSY) == [2, 1, 2]


def test_bundles_keep_the_order_of_what_is_ready(durations: Durations) -> None:
    short, long, unknown = attempts(6), attempts(2, "long"), attempts(2, "unknown")
    ready = [short[0], short[1], long[0], short[2], unknown[0], unknown[1], short[3], short[4], long[1], short[5]]
    bundles = pack(ready, durations, {"backfill": BUSY})
    assert [queued for bundle in bundles for queued in bundle] == ready
    assert [len(bundle) for bundle in bundles] == [2, 1, 1, 1, 1, 2, 1, 1]


def test_a_bundle_is_for_one_queue_and_each_queue_has_its_own_backlog(durations: Durations) -> None:
    here, there = attempts(4), attempts(4, queue="gpu")
    ready = [one for pair in zip(here, there, strict=True) for one in pair]
    bundles = pack(ready, durations, {"backfill": BUSY, "gpu": Backlog(slots=4, outstanding=0)})
    assert [(bundle[0].queue, len(bundle)) for bundle in bundles] == [("backfill", 4), *[("gpu", 1)] * 4]
    assert [queued for bundle in bundles for queued in bundle] == here + there


def test_nothing_ready_makes_no_bundle(durations: Durations) -> None:
    assert pack([], durations, {}) == []


def test_expected_durations_rise_faster_than_they_sink() -> None:
    durations = Durations()
    assert durations.expected("t") is None
    durations.note("t", 1.0)
    assert durations.expected("t") == 1.0
    durations.note("t", 3.0)
    assert durations.expected("t") == 2.0
    durations.note("t", 0.0)
    assert durations.expected("t") == 1.5


def test_many_short_ones_make_up_for_a_long_one() -> None:
    durations = Durations()
    for seconds in (30.0, *[0.001] * 30):
        durations.note("t", seconds)
    assert (durations.expected("t") or 0) < LONGEST_IN_COMPANY


def test_tasks_of_which_nothing_was_heard_for_long_are_forgotten() -> None:
    durations = Durations()
    durations.note("first", 1.0)
    durations.note("second", 1.0)
    for number in range(KEPT - 2):
        durations.note(number, 1.0)
    durations.note("first", 1.0)
    durations.note("one more", 1.0)
    assert durations.expected("second") is None
    assert durations.expected("first") == 1.0


def test_a_task_is_known_by_dag_and_id_whatever_the_run() -> None:
    names = [task_of(queued) for queued in attempts(2)]
    assert all(one == other for one, other in pairwise(names))
