"""The right to drive one job: held by one process at a time, kept by a heartbeat, lost by silence (S1.4)."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import uuid4

from sqlalchemy import Engine

from backfill.clock import Clock, SystemClock
from backfill.config import Settings
from backfill.exceptions import LeaseLost
from backfill.jobs.base_job import ATTEMPTS
from backfill.states import ACTIVE_JOB, JobState
from backfill.store import leases
from backfill.store.database import Tx, autocommitting, database_now, repeat
from backfill.store.leases import JobControl


def holder_name() -> str:
    """Return a name for this process that no other process ever has, readable in `job.lease_holder`."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"


class HeldLease:
    """A lease that this process holds, with the epoch under which it may write.

    `control` is what the operator wants, as last read; every fence and every renewal reads it again.
    """

    def __init__(
        self, engine: Engine, job_id: int, *, holder: str, epoch: int, settings: Settings, clock: Clock | None = None
    ) -> None:
        self.job_id = job_id
        self.holder = holder
        self.epoch = epoch
        self.control = JobControl(JobState.RUNNING, cancel_requested=False)
        self._engine = engine
        self._clock = clock or SystemClock()
        self._interval = settings.coordinator.heartbeat_interval.total_seconds()
        self._renew_at = self._clock.monotonic() + self._interval
        self._set_clock(repeat(engine, database_now, attempts=ATTEMPTS, wait=self._clock.sleep))

    @classmethod
    def take_if_free(
        cls, engine: Engine, job_id: int, *, holder: str, settings: Settings, clock: Clock | None = None
    ) -> HeldLease | None:
        """Take the lease of an active job; None while another's has not run out, and for a job that has ended."""
        epoch = repeat(
            engine,
            lambda tx: leases.claim_lease_if_free(tx, job_id, holder, settings.lease_timeout, ACTIVE_JOB),
            wait=(clock or SystemClock()).sleep,
        )
        if epoch is None:
            return None
        return cls(engine, job_id, holder=holder, epoch=epoch, settings=settings, clock=clock)

    def fence(self, tx: Tx) -> JobControl:
        """Lock the job's row against takeover until `tx` ends; `LeaseLost` if another holds the lease."""
        self.control = leases.fence(tx, self.job_id, self.epoch)
        return self.control

    def fence_and_lock_limits(self, tx: Tx, dag_ids: Sequence[str], pools: Sequence[str]) -> dict[str, int]:
        """Fence `tx` as `fence` does, lock the limits of DAGs and pools, and return the slots of each pool."""
        self.control, sizes = leases.fence_and_lock_limits(tx, self.job_id, self.epoch, dag_ids, pools)
        return sizes

    def renew_if_due(self, *, at_once: bool = False) -> JobControl | None:
        """Renew the lease when its heartbeat is due or `at_once`, else return None; `LeaseLost` if it was taken over."""
        if self._clock.monotonic() < self._renew_at and not at_once:
            return None
        renewal = repeat(
            autocommitting(self._engine),
            lambda tx: leases.renew_lease_if_held(tx, self.job_id, self.epoch),
            attempts=ATTEMPTS,
            wait=self._clock.sleep,
        )
        if renewal is None:
            raise LeaseLost(f"Another coordinator took job {self.job_id} over; this one stops and writes nothing more.")
        self._renew_at = self._clock.monotonic() + self._interval
        self._set_clock(renewal.at)
        self.control = renewal.control
        return renewal.control

    def release(self, *, attempts: int = ATTEMPTS) -> None:
        """Give the lease back, so that the next holder need not wait; harmless when it is lost already."""
        repeat(
            self._engine,
            lambda tx: leases.release_lease_if_held(tx, self.job_id, self.epoch),
            attempts=attempts,
            wait=self._clock.sleep,
        )

    def due_in(self) -> float:
        """Return the seconds until the next heartbeat."""
        return max(0.0, self._renew_at - self._clock.monotonic())

    def now(self) -> datetime:
        """Return the present time by the database's clock (S0.2), read at the last heartbeat and counted on from there."""
        return self._read + timedelta(seconds=self._clock.monotonic() - self._read_at)

    def _set_clock(self, now: datetime) -> None:
        self._read = now
        self._read_at = self._clock.monotonic()
