"""Taking up a job that was left (S11.2): nobody holds it, its holder has died, or its holder lives and goes on by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import Engine

from backfill.config import Settings
from backfill.coordinator.lease import HeldLease
from backfill.coordinator.orders import read_row
from backfill.exceptions import JobHeld, RefusedError
from backfill.jobs.holder import name_of
from backfill.states import FINISHED_JOB, JobState
from backfill.store import jobs
from backfill.store.database import repeat
from backfill.store.jobs import JobRow

#: A holder that was silent so far is looked at this many times in each of its heartbeats.
_LOOKS_PER_HEARTBEAT = 10


def take_over(
    engine: Engine,
    job_id: int,
    *,
    holder: str,
    settings: Settings,
    tell: Callable[[str], object],
    wake: Callable[[], object],
    wait: Callable[[float], object] = time.sleep,
) -> HeldLease | None:
    """Take the lease of a job, as soon as it is free; None: its holder lives, and goes on with the job that was paused.

    Whether a holder lives shows within one heartbeat, or at once where `wake` reaches it: if it renews its lease, the pause is
    lifted, or, where there was none, the command is refused with `JobHeld`. If it does not, this waits for the lease to run out,
    and tells so in one sentence. Raises `RefusedError` for a job that has ended.
    """
    lease = HeldLease.take_if_free(engine, job_id, holder=holder, settings=settings)
    if lease is not None:
        return lease
    held = read_row(engine, job_id)
    if held.state in FINISHED_JOB:
        raise RefusedError(
            f"Job {job_id} has ended as {held.state} and cannot be resumed; "
            "start a new one with --rerun-failed-tasks to run what failed again."
        )
    lifted = held.state == JobState.PAUSED and _lift_pause(engine, job_id)
    tell(_waiting(held, settings.lease_timeout))
    wake()
    while lease is None:
        wait(settings.coordinator.heartbeat_interval.total_seconds() / _LOOKS_PER_HEARTBEAT)
        now = read_row(engine, job_id)
        if _gave_a_sign_of_life(held, now):
            if lifted:
                return None
            raise JobHeld(
                f"Job {job_id} is driven by {name_of(now.lease_holder)}; `backfill status {job_id}` shows how it goes on."
            )
        lease = HeldLease.take_if_free(engine, job_id, holder=holder, settings=settings)
    return lease


def _gave_a_sign_of_life(before: JobRow, now: JobRow) -> bool:
    """Return whether the holder renewed its lease or brought the job to its end, or another took the lease."""
    if now.state in FINISHED_JOB:
        return True
    changed = (now.lease_epoch, now.latest_heartbeat) != (before.lease_epoch, before.latest_heartbeat)
    return changed and now.lease_holder is not None


def _lift_pause(engine: Engine, job_id: int) -> bool:
    return repeat(engine, lambda tx: jobs.set_job_state_if(tx, job_id, {JobState.PAUSED}, JobState.RUNNING))


def _waiting(held: JobRow, timeout: timedelta) -> str:
    age = held.heartbeat_age or timedelta()
    left = max(0, round((timeout - age).total_seconds()))
    return (
        f"Job {held.id} is held by {name_of(held.lease_holder)}, which was heard of {age.total_seconds():.0f} s ago; "
        f"if it stays silent, this command takes over in {left} s."
    )
