"""A process that takes submitted jobs and drives them; several may stand by (S1.5)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

from sqlalchemy import Engine

from backfill.config import Settings
from backfill.coordinator.lease import HeldLease, holder_name
from backfill.exceptions import BackfillError, ServiceUnavailable
from backfill.store import leases
from backfill.store.database import repeat

logger = logging.getLogger(__name__)

#: Seconds between two looks for a job to take.
LOOK_EVERY = 1.0
#: Jobs that one coordinator drives side by side.
MAX_JOBS = 8

#: Drives one job under its lease until it settles; returns when `interrupt` of the job was asked for, too.
DriveJob = Callable[[int, HeldLease], object]


class Coordinator:
    """Takes waiting jobs one after the other and drives each in a thread of its own, until it is told to stop."""

    def __init__(
        self, engine: Engine, settings: Settings, drive_job: DriveJob, stop_job: Callable[[int], None]
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._drive_job = drive_job
        self._stop_job = stop_job
        self._stopping = threading.Event()
        self._driving: dict[int, threading.Thread] = {}

    def stop(self) -> None:
        """Ask for the end: running jobs are paused in order; called from a signal handler or another thread."""
        self._stopping.set()

    def run(self) -> None:
        """Take and drive jobs until `stop`; then pause those that are being driven and return."""
        holder = holder_name()
        logger.info("Coordinator %s stands by", holder)
        while not self._stopping.wait(LOOK_EVERY):
            self._driving = {job_id: thread for job_id, thread in self._driving.items() if thread.is_alive()}
            try:
                self._take_jobs(holder)
            except ServiceUnavailable as error:
                logger.warning("%s", error)
        for job_id in self._driving:
            self._stop_job(job_id)
        for thread in self._driving.values():
            thread.join()

    def _take_jobs(self, holder: str) -> None:
        while len(self._driving) < MAX_JOBS:
            name = f"{holder}:{len(self._driving)}"
            take = partial(leases.take_waiting_job, holder=name, timeout=self._settings.lease_timeout)
            taken = repeat(self._engine, take)
            if taken is None:
                return
            job_id, epoch = taken
            lease = HeldLease(self._engine, job_id, holder=name, epoch=epoch, settings=self._settings)
            thread = threading.Thread(target=self._drive, args=(job_id, lease), name=f"job-{job_id}")
            self._driving[job_id] = thread
            thread.start()

    def _drive(self, job_id: int, lease: HeldLease) -> None:
        logger.info("Job %d is driven by this coordinator", job_id)
        try:
            self._drive_job(job_id, lease)
        except BackfillError as error:
            logger.warning("Job %d: %s", job_id, error)
        except Exception:
            logger.exception("Job %d stopped on an internal error", job_id)
        else:
            logger.info("Job %d ended well", job_id)
