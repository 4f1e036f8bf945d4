"""Where jobs of a test work: in this process, on a database that is there, with whatever executors the test brings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from sqlalchemy import Engine

from backfill.config import Settings
from backfill.coordinator.drive import drive
from backfill.coordinator.lease import HeldLease, holder_name
from backfill.dag import DAG
from backfill.exceptions import BackfillUnfinished
from backfill.executors import BaseExecutor, Mailbox
from backfill.jobs import BackfillJob
from backfill.jobs.base_job import Workplace
from backfill.jobs.creation import create, read_job
from backfill.jobs.report import Report
from backfill.jobs.request import BackfillRequest
from backfill.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class CastJob:
    """A job that is ready to be driven by this process: created, read back, with its lease and its means."""

    job: BackfillJob
    lease: HeldLease
    workplace: Workplace

    def drive(self) -> Report:
        """Drive the job until it has settled, and return its report, however it ended."""
        try:
            return drive(self.job, self.workplace, self.lease, resumed=False)
        except BackfillUnfinished as unfinished:
            return cast("Report", unfinished.report)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A database, and the means to let jobs work on it without workers."""

    engine: Engine
    settings: Settings
    telemetry: Telemetry = field(default_factory=Telemetry)
    #: Makes the mailbox of a job from its id.
    mailbox: Callable[[int], Mailbox] = lambda _job_id: Mailbox()

    def put_on(self, dag: DAG, request: BackfillRequest, *executors: BaseExecutor) -> CastJob:
        """Check and create a job under a lease of this process; a refused one raises what it raises for everybody."""
        holder = holder_name()
        created = create(
            BackfillJob.from_request(dag, request),
            self.engine,
            self.settings,
            frozen=None,
            dag_source={},
            holder=holder,
        )
        assert created.epoch is not None
        job = read_job(self.engine, created.job_id)
        job.dag = dag
        lease = HeldLease(self.engine, job.id, holder=holder, epoch=created.epoch, settings=self.settings)
        return CastJob(job, lease, self._workplace(lease, executors))

    def _workplace(self, lease: HeldLease, executors: tuple[BaseExecutor, ...]) -> Workplace:
        return Workplace(
            engine=self.engine,
            settings=self.settings,
            telemetry=self.telemetry,
            lease=lease,
            executors={executor.name: executor for executor in executors},
            database_url="",
            broker_url="",
            mailbox=self.mailbox(lease.job_id),
        )
