"""Back to the initial state (S3.26), and task instances of runs that are closed unfinished (S3.17, S3.18, S3.23)."""

from datetime import UTC, datetime, timedelta

import pytest
from planted import look, plant_date, plant_job, plant_run, plant_running, plant_task_instance, plant_xcom
from sqlalchemy import Connection, select, update

from backfill.models import dag_run, job_run_date, task_attempt
from backfill.states import TaskInstanceState
from backfill.store.clearing import (
    cancel_if_current,
    clear_task_instances,
    skip_if_unfinished,
    unschedule_if_run_closed,
)

SOON = datetime(2030, 1, 1, tzinfo=UTC)
BAD = {TaskInstanceState.FAILED, TaskInstanceState.UPSTREAM_FAILED}


def test_a_cleared_task_instance_has_all_its_tries_ahead_and_keeps_its_history(tx: Connection) -> None:
    run_id = plant_run(tx)
    row = plant_running(
        tx,
        run_id,
        state="failed",
        try_number=4,
        max_tries=3,
        infrastructure_failures=2,
        next_attempt_at=SOON,
        skips=["a"],
        error="x",
        end_date=SOON,
        duration=1.0,
        hostname="h",
        pid=1,
    )
    plant_xcom(tx, row, "return_value", 1)
    tx.execute(update(task_attempt).values(end_date=SOON, outcome="failed"))
    before = look(tx, row)["attempts"]
    [facts] = clear_task_instances(tx, [run_id], {"load": 3})
    now = look(tx, row)
    assert (facts.state, facts.try_number, facts.max_tries, facts.try_open) == ("none", 4, 7, False)
    emptied = (
        "external_executor_id",
        "next_attempt_at",
        "skips",
        "error",
        "start_date",
        "end_date",
        "duration",
        "hostname",
        "pid",
    )
    assert [now[column] for column in (*emptied, "first_start_date", "heartbeat_at")] == [None] * 11
    assert now["infrastructure_failures"] == 0
    assert now["attempts"] == before
    assert now["xcoms"] == {"return_value": 1}


def test_each_task_gets_its_own_retries_and_others_stay(tx: Connection) -> None:
    first, second, other = plant_run(tx, 0), plant_run(tx, 1), plant_run(tx, 2)
    for run_id in (first, second, other):
        for task_id in "abc":
            plant_task_instance(tx, run_id, task_id, state="success")
    cleared = clear_task_instances(tx, [first, second], {"a": 0, "b": 5})
    assert [(row.dag_run_id, row.task_id, row.max_tries) for row in cleared] == [
        (first, "a", 1),
        (first, "b", 6),
        (second, "a", 1),
        (second, "b", 6),
    ]


def test_states_and_ids_narrow_what_is_cleared(tx: Connection) -> None:
    run_id = plant_run(tx)
    rows = {
        state: plant_task_instance(tx, run_id, "mapped", map_index=i, state=state)
        for i, state in enumerate(TaskInstanceState)
    }
    only_failed = clear_task_instances(tx, [run_id], {"mapped": 0}, states=BAD)
    assert {row.id for row in only_failed} == {rows[state].id for state in BAD}
    success = rows[TaskInstanceState.SUCCESS].id
    assert [row.id for row in clear_task_instances(tx, [run_id], {"mapped": 0}, ti_ids=[success])] == [success]
    assert clear_task_instances(tx, [run_id], {"mapped": 0}, ti_ids=[]) == []


def test_a_running_attempt_is_cleared_once_its_heartbeat_ran_out(tx: Connection) -> None:
    run_id = plant_run(tx)
    alive, gone = plant_running(tx, run_id, "alive", heartbeat_at=datetime.now(UTC)), plant_running(tx, run_id, "gone")
    cleared = clear_task_instances(tx, [run_id], {"alive": 0, "gone": 0}, heartbeat_timeout=timedelta(minutes=1))
    assert [row.id for row in cleared] == [gone.id]
    assert look(tx, gone)["attempts"][gone.attempt_id]["outcome"] == "lost"
    assert look(tx, alive)["attempts"][alive.attempt_id]["outcome"] is None


@pytest.mark.parametrize(
    ("state", "after"), [("success", "queued"), ("failed", "queued"), ("running", "running"), ("queued", "queued")]
)
def test_a_finished_run_becomes_queued(tx: Connection, state: str, after: str) -> None:
    run_id, untouched = plant_run(tx, 0, state=state, end_date=SOON), plant_run(tx, 1, state=state)
    plant_task_instance(tx, run_id, state="success")
    plant_task_instance(tx, untouched, "other", state="success")
    clear_task_instances(tx, [run_id, untouched], {"load": 0})
    states = select(dag_run.c.state, dag_run.c.end_date).order_by(dag_run.c.id)
    assert tx.execute(states).all() == [(after, None if state in {"success", "failed"} else SOON), (state, None)]


def test_an_active_job_takes_again_what_is_cleared_in_its_finished_runs(tx: Connection) -> None:
    former, job_id = plant_job(tx, state="failed"), plant_job(tx)
    runs = [plant_run(tx, day, state="success") for day in range(3)]
    for ordinal, run_id in enumerate(runs):
        plant_date(tx, job_id, ordinal, run_id, active=True, progress="finished", action="done")
        plant_date(tx, former, ordinal, run_id, progress="finished")
    for run_id in runs[:2]:
        plant_task_instance(tx, run_id, state="failed")
    plant_task_instance(tx, runs[2], state="success")
    clear_task_instances(tx, runs, {"load": 0}, states=BAD)
    dates = select(job_run_date.c.progress, job_run_date.c.action).order_by(job_run_date.c.ordinal)
    assert tx.execute(dates.where(job_run_date.c.job_id == job_id)).all() == [
        ("pending", "take"),
        ("pending", "take"),
        ("finished", "done"),
    ]
    assert {row.progress for row in tx.execute(dates.where(job_run_date.c.job_id == former))} == {"finished"}


def test_a_date_that_has_not_come_up_yet_keeps_what_was_planned_for_it(tx: Connection) -> None:
    run_id = plant_run(tx, state="success")
    plant_task_instance(tx, run_id, state="success")
    plant_date(tx, plant_job(tx), 0, run_id, active=True, progress="pending", action="clear")
    clear_task_instances(tx, [run_id], {"load": 0})
    assert tx.execute(select(job_run_date.c.progress, job_run_date.c.action)).all() == [("pending", "clear")]


def test_what_waits_in_a_closed_run_is_back_in_none_with_its_try_closed(tx: Connection) -> None:
    closed, running = plant_run(tx, 0, state="failed"), plant_run(tx, 1)
    row = plant_task_instance(tx, closed, state="up_for_reschedule", next_attempt_at=SOON)
    plant_task_instance(tx, running, state="scheduled")
    assert unschedule_if_run_closed(tx, [closed, running]) == {row.id}
    now = look(tx, row)
    assert (now["state"], now["try_open"], now["next_attempt_at"]) == ("none", False, None)


def test_cancelling_ends_what_ran_now_and_what_waited_when_its_try_ended(tx: Connection) -> None:
    run_id = plant_run(tx)
    ran = plant_running(tx, run_id, "ran")
    waited = plant_task_instance(
        tx, run_id, "waited", state="up_for_retry", end_date=SOON, duration=3.0, next_attempt_at=SOON
    )
    pairs = [(waited.id, waited.attempt_id), (ran.id, ran.attempt_id)]
    assert cancel_if_current(tx, pairs, "cancelled") == {ran.id, waited.id}
    now, then = look(tx, ran), look(tx, waited)
    assert (now["state"], now["error"], now["try_open"]) == ("failed", "cancelled", False)
    assert now["duration"] == pytest.approx(300, abs=60)
    assert now["attempts"][ran.attempt_id]["outcome"] == "failed"
    assert (then["state"], then["end_date"], then["duration"], then["next_attempt_at"]) == ("failed", SOON, 3.0, None)


def test_a_timeout_skips_and_stops_all_that_is_unfinished(tx: Connection) -> None:
    run_id = plant_run(tx)
    ran, waited = plant_running(tx, run_id, "ran"), plant_task_instance(tx, run_id, "waited", state="none")
    done = plant_task_instance(tx, run_id, "done", state="success")
    rows = skip_if_unfinished(tx, [run_id], "dagrun_timeout of 1:00:00 is over")
    assert [(row.id, row.state, row.attempt_id) for row in rows] == [
        (ran.id, "skipped", None),
        (waited.id, "skipped", None),
    ]
    now = look(tx, ran)
    assert now["duration"] == pytest.approx(300, abs=60)
    attempt = now["attempts"][ran.attempt_id]
    assert (attempt["outcome"], attempt["error"]) == ("skipped", "dagrun_timeout of 1:00:00 is over")
    assert look(tx, waited)["error"] == "dagrun_timeout of 1:00:00 is over"
    assert look(tx, waited)["start_date"] == look(tx, waited)["end_date"]
    assert look(tx, done)["state"] == "success"
