"""What an operator orders from outside of the process that drives a job: a pause, a cancel (S11.1, S11.5)."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import Engine

from backfill.config import Settings
from backfill.coordinator.lease import HeldLease
from backfill.exceptions import RefusedError, UsageError
from backfill.jobs.holder import name_of
from backfill.states import FINISHED_JOB, JobState
from backfill.store import jobs, recovery, task_instances
from backfill.store.database import Tx, repeat
from backfill.store.jobs import JobRow

#: Seconds between two looks whether a job is cancelled.
_LOOK_EVERY = 0.2


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


def request_cancel(engine: Engine, job_id: int) -> bool:
    """Have a job cancelled by its holder, or at once where it has not begun; False: it is cancelled already.

    What no worker has claimed is taken back here, so that nothing more of it starts even if the holder is dead.
    Raises `RefusedError` for a job that ended otherwise, `UsageError` if there is none of that id.
    """

    def work(tx: Tx) -> bool:
        if jobs.request_cancel_if_active(tx, job_id) is None:
            return False
        in_flight = recovery.select_in_flight(tx, job_id)
        task_instances.take_back_if_queued(tx, [(each.facts.id, each.facts.attempt_id) for each in in_flight])
        return True

    if repeat(engine, work):
        return True
    job = read_row(engine, job_id)
    if job.state != JobState.CANCELLED:
        raise RefusedError(f"Job {job_id} has ended as {job.state} and cannot be cancelled.")
    return False


def await_cancelled(
    engine: Engine,
    job_id: int,
    *,
    holder: str,
    settings: Settings,
    tell: Callable[[str], object],
    wait: Callable[[float], object] = time.sleep,
) -> HeldLease | None:
    """Wait until the holder of a job has cancelled it (None), or its lease is free, and take that to cancel the job here.

    Raises `RefusedError` if the job came to another end first.
    """
    told_of: int | None = None
    while (job := read_row(engine, job_id)).state not in FINISHED_JOB:
        if job.heartbeat_age is None or job.heartbeat_age >= settings.lease_timeout:
            lease = HeldLease.take_if_free(engine, job_id, holder=holder, settings=settings)
            if lease is not None:
                return lease
        running = len(repeat(engine, lambda tx: recovery.select_in_flight(tx, job_id)))
        if told_of is None:
            tell(_awaited(job, running, settings.lease_timeout))
        elif running != told_of and running:
            tell(f"Waiting for {_task_instances(running)} to stop.")
        told_of = running
        wait(_LOOK_EVERY)
    if job.state != JobState.CANCELLED:
        raise RefusedError(f"Job {job_id} ended as {job.state} before it could be cancelled.")
    return None


def read_row(engine: Engine, job_id: int) -> JobRow:
    """Return a job as its row is now; `UsageError` if there is none of that id."""
    row = repeat(engine, lambda tx: jobs.select_job(tx, job_id))
    if row is None:
        raise UsageError(f"There is no job {job_id}; `backfill list` shows those that exist.")
    return row


def _awaited(job: JobRow, running: int, timeout: timedelta) -> str:
    age = job.heartbeat_age or timedelta()
    left = max(0, round((timeout - age).total_seconds()))
    return (
        f"Job {job.id} is held by {name_of(job.lease_holder)}, which is to stop {_task_instances(running)} and was heard of "
        f"{age.total_seconds():.0f} s ago; if it stays silent, this command takes over in {left} s."
    )


def _task_instances(running: int) -> str:
    return "1 running task instance" if running == 1 else f"{running} running task instances"
