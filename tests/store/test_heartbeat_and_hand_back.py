from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
from planted import (
    FIRST_DATE,
    Planted,
    attempt_of,
    look,
    plant_attempt,
    plant_run,
    plant_running,
    plant_task_instance,
    plant_xcom,
    statements,
    waits_for_a_lock,
)
from sqlalchemy import Connection, Engine, update

from backfill.models import task_instance
from backfill.states import TaskInstanceState
from backfill.store.attempts import (
    Finish,
    finish_if_current,
    give_up_heartbeats,
    hand_back_if_running,
    renew_heartbeats,
)
from backfill.store.claims import claim_if_queued, unclaim_if_running

ALL = pytest.mark.parametrize("write", [renew_heartbeats, give_up_heartbeats, hand_back_if_running, unclaim_if_running])
Write = Callable[[Connection, list[str]], set[str]]


@ALL
@pytest.mark.parametrize("state", TaskInstanceState)
def test_only_a_running_attempt_is_touched(engine: Engine, write: Write, state: TaskInstanceState) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx), state=state)
        before = look(tx, planted)
        touched = write(tx, [planted.attempt_id])
        assert touched == ({planted.attempt_id} if state == TaskInstanceState.RUNNING else set())
        assert (look(tx, planted) == before) == (not touched)


@ALL
def test_an_attempt_that_is_not_current_is_not_touched(engine: Engine, write: Write) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        fenced, voided, unclaimed = plant_running(tx, run, "a"), plant_running(tx, run, "b"), Planted(0, str(uuid4()))
        for planted, attempt_id in ((fenced, str(uuid4())), (voided, None)):
            row = task_instance.c.id == planted.id
            tx.execute(update(task_instance).where(row).values(external_executor_id=attempt_id))
        before = [look(tx, one) for one in (fenced, voided)]
        assert write(tx, [one.attempt_id for one in (fenced, voided, unclaimed)]) == set()
        assert [look(tx, one) for one in (fenced, voided)] == before


@ALL
def test_one_statement_serves_many(engine: Engine, write: Write) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        planted = [plant_running(tx, run, f"t{n}") for n in range(5)]
        ids = [one.attempt_id for one in planted]
        with statements(engine) as seen:
            assert write(tx, [*ids, str(uuid4())]) == set(ids)
        assert len(seen) == 1
        with statements(engine) as seen:
            assert write(tx, []) == set()
        assert seen == []


@ALL
def test_it_waits_for_a_fence_and_then_touches_nothing(
    engine: Engine, write: Write, wait_until: Callable[..., None]
) -> None:
    def elsewhere() -> set[str]:
        with engine.begin() as tx:
            return write(tx, [planted.attempt_id])

    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx))
    with ThreadPoolExecutor(1) as threads, engine.connect() as fence:
        fence.execute(update(task_instance).values(external_executor_id=str(uuid4())))
        done = threads.submit(elsewhere)
        wait_until(lambda: waits_for_a_lock(engine), "the write waits for the fence")
        fence.commit()
        assert done.result(timeout=30) == set()


def test_a_heartbeat_changes_nothing_but_its_time(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx))
        before = look(tx, planted)
        renew_heartbeats(tx, [planted.attempt_id])
        after = look(tx, planted)
    assert after["heartbeat_at"] > before["heartbeat_at"]
    assert after == {**before, "heartbeat_at": after["heartbeat_at"]}


def test_what_is_handed_back_waits_again_within_the_same_try(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx), try_number=2, infrastructure_failures=1, error="of the first try")
        hand_back_if_running(tx, [planted.attempt_id])
        row = look(tx, planted)
    assert (row["state"], row["external_executor_id"]) == ("none", None)
    assert (row["try_open"], row["try_number"], row["infrastructure_failures"]) == (True, 2, 1)
    assert (row["heartbeat_at"], row["next_attempt_at"], row["error"]) == (None, None, "of the first try")
    assert row["end_date"] > row["start_date"]
    assert row["duration"] == pytest.approx((row["end_date"] - row["start_date"]).total_seconds())
    attempt = row["attempts"][planted.attempt_id]
    assert (attempt["outcome"], attempt["end_date"]) == ("none", row["end_date"])


def test_after_a_hand_back_neither_result_nor_heartbeat_counts_and_the_next_attempt_runs(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx))
        plant_xcom(tx, planted, "left", "over")
        hand_back_if_running(tx, [planted.attempt_id])
        success = Finish(planted.id, planted.attempt_id, TaskInstanceState.SUCCESS)
        assert finish_if_current(tx, [success]) == renew_heartbeats(tx, [planted.attempt_id]) == set()
        assert hand_back_if_running(tx, [planted.attempt_id]) == set()
        following = str(uuid4())
        tx.execute(update(task_instance).values(state="queued", external_executor_id=following))
        (claimed,) = claim_if_queued(tx, [attempt_of(Planted(planted.id, following))], hostname="w", pid=1)
        row = look(tx, planted)
    assert claimed.first_start_date < claimed.start_date
    assert (row["end_date"], row["duration"], row["xcoms"]) == (None, None, {})
    assert set(row["attempts"]) == {planted.attempt_id, following}


def test_a_claimed_attempt_has_a_heartbeat_to_renew(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_task_instance(tx, plant_run(tx))
        claim_if_queued(tx, [attempt_of(planted)], hostname="w", pid=1)
        assert renew_heartbeats(tx, [planted.attempt_id]) == {planted.attempt_id}


def test_a_heartbeat_of_a_task_instance_that_was_deleted_is_not_current(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_task_instance(tx, plant_run(tx), state="running")
        plant_attempt(tx, planted)
        tx.execute(task_instance.delete())
        assert renew_heartbeats(tx, [planted.attempt_id]) == set()


def test_the_first_heartbeat_of_a_task_that_began_after_its_claim_sets_its_start_right(engine: Engine) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        began, other = plant_running(tx, run, "a"), plant_running(tx, run, "b")
        before = look(tx, other)
        renew_heartbeats(tx, [began.attempt_id, other.attempt_id], started_ago={began.attempt_id: timedelta(seconds=5)})
        row, after = look(tx, began), look(tx, other)
    assert row["start_date"] == row["first_start_date"] == row["heartbeat_at"] - timedelta(seconds=5)
    assert row["attempts"][began.attempt_id]["start_date"] == row["start_date"]
    assert after == {**before, "heartbeat_at": row["heartbeat_at"]}


def test_a_start_is_never_before_its_claim_and_the_first_of_several_attempts_stays(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx), first_start_date=FIRST_DATE)
        before = look(tx, planted)
        renew_heartbeats(tx, [planted.attempt_id], started_ago={planted.attempt_id: timedelta(days=1)})
        assert look(tx, planted)["start_date"] == before["start_date"]
        renew_heartbeats(tx, [planted.attempt_id], started_ago={planted.attempt_id: timedelta(0)})
        row = look(tx, planted)
    assert row["start_date"] == row["heartbeat_at"]
    assert row["first_start_date"] == FIRST_DATE


def test_what_was_claimed_and_never_begun_is_as_if_it_had_not_been_claimed(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_task_instance(
            tx, plant_run(tx), try_number=2, infrastructure_failures=1, error="of the first try"
        )
        before = look(tx, planted)
        claim_if_queued(tx, [attempt_of(planted, try_number=2)], hostname="w", pid=1)
        assert unclaim_if_running(tx, [planted.attempt_id]) == {planted.attempt_id}
        assert look(tx, planted) == {**before, "state": "none", "in_flight": False, "external_executor_id": None}


def test_the_start_of_an_earlier_attempt_outlives_a_claim_that_was_given_back(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_task_instance(tx, plant_run(tx), first_start_date=FIRST_DATE)
        claim_if_queued(tx, [attempt_of(planted)], hostname="w", pid=1)
        unclaim_if_running(tx, [planted.attempt_id])
        assert look(tx, planted)["first_start_date"] == FIRST_DATE
