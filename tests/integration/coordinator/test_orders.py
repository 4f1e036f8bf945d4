"""What `pause` and `cancel` do in every state of a job (S11)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from backfill import DAG
from backfill.bootstrap import Runtime, open_runtime
from backfill.config import Settings
from backfill.coordinator.orders import await_cancelled, pause_job, read_row, request_cancel
from backfill.exceptions import RefusedError, UsageError
from backfill.jobs import BackfillJob
from backfill.keys import backfill_run_id
from backfill.models import dag_run, task_instance
from backfill.operators import PythonOperator
from backfill.states import FINISHED_JOB, JobState
from backfill.telemetry import Note


@pytest.fixture
def runtime(settings: Settings, database_url: str) -> Any:
    with open_runtime(settings.override("the test", {"database.url": database_url}), broker=False) as runtime:
        yield runtime


def a_job(runtime: Runtime, state: JobState, **columns: object) -> int:
    """Return the id of a job that nobody holds."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    with DAG("sales", schedule="@daily", start_date=start) as dag:
        PythonOperator(task_id="load", python_callable=print)
    job_id: int = runtime.create(BackfillJob(dag, start, start), submit=True).id
    ended = {"end_date": start} if state in FINISHED_JOB else {}
    write(runtime, "job", state=state.value, **ended, **columns)
    return job_id


def write(runtime: Runtime, table: str, **columns: object) -> None:
    """Set columns of all rows."""
    changes = ", ".join(f"{name} = :{name}" for name in columns)
    with runtime.engine.begin() as tx:
        tx.execute(sa.text(f"update {table} set {changes}"), columns)


def plant_run(tx: sa.Connection, job_id: int, tasks: dict[str, str]) -> None:
    """Write a run in the job's window; what is `running` in it gives no heartbeat."""
    number = tx.execute(sa.select(sa.func.count()).select_from(dag_run)).scalar_one()
    date = datetime(2024, 1, 1 + number, tzinfo=UTC)
    row = {"dag_id": "sales", "run_id": backfill_run_id(date), "logical_date": date, "data_interval_start": date}
    row |= {"data_interval_end": date, "run_type": "backfill", "state": "running", "start_date": date, "job_id": job_id}
    run_id = tx.execute(sa.insert(dag_run).values(row).returning(dag_run.c.id)).scalar_one()
    for task_id, state in tasks.items():
        ti = {"dag_run_id": run_id, "dag_id": "sales", "run_id": row["run_id"], "task_id": task_id, "state": state}
        ti |= {"pool": "default_pool", "queue": "backfill", "executor": "local", "external_executor_id": uuid4()}
        tx.execute(sa.insert(task_instance).values(ti))


def states(runtime: Runtime) -> dict[str, set[str]]:
    """Return the states of all task instances by task id."""
    found: dict[str, set[str]] = {}
    with runtime.engine.connect() as tx:
        for row in tx.execute(sa.text("select task_id, state from task_instance")):
            found.setdefault(row.task_id, set()).add(row.state)
    return found


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING])
def test_a_job_that_goes_on_is_paused_and_that_can_be_repeated(runtime: Runtime, state: JobState) -> None:
    job_id = a_job(runtime, state)
    assert runtime.pause(job_id)
    assert not runtime.pause(job_id)
    assert read_row(runtime.engine, job_id).state == "paused"


@pytest.mark.parametrize("state", sorted(FINISHED_JOB))
def test_a_job_that_has_ended_is_not_paused(runtime: Runtime, state: JobState) -> None:
    job_id = a_job(runtime, state)
    with pytest.raises(RefusedError, match=f"Job {job_id} has ended as {state} and cannot be paused"):
        runtime.pause(job_id)
    assert read_row(runtime.engine, job_id).state == state


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.PAUSED])
def test_a_job_that_is_being_cancelled_is_not_paused(runtime: Runtime, state: JobState) -> None:
    job_id = a_job(runtime, state, cancel_requested=True)
    with pytest.raises(RefusedError, match=f"Job {job_id} is being cancelled and cannot be paused"):
        pause_job(runtime.engine, job_id)


def test_there_is_nothing_to_pause_without_a_job(runtime: Runtime) -> None:
    with pytest.raises(UsageError, match="There is no job 77"):
        runtime.pause(77)


def test_a_queued_job_is_cancelled_at_once(runtime: Runtime) -> None:
    job_id = a_job(runtime, JobState.QUEUED)
    assert runtime.cancel(job_id)
    assert not runtime.cancel(job_id)
    assert read_row(runtime.engine, job_id).state == "cancelled"


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.PAUSED])
def test_a_job_that_nobody_holds_is_cancelled_by_the_command(runtime: Runtime, state: JobState) -> None:
    job_id = a_job(runtime, state)
    with runtime.engine.begin() as tx:
        plant_run(
            tx, job_id, {"ran_well": "success", "waits": "none", "is_late": "scheduled", "retries": "up_for_retry"}
        )
        plant_run(tx, job_id, {"ran_well": "success", "left_out": "skipped"})
        plant_run(tx, job_id, {"sent": "queued", "sleeps": "up_for_reschedule", "silent": "running"})
    assert runtime.cancel(job_id)
    job = read_row(runtime.engine, job_id)
    assert (job.state, job.end_date is not None) == ("cancelled", True)
    assert states(runtime) == {
        "ran_well": {"success"},
        "left_out": {"skipped"},
        **{task_id: {"none"} for task_id in ("waits", "is_late", "sent", "sleeps")},
        **{task_id: {"failed"} for task_id in ("retries", "silent")},
    }
    with runtime.engine.connect() as tx:
        ends = tx.execute(sa.text("select state, end_date is not null, job_id from dag_run order by id")).all()
    assert ends == [("failed", True, None), ("success", True, None), ("failed", True, None)]
    assert runtime.report(job_id).exit_code == 4


@pytest.mark.parametrize("state", sorted(FINISHED_JOB - {JobState.CANCELLED}))
def test_a_job_that_has_ended_otherwise_is_not_cancelled(runtime: Runtime, state: JobState) -> None:
    job_id = a_job(runtime, state)
    with pytest.raises(RefusedError, match=f"Job {job_id} has ended as {state} and cannot be cancelled"):
        runtime.cancel(job_id)
    assert read_row(runtime.engine, job_id).state == state


def test_a_job_that_ends_by_itself_meanwhile_is_not_said_to_be_cancelled(runtime: Runtime, settings: Settings) -> None:
    job_id = a_job(runtime, JobState.RUNNING, lease_holder="host:7:abc", latest_heartbeat=datetime.now(UTC))
    told: list[str] = []
    request_cancel(runtime.engine, job_id)
    with pytest.raises(RefusedError, match=f"Job {job_id} ended as success before it could be cancelled"):
        await_cancelled(
            runtime.engine,
            job_id,
            holder="us",
            settings=settings,
            tell=told.append,
            wait=lambda _: write(runtime, "job", state="success", end_date=datetime.now(UTC)),
        )
    assert len(told) == 1
    assert told[0].startswith(f"Job {job_id} is held by process 7 on host, which is to stop 0 running task instances")


def test_whoever_waits_for_a_cancel_is_told_how_many_are_still_to_stop(runtime: Runtime, settings: Settings) -> None:
    job_id = a_job(runtime, JobState.RUNNING, lease_holder="host:7:x", latest_heartbeat=datetime.now(UTC))
    with runtime.engine.begin() as tx:
        plant_run(tx, job_id, {"a": "running", "b": "running", "c": "running"})
    told: list[str] = []
    steps = iter(["a", "b", "c"])

    def one_more_stops(_: float) -> None:
        task_id = next(steps)
        with runtime.engine.begin() as tx:
            tx.execute(sa.text("update task_instance set state = 'failed' where task_id = :id"), {"id": task_id})
        if task_id == "c":
            write(runtime, "job", state="cancelled", end_date=datetime.now(UTC))

    request_cancel(runtime.engine, job_id)
    common = {"holder": "us", "settings": settings, "tell": told.append}
    assert await_cancelled(runtime.engine, job_id, **common, wait=one_more_stops) is None
    assert "which is to stop 3 running task instances" in told[0]
    assert told[1:] == [
        "Waiting for 2 running task instances to stop.",
        "Waiting for 1 running task instance to stop.",
    ]


def test_a_cancel_that_is_broken_off_leaves_the_lease_free(runtime: Runtime) -> None:
    job_id = a_job(runtime, JobState.RUNNING)

    def break_off(event: object) -> None:
        if isinstance(event, Note):
            raise KeyboardInterrupt

    runtime.telemetry.subscribe(break_off)
    with pytest.raises(KeyboardInterrupt):
        runtime.cancel(job_id)
    job = read_row(runtime.engine, job_id)
    assert (job.state, job.cancel_requested, job.lease_holder) == ("running", True, None)
