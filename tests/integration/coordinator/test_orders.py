"""What `pause` and `cancel` do in every state of a job (S11)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from backfill import DAG
from backfill.bootstrap import Runtime, open_runtime
from backfill.config import Settings
from backfill.coordinator.orders import pause_job, read_row
from backfill.exceptions import RefusedError, UsageError
from backfill.jobs import BackfillJob
from backfill.operators import PythonOperator
from backfill.states import FINISHED_JOB, JobState


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
