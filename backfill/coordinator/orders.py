"""What an operator orders from outside of the process that drives a job: a pause, a cancel (S11.1, S11.5)."""

from __future__ import annotations

from sqlalchemy import Engine

from backfill.exceptions import RefusedError, UsageError
from backfill.states import JobState
from backfill.store import jobs
from backfill.store.database import repeat
from backfill.store.jobs import JobRow


def pause_job(engine: Engine, job_id: int) -> bool:
    """Let a job's holder, or whoever would become it, start nothing more; False: it is paused already.

    Raises `RefusedError` for a job that has ended or is being cancelled, `UsageError` if there is none of that id.
    """
    if repeat(engine, lambda tx: jobs.pause_if_going_on(tx, job_id)):
        return True
    job = read_row(engine, job_id)
    if job.cancel_requested and job.end_date is None:
        raise RefusedError(f"Job {job_id} is being cancelled and cannot be paused.")
    if job.state != JobState.PAUSED:
        raise RefusedError(f"Job {job_id} has ended as {job.state} and cannot be paused.")
    return False


def read_row(engine: Engine, job_id: int) -> JobRow:
    """Return a job as its row is now; `UsageError` if there is none of that id."""
    row = repeat(engine, lambda tx: jobs.select_job(tx, job_id))
    if row is None:
        raise UsageError(f"There is no job {job_id}; `backfill list` shows those that exist.")
    return row


def name_of(holder: str | None) -> str:
    """Return a lease's holder as operators look for it: its process and its host."""
    host, _, process = (holder or "").partition(":")
    return f"process {process.partition(':')[0]} on {host}" if process else "another process"
