"""A process that takes submitted jobs and drives them; several may stand by (S1.5)."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Engine

from backfill.config import Settings
from backfill.coordinator.lease import HeldLease, holder_name
from backfill.exceptions import BackfillError, BackfillUnfinished, Interrupted, ServiceUnavailable
from backfill.jobs.control import Control
from backfill.store import leases
from backfill.store.database import repeat

logger = logging.getLogger(__name__)

#: Seconds between two looks for a job to take.
LOOK_EVERY = 1.0
#: Jobs that one coordinator drives side by side.
MAX_JOBS = 8

#: Drives one job under its lease until it settles, or until it is stopped through its control, which raises `Interrupted`.
DriveJob = Callable[[int, HeldLease, Control], object]


@dataclass(frozen=True, slots=True)
class _Driven:
    """A job that this coordinator drives, or has driven until just now."""

    job_id: int
    control: Control
    thread: threading.Thread


class Coordinator:
    """Takes waiting jobs one after the other and drives each in a thread of its own, until it is told to stop."""

    def __init__(self, engine: Engine, settings: Settings, drive_job: DriveJob) -> None:
        self._engine = engine
        self._settings = settings
        self._drive_job = drive_job
        self._driven: list[_Driven] = []
        self._left_paused: list[int] = []
        self._stopping = False
        # its put is reentrant, so that a signal handler may wake the main thread wherever it is
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()

    def stop(self) -> None:
        """Ask for the end: running jobs are paused in order. A second time, end the process at once (S11.4).

        Called from a signal handler of the main thread.
        """
        if self._stopping:
            self._interrupt_jobs()
            os._exit(Interrupted.exit_code)
        self._stopping = True
        self._wakes.put(None)

    def run(self) -> list[int]:
        """Take and drive jobs until `stop`; return the ids of jobs that were being driven then and are paused now."""
        holder = holder_name()
        logger.info("Coordinator %s stands by", holder)
        while not self._stopping:
            self._driven = [driven for driven in self._driven if driven.thread.is_alive()]
            try:
                self._take_jobs(holder)
            except ServiceUnavailable as error:
                logger.warning("%s", error)
            with contextlib.suppress(queue.Empty):
                self._wakes.get(timeout=LOOK_EVERY)
        self._interrupt_jobs()
        for driven in self._driven:
            driven.thread.join()
        return sorted(self._left_paused)

    def _interrupt_jobs(self) -> None:
        for driven in self._driven:
            driven.control.interrupt("the end of its coordinator")

    def _take_jobs(self, holder: str) -> None:
        take = partial(leases.take_waiting_job, holder=holder, timeout=self._settings.lease_timeout)
        while len(self._driven) < MAX_JOBS and not self._stopping:
            taken = repeat(self._engine, take)
            if taken is None:
                return
            lease = HeldLease(self._engine, taken.job_id, holder=holder, epoch=taken.epoch, settings=self._settings)
            control = Control()
            thread = threading.Thread(target=self._drive, args=(lease, control), name=f"job-{taken.job_id}")
            self._driven.append(_Driven(taken.job_id, control, thread))
            thread.start()

    def _drive(self, lease: HeldLease, control: Control) -> None:
        job_id = lease.job_id
        logger.info("Job %d is driven by this coordinator", job_id)
        try:
            self._drive_job(job_id, lease, control)
        except Interrupted:
            self._left_paused.append(job_id)
            logger.info("Job %d is paused: backfill resume %d", job_id, job_id)
        except BackfillUnfinished as unfinished:
            logger.warning("%s", unfinished)
        except BackfillError as error:
            logger.warning("Job %d is not driven any more: %s", job_id, error)
        except Exception:
            logger.exception("Job %d stopped on an internal error", job_id)
        else:
            logger.info("Job %d ended well", job_id)
