"""Attempts that were lost, and task instances that nobody holds (semantics, section 8)."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from planted import Planted, look, plant_job, plant_run, plant_running, plant_task_instance
from sqlalchemy import Connection, text, update

from backfill.models import job
from backfill.store.recovery import (
    Failure,
    Loss,
    Swept,
    fail_if_current,
    lock_unclaimed,
    lose_if_current,
    reset_orphans,
    select_in_flight,
    select_zombies,
    sweep_runs,
)

MINUTE = timedelta(minutes=1)


def ago(minutes: float) -> datetime:
    return datetime.now(UTC) - minutes * MINUTE


def sweep(tx: Connection, job_id: int, *run_ids: int) -> Swept:
    return sweep_runs(tx, job_id, run_ids, heartbeat_timeout=MINUTE, queued_timeout=MINUTE)


def ids(found: list[Any]) -> list[int]:
    return [row.facts.id for row in found]


# -- the sweep ----------------------------------------------------------------------------------------------------------


def test_a_zombie_is_running_without_heartbeat_whoever_dispatched_it(tx: Connection) -> None:
    job_id, other = plant_job(tx), plant_job(tx)
    run_id = plant_run(tx, 0, job_id=job_id)
    silent = plant_running(
        tx, run_id, "silent", heartbeat_at=ago(2), hostname="h", executor="local", queued_by_job_id=other
    )
    plant_running(tx, run_id, "alive", heartbeat_at=ago(0.5))
    plant_task_instance(tx, run_id, "queued", queued_at=ago(9))
    plant_running(tx, plant_run(tx, 1, job_id=other), heartbeat_at=ago(2))
    plant_running(tx, plant_run(tx, 2, job_id=job_id, state="failed"), heartbeat_at=ago(2))
    [zombie] = select_zombies(tx, job_id, MINUTE)
    assert (zombie.facts.id, zombie.facts.attempt_id) == (silent.id, silent.attempt_id)
    assert (zombie.executor, zombie.queue, zombie.hostname) == ("local", "backfill", "h")
    assert zombie.since is not None
    assert zombie.since < ago(1)


def test_what_runs_by_hand_without_heartbeat_is_counted_from_the_start_of_the_run(tx: Connection) -> None:
    job_id = plant_job(tx)
    fresh, old = plant_run(tx, 0, job_id=job_id, start_date=ago(0)), plant_run(tx, 1, job_id=job_id, start_date=ago(9))
    plant_task_instance(tx, fresh, state="running")
    row = plant_task_instance(tx, old, state="running", external_executor_id=None)
    assert ids(select_zombies(tx, job_id, MINUTE)) == [row.id]


def test_a_subdag_needs_no_heartbeat(tx: Connection) -> None:
    job_id = plant_job(tx)
    run_id = plant_run(tx, job_id=job_id)
    plant_task_instance(tx, run_id, state="running", operator="SubDagOperator", external_executor_id=None)
    assert select_zombies(tx, job_id, MINUTE) == select_in_flight(tx, job_id) == sweep(tx, job_id, run_id).zombies == []


def test_unclaimed_is_what_is_queued_for_too_long(tx: Connection) -> None:
    job_id = plant_job(tx)
    run_id = plant_run(tx, job_id=job_id, start_date=ago(9))
    late = plant_task_instance(tx, run_id, "late", queued_at=ago(2))
    unknown = plant_task_instance(tx, run_id, "unknown", queued_at=None)
    plant_task_instance(tx, run_id, "fresh", queued_at=ago(0.5))
    plant_running(tx, run_id, "running", queued_at=ago(9), heartbeat_at=ago(9))
    assert ids(sweep(tx, job_id, run_id).unclaimed) == [late.id, unknown.id]


def test_a_sweep_sees_all_rows_of_its_runs_and_the_same_zombies(tx: Connection) -> None:
    job_id = plant_job(tx)
    first, second, other = (plant_run(tx, n, job_id=job_id) for n in range(3))
    silent = plant_running(tx, second, "silent", heartbeat_at=ago(2), hostname="h", executor="local")
    removed = plant_task_instance(tx, first, "removed", state="removed")
    ended = plant_task_instance(tx, second, "ended", state="success", heartbeat_at=ago(9))
    plant_running(tx, other, "elsewhere", heartbeat_at=ago(2))
    swept = sweep(tx, job_id, second, first)
    assert [row.id for row in swept.rows] == [removed.id, silent.id, ended.id]
    assert [
        zombie for zombie in select_zombies(tx, job_id, MINUTE) if zombie.facts.dag_run_id != other
    ] == swept.zombies
    assert ids(swept.zombies) == [silent.id]
    assert sweep(tx, job_id + 1, first, second).zombies == []


def test_a_new_holder_finds_all_that_is_in_flight(tx: Connection) -> None:
    job_id = plant_job(tx)
    run_id = plant_run(tx, job_id=job_id)
    queued, running = plant_task_instance(tx, run_id, "a"), plant_running(tx, run_id, "b", skips=["x"])
    plant_task_instance(tx, run_id, "c", state="scheduled")
    found = select_in_flight(tx, job_id)
    assert ids(found) == [queued.id, running.id]
    assert found[1].facts.skips == ("x",)


def test_what_was_claimed_or_queued_anew_meanwhile_is_not_without_claim(tx: Connection) -> None:
    run_id = plant_run(tx)
    waiting, anew = plant_task_instance(tx, run_id, "a"), plant_task_instance(tx, run_id, "b")
    claimed = plant_running(tx, run_id, "c")
    attempts = [(waiting.id, waiting.attempt_id), (anew.id, str(uuid4())), (claimed.id, claimed.attempt_id)]
    assert lock_unclaimed(tx, attempts) == {waiting.id}
    assert lock_unclaimed(tx, []) == set()


# -- attempts that are over ---------------------------------------------------------------------------------------------


def test_a_failure_closes_the_try_and_its_attempt(tx: Connection) -> None:
    row = plant_running(tx, plant_run(tx), infrastructure_failures=3, skips=["a"])
    assert fail_if_current(tx, [Failure(row.id, row.attempt_id, "gone \x00", None)]) == {row.id}
    now = look(tx, row)
    assert (now["state"], now["error"], now["try_open"], now["next_attempt_at"]) == ("failed", "gone �", False, None)
    assert (now["try_number"], now["infrastructure_failures"], now["skips"]) == (1, 3, None)
    assert now["duration"] == pytest.approx(300, abs=60)
    assert (now["end_date"] - now["start_date"]).total_seconds() == pytest.approx(now["duration"])
    attempt = now["attempts"][row.attempt_id]
    assert (attempt["outcome"], attempt["error"], attempt["end_date"]) == ("failed", "gone �", now["end_date"])


def test_a_retry_is_due_after_its_delay_by_the_databases_clock(tx: Connection) -> None:
    row = plant_running(tx, plant_run(tx))
    fail_if_current(tx, [Failure(row.id, row.attempt_id, "x", timedelta(seconds=12.5))])
    now = look(tx, row)
    assert now["state"] == "up_for_retry"
    assert now["next_attempt_at"] - now["end_date"] == timedelta(seconds=12.5)
    assert now["attempts"][row.attempt_id]["outcome"] == "up_for_retry"


def test_an_attempt_that_was_never_claimed_began_and_ended_now(tx: Connection) -> None:
    row = plant_task_instance(tx, plant_run(tx), start_date=ago(99), end_date=ago(98))
    fail_if_current(tx, [Failure(row.id, row.attempt_id, "x", None)])
    now = look(tx, row)
    assert now["start_date"] == now["end_date"] > ago(1)
    assert now["duration"] == 0


def test_many_attempts_are_failed_each_in_its_way(tx: Connection) -> None:
    run_id = plant_run(tx)
    rows = [plant_running(tx, run_id, name) for name in "abc"]
    failures = [Failure(row.id, row.attempt_id, f"error {i}", None if i else MINUTE) for i, row in enumerate(rows)]
    failures.append(Failure(rows[0].id, str(uuid4()), "stale", None))
    assert fail_if_current(tx, reversed(failures)) == {row.id for row in rows}
    assert [(look(tx, row)["state"], look(tx, row)["error"]) for row in rows] == [
        ("up_for_retry", "error 0"),
        ("failed", "error 1"),
        ("failed", "error 2"),
    ]


def test_a_lost_attempt_costs_no_try_but_counts(tx: Connection) -> None:
    row = plant_running(tx, plant_run(tx), infrastructure_failures=1, try_number=2)
    assert lose_if_current(tx, [Loss(row.id, row.attempt_id, "its worker is gone")]) == {row.id}
    now = look(tx, row)
    assert (now["state"], now["try_number"], now["try_open"], now["infrastructure_failures"]) == ("none", 2, True, 2)
    assert (now["external_executor_id"], now["heartbeat_at"], now["next_attempt_at"]) == (None, None, None)
    assert now["error"] == "its worker is gone"
    attempt = now["attempts"][row.attempt_id]
    assert (attempt["outcome"], attempt["error"]) == ("lost", "its worker is gone")
    assert attempt["end_date"] is not None
    assert lose_if_current(tx, [Loss(row.id, row.attempt_id, "again")]) == set()


def test_a_loss_that_nobody_answers_for_is_not_counted(tx: Connection) -> None:
    run = plant_run(tx)
    rows = [plant_running(tx, run, task_id, infrastructure_failures=1) for task_id in "ab"]
    losses = [Loss(row.id, row.attempt_id, "x", charged) for row, charged in zip(rows, (True, False), strict=True)]
    assert lose_if_current(tx, losses) == {row.id for row in rows}
    found = [look(tx, row) for row in rows]
    assert [(row["state"], row["infrastructure_failures"]) for row in found] == [("none", 2), ("none", 1)]


# -- orphans ------------------------------------------------------------------------------------------------------------


def plant_lease(tx: Connection, minutes_silent: float, state: str = "running") -> int:
    job_id = plant_job(tx, lease_holder="h", state=state)
    tx.execute(
        update(job)
        .where(job.c.id == job_id)
        .values(latest_heartbeat=text(f"now() - interval '{minutes_silent} minutes'"))
    )
    return job_id


def reset(tx: Connection, job_id: int, *held: Planted, dag_run_id: int | None = None) -> int:
    return reset_orphans(tx, job_id, MINUTE, held=[row.attempt_id for row in held], dag_run_id=dag_run_id)


def test_what_no_executor_of_the_job_knows_is_reset(tx: Connection) -> None:
    job_id = plant_lease(tx, 0)
    run_id = plant_run(tx, job_id=job_id)
    unknown = plant_task_instance(tx, run_id, "unknown", queued_by_job_id=job_id, try_number=2)
    known = plant_task_instance(tx, run_id, "known", queued_by_job_id=job_id)
    plain = plant_task_instance(tx, run_id, "plain", state="scheduled", external_executor_id=None)
    assert reset(tx, job_id, known) == 2
    now = look(tx, unknown)
    assert (now["state"], now["external_executor_id"], now["try_number"], now["try_open"]) == ("none", None, 2, True)
    assert now["infrastructure_failures"] == 0
    assert look(tx, known)["state"] == "queued"
    assert look(tx, plain)["state"] == "none"
    assert reset(tx, job_id, known) == 0


def test_what_another_live_job_queued_or_drives_is_left_alone(tx: Connection) -> None:
    job_id, live, dead, ended = (
        plant_lease(tx, 0),
        plant_lease(tx, 0.5),
        plant_lease(tx, 2),
        plant_lease(tx, 0, "failed"),
    )
    cases = {
        "driven by a live job": (live, None, 0),
        "driven by a dead job": (dead, None, 1),
        "driven by a job that ended": (ended, None, 1),
        "driven by nobody": (None, None, 1),
        "queued by a live job": (None, live, 0),
        "queued by a dead job": (None, dead, 1),
    }
    for day, (owner, queued_by, expected) in enumerate(cases.values()):
        run_id = plant_run(tx, day, job_id=owner)
        plant_task_instance(tx, run_id, queued_by_job_id=queued_by)
        assert reset(tx, job_id, dag_run_id=run_id) == expected, list(cases)[day]


def test_who_queued_an_earlier_try_does_not_hold_what_is_scheduled(tx: Connection) -> None:
    job_id, live = plant_lease(tx, 0), plant_lease(tx, 0)
    plant_task_instance(tx, plant_run(tx), state="scheduled", queued_by_job_id=live)
    assert reset(tx, job_id) == 1


def test_all_running_runs_of_any_type_are_looked_at_and_no_others(tx: Connection) -> None:
    job_id = plant_lease(tx, 0)
    for day, values in enumerate(
        [
            {"run_type": "manual"},
            {"run_type": "scheduled"},
            {"dag_id": "other"},
            {"state": "queued"},
            {"state": "failed"},
        ]
    ):
        plant_task_instance(tx, plant_run(tx, day, **values))
    assert reset(tx, job_id) == 3
    assert reset(tx, job_id) == 0


def test_only_the_run_asked_for_is_looked_at(tx: Connection) -> None:
    job_id = plant_lease(tx, 0)
    first, second = plant_run(tx, 0), plant_run(tx, 1)
    plant_task_instance(tx, first)
    plant_task_instance(tx, second)
    assert reset(tx, job_id, dag_run_id=second) == 1
    assert reset(tx, job_id) == 1
