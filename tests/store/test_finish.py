from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from planted import (
    FIRST_DATE,
    Planted,
    look,
    plant_attempt,
    plant_run,
    plant_running,
    plant_task_instance,
    plant_xcom,
    statements,
    waits_for_a_lock,
)
from sqlalchemy import Engine, select, update

from backfill.exceptions import UsageError
from backfill.models import task_instance
from backfill.states import TRANSITIONS, TaskInstanceState
from backfill.store.attempts import Finish, finish_if_current
from backfill.store.values import encode

S = TaskInstanceState
LATER = datetime(2031, 5, 4, 3, 2, 1, tzinfo=UTC)
#: Every way to end, with all that comes with it.
ENDS: dict[TaskInstanceState, dict[str, Any]] = {
    S.SUCCESS: {"xcoms": {"return_value": {"n": 1}}, "skips": ("b", "a")},
    S.SKIPPED: {},
    S.FAILED: {"error": "boom"},
    S.UP_FOR_RETRY: {"error": "boom", "retry_delay": timedelta(seconds=300)},
    S.UP_FOR_RESCHEDULE: {"reschedule_date": LATER},
}
#: S3.9 to S3.13: from where a worker may end an attempt, and as what.
WRITTEN_BY_A_WORKER = [row for row in TRANSITIONS if row.writer == "worker" and row.rule != "S3.7"]


def finish(planted: Planted, state: TaskInstanceState = S.SUCCESS, **values: Any) -> Finish:
    return Finish(planted.id, planted.attempt_id, state, **{**ENDS[state], **values})


def test_the_ends_are_those_of_the_transition_table() -> None:
    assert {target for row in WRITTEN_BY_A_WORKER for target in row.targets} == set(ENDS)


@pytest.mark.parametrize("state", S)
@pytest.mark.parametrize("end", ENDS)
def test_only_a_running_attempt_can_finish(engine: Engine, state: TaskInstanceState, end: TaskInstanceState) -> None:
    allowed = any(state in row.sources and end in row.targets for row in WRITTEN_BY_A_WORKER)
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx), state=state, infrastructure_failures=2)
        before = look(tx, planted)
        took_effect = finish_if_current(tx, [finish(planted, end)])
        assert took_effect == ({planted.attempt_id} if allowed else set())
        assert (look(tx, planted) == before) is not allowed


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("case", ["another attempt", "voided", "another task instance"])
def test_the_result_of_an_attempt_that_is_not_current_changes_nothing(
    engine: Engine, case: str, end: TaskInstanceState
) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        planted, other = plant_running(tx, run, "a"), plant_running(tx, run, "b")
        said = finish(planted, end)
        if case == "another attempt":
            said = replace(said, attempt_id=str(uuid4()))
        elif case == "voided":
            tx.execute(update(task_instance).values(external_executor_id=None))
        else:
            said = replace(said, task_instance_id=other.id)
        before = [look(tx, one) for one in (planted, other)]
        assert finish_if_current(tx, [said]) == set()
        assert [look(tx, one) for one in (planted, other)] == before


def test_a_success_is_written_with_its_value_and_decision(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx), infrastructure_failures=2, hostname="worker-1", pid=5)
        before = look(tx, planted)
        finish_if_current(tx, [finish(planted)])
        row = look(tx, planted)
    assert (row["state"], row["skips"], row["xcoms"]) == ("success", ["b", "a"], {"return_value": {"n": 1}})
    assert (row["try_open"], row["try_number"], row["infrastructure_failures"]) == (False, 1, 0)
    assert row["end_date"] > row["start_date"] == before["start_date"]
    assert row["duration"] == pytest.approx((row["end_date"] - row["start_date"]).total_seconds())
    assert (row["external_executor_id"], row["hostname"], row["pid"]) == (planted.attempt_id, "worker-1", 5)
    assert row["next_attempt_at"] is None
    attempt = row["attempts"][planted.attempt_id]
    assert (attempt["end_date"], attempt["outcome"], attempt["error"]) == (row["end_date"], "success", None)


def test_a_retry_is_due_after_its_delay_from_the_end(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx), infrastructure_failures=1)
        finish_if_current(tx, [finish(planted, S.UP_FOR_RETRY, retry_delay=timedelta(seconds=90.5))])
        row = look(tx, planted)
    assert (row["state"], row["error"], row["try_open"]) == ("up_for_retry", "boom", False)
    assert row["next_attempt_at"] == row["end_date"] + timedelta(seconds=90.5)
    assert row["infrastructure_failures"] == 0
    assert row["attempts"][planted.attempt_id]["outcome"] == "up_for_retry"
    assert row["attempts"][planted.attempt_id]["error"] == "boom"


def test_a_reschedule_stores_its_date_and_leaves_the_try_open(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx), try_number=2, infrastructure_failures=1)
        finish_if_current(tx, [finish(planted, S.UP_FOR_RESCHEDULE)])
        row = look(tx, planted)
    assert (row["state"], row["next_attempt_at"]) == ("up_for_reschedule", LATER)
    assert (row["try_open"], row["try_number"], row["infrastructure_failures"]) == (True, 2, 0)
    assert row["first_start_date"] == row["start_date"] < row["end_date"]


@pytest.mark.parametrize("end", [S.FAILED, S.SKIPPED, S.SUCCESS, S.UP_FOR_RETRY])
def test_every_other_end_closes_the_try(engine: Engine, end: TaskInstanceState) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx))
        finish_if_current(tx, [finish(planted, end)])
        assert look(tx, planted)["try_open"] is False


def test_the_last_error_is_kept_until_there_is_another_one(engine: Engine) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        well, badly = plant_running(tx, run, "a", error="first"), plant_running(tx, run, "b", error="first")
        finish_if_current(tx, [finish(well), finish(badly, S.FAILED, error="second")])
        assert (look(tx, well)["error"], look(tx, badly)["error"]) == ("first", "second")


@pytest.mark.parametrize(
    ("skips", "stored"), [(None, None), ((), []), (('a "quoted", {name}',), ['a "quoted", {name}'])]
)
def test_no_decision_is_not_the_decision_to_skip_nothing(
    engine: Engine, skips: tuple[str, ...] | None, stored: list[str] | None
) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx), skips=["old"])
        finish_if_current(tx, [finish(planted, skips=skips)])
        assert look(tx, planted)["skips"] == stored


def test_xcoms_of_the_end_replace_those_pushed_before(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx))
        plant_xcom(tx, planted, "return_value", "early")
        plant_xcom(tx, planted, "other", "stays")
        values = {"return_value": [None, 1.5, "é\u2028"], "none": None, "encoded": encode("it", {"a": "\\u0000"})}
        finish_if_current(tx, [finish(planted, xcoms=values)])
        assert look(tx, planted)["xcoms"] == {
            "return_value": [None, 1.5, "é\u2028"],
            "other": "stays",
            "none": None,
            "encoded": {"a": "\\u0000"},
        }


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), "zero \x00 byte", {"deep": ["\x00"]}, "half \ud800"])
def test_a_value_that_cannot_be_kept_is_refused_before_anything_is_written(engine: Engine, value: object) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        planted = [plant_running(tx, run, task_id) for task_id in "ab"]
        before = [look(tx, one) for one in planted]
        with pytest.raises(UsageError, match="The value of XCom 'return_value'"):
            finish_if_current(tx, [finish(planted[0]), finish(planted[1], xcoms={"return_value": value})])
        assert [look(tx, one) for one in planted] == before


def test_an_error_text_of_any_content_can_be_written(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx))
        finish_if_current(tx, [finish(planted, S.FAILED, error="zero \x00, half \ud800, %s :name 'x' \\")])
        assert look(tx, planted)["error"] == "zero �, half ?, %s :name 'x' \\"


def test_of_many_finishes_at_once_the_current_ones_take_effect(engine: Engine) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        current = {end: plant_running(tx, run, f"{end}") for end in ENDS}
        stale = [plant_running(tx, run, f"stale {state}", state=state) for state in (S.QUEUED, S.FAILED, S.NONE)]
        before = [look(tx, one) for one in stale]
        finishes = [finish(planted, end) for end, planted in current.items()]
        took_effect = finish_if_current(tx, [*(finish(one) for one in stale), *reversed(finishes)])
        assert took_effect == {planted.attempt_id for planted in current.values()}
        assert {end: look(tx, planted)["state"] for end, planted in current.items()} == {end: end for end in ENDS}
        assert [look(tx, one) for one in stale] == before


def test_many_finishes_are_one_round_trip(engine: Engine) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        finishes = [finish(plant_running(tx, run, f"{end}"), end) for end in ENDS]
        with statements(engine) as seen:
            finish_if_current(tx, finishes)
    assert len(seen) == 1


def test_no_finishes_are_no_round_trip(engine: Engine) -> None:
    with engine.connect() as tx, statements(engine) as seen:
        assert finish_if_current(tx, []) == set()
    assert seen == []


def test_of_two_ends_of_one_attempt_in_a_call_the_first_counts(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx))
        ends = [finish(planted, S.FAILED), finish(planted, S.SUCCESS)]
        assert finish_if_current(tx, ends) == {planted.attempt_id}
        row = look(tx, planted)
    assert (row["state"], row["xcoms"]) == ("failed", {})


def test_finishing_twice_changes_nothing_the_second_time(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx))
        finish_if_current(tx, [finish(planted)])
        before = look(tx, planted)
        assert finish_if_current(tx, [finish(planted, S.FAILED)]) == set()
        assert finish_if_current(tx, [finish(planted, xcoms={"return_value": "again"})]) == set()
        assert look(tx, planted) == before


def test_an_attempt_that_was_fenced_out_cannot_finish_the_next_one(engine: Engine) -> None:
    with engine.begin() as tx:
        fenced = plant_running(tx, plant_run(tx))
        following = Planted(fenced.id, str(uuid4()))
        tx.execute(update(task_instance).values(external_executor_id=following.attempt_id, heartbeat_at=FIRST_DATE))
        plant_attempt(tx, following)
        before = look(tx, fenced)
        assert finish_if_current(tx, [finish(fenced)]) == set()
        assert look(tx, fenced) == before
        assert finish_if_current(tx, [finish(following)]) == {following.attempt_id}


def _finish_elsewhere(engine: Engine, *finishes: Finish) -> set[str]:
    with engine.begin() as tx:
        return finish_if_current(tx, finishes)


def test_a_finish_that_meets_a_fence_waits_and_then_writes_nothing(
    engine: Engine, wait_until: Callable[..., None]
) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx))
    with ThreadPoolExecutor(1) as threads, engine.connect() as fence:
        fence.execute(update(task_instance).values(state="none", external_executor_id=None))
        done = threads.submit(_finish_elsewhere, engine, finish(planted))
        wait_until(lambda: waits_for_a_lock(engine), "the finish waits for the fence")
        fence.commit()
        assert done.result(timeout=30) == set()
    with engine.begin() as tx:
        row = look(tx, planted)
    assert (row["state"], row["xcoms"], row["attempts"][planted.attempt_id]["outcome"]) == ("none", {}, None)


def test_finishes_lock_rows_in_the_order_of_their_ids(engine: Engine, wait_until: Callable[..., None]) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        low, high = plant_running(tx, run, "a"), plant_running(tx, run, "b")
    locked = select(task_instance.c.id)
    with ThreadPoolExecutor(1) as threads, engine.connect() as holder:
        holder.execute(locked.where(task_instance.c.id == high.id).with_for_update())
        done = threads.submit(_finish_elsewhere, engine, finish(high), finish(low))
        wait_until(lambda: waits_for_a_lock(engine), "the finishes wait for the row with the higher id")
        free = holder.execute(locked.with_for_update(skip_locked=True)).scalars().all()
        holder.rollback()
        assert len(done.result(timeout=30)) == 2
    assert free == [high.id]


def test_an_attempt_that_ended_a_while_ago_keeps_its_end(engine: Engine) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        now, earlier = plant_running(tx, run, "a"), plant_running(tx, run, "b")
        ends = [finish(now), finish(earlier, S.UP_FOR_RETRY, ended_ago=timedelta(seconds=2))]
        finish_if_current(tx, ends)
        rows = [look(tx, one) for one in (now, earlier)]
    assert rows[0]["end_date"] - rows[1]["end_date"] == timedelta(seconds=2)
    assert rows[1]["next_attempt_at"] == rows[1]["end_date"] + timedelta(seconds=300)


def test_finishes_written_in_a_group_have_starts_of_their_own(engine: Engine) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        first, second, third = (plant_running(tx, run, task_id) for task_id in "abc")
        ends = [
            finish(first, ended_ago=timedelta(seconds=3)),
            finish(second, started_ago=timedelta(seconds=2.5), ended_ago=timedelta(seconds=2)),
            finish(third, started_ago=timedelta(seconds=1)),
        ]
        claimed = look(tx, first)["start_date"]
        finish_if_current(tx, ends)
        rows = [look(tx, one) for one in (first, second, third)]
    assert rows[0]["start_date"] == claimed
    now = rows[2]["end_date"]
    assert [now - row["start_date"] for row in rows[1:]] == [timedelta(seconds=2.5), timedelta(seconds=1)]
    assert [row["duration"] for row in rows[1:]] == [0.5, 1.0]
    assert [row["first_start_date"] for row in rows] == [row["start_date"] for row in rows]
    histories = [row["attempts"][row["external_executor_id"]] for row in rows]
    assert [history["start_date"] for history in histories] == [row["start_date"] for row in rows]


def test_the_start_of_an_earlier_attempt_is_not_moved(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx), first_start_date=FIRST_DATE)
        finish_if_current(tx, [finish(planted, started_ago=timedelta(seconds=1))])
        row = look(tx, planted)
    assert row["first_start_date"] == FIRST_DATE < row["start_date"]
    assert row["duration"] == 1.0


def test_an_attempt_never_ends_before_it_started(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx))
        finish_if_current(tx, [finish(planted, ended_ago=timedelta(days=1))])
        row = look(tx, planted)
    assert (row["end_date"], row["duration"]) == (row["start_date"], 0.0)


@pytest.mark.parametrize(
    "values",
    [
        *({"state": state} for state in sorted(set(S) - set(ENDS))),
        {"state": S.UP_FOR_RETRY},
        {"state": S.FAILED, "retry_delay": timedelta(1)},
        {"state": S.UP_FOR_RESCHEDULE},
        {"state": S.SUCCESS, "reschedule_date": LATER},
    ],
    ids=str,
)
def test_an_end_that_makes_no_sense_cannot_be_said(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"cannot end as|does not go with"):
        Finish(1, str(uuid4()), **values)


def test_a_task_instance_without_history_can_finish(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_task_instance(tx, plant_run(tx), state="running", start_date=FIRST_DATE)
        assert finish_if_current(tx, [finish(planted)]) == {planted.attempt_id}
