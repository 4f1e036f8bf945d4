"""The composition root: settings become servers, an engine, executors, jobs and what drives them.

Everything else receives its collaborators; this module is the only one that knows all of them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine

from backfill import executors, migrations
from backfill.config import Settings, load_settings, signing_key
from backfill.coordinator.broker import check_broker, living_workers
from backfill.coordinator.daemon import Coordinator
from backfill.coordinator.drive import drive
from backfill.coordinator.lease import HeldLease, holder_name
from backfill.coordinator.local_workers import LocalWorkers
from backfill.dag import DAG
from backfill.dag.freeze import FrozenDag, freeze, thaw
from backfill.dag.loader import LoadedDag, find_dag
from backfill.embedded import Servers
from backfill.exceptions import FrozenDagError, NothingToDo, RefusedError
from backfill.executors import BaseExecutor, normal_name
from backfill.executors.environment import settings_environment
from backfill.jobs import BackfillJob
from backfill.jobs.base_job import Workplace
from backfill.jobs.conclusion import job_report
from backfill.jobs.creation import create, read_job
from backfill.jobs.report import Report
from backfill.jobs.request import BackfillRequest
from backfill.states import FINISHED_JOB, JobState
from backfill.store import pickles
from backfill.store.database import create_engine, database_now, repeat
from backfill.telemetry import Note, Telemetry

logger = logging.getLogger(__name__)

#: How long the tasks of a local worker may run on when its command ends.
LOCAL_GRACE = timedelta(seconds=2)


@dataclass(kw_only=True)
class Runtime:
    """What one command has at hand while it runs."""

    settings: Settings
    engine: Engine
    database_url: str
    #: Empty where the command needs no broker.
    broker_url: str
    telemetry: Telemetry = field(default_factory=Telemetry)
    _leases: dict[int, HeldLease] = field(default_factory=dict)

    # -- jobs -----------------------------------------------------------------------------------------------------------

    def create_job(self, loaded: LoadedDag, request: BackfillRequest, *, submit: bool) -> BackfillJob:
        """Check and create a job for a DAG that was found in a file; see `create`."""
        source = {"file": str(loaded.file), "file_hash": loaded.file_hash}
        return self.create(BackfillJob.from_request(loaded.dag, request), source, submit=submit)

    def create(
        self, job: BackfillJob, dag_source: dict[str, Any] | None = None, *, submit: bool = False
    ) -> BackfillJob:
        """Check and write `job` (S1.2, S1.3), and return it as its row is; dates left out are told as notes.

        The lease is this process's, for `drive`, unless the job is submitted. Raises as `backfill.jobs.creation.create` says.
        """
        if job.dag is None:
            raise ValueError("a job read from its row cannot be created again")
        holder = None if submit else holder_name()
        job.dag.validate()
        frozen = None if job.request.donot_pickle else freeze(job.dag, signing_key(self.settings))
        created = create(job, self.engine, self.settings, frozen=frozen, dag_source=dag_source or {}, holder=holder)
        for note in created.notes:
            self.telemetry.emit(Note(created.job_id, note))
        if holder is not None and created.epoch is not None:
            self._leases[created.job_id] = HeldLease(
                self.engine, created.job_id, holder=holder, epoch=created.epoch, settings=self.settings
            )
        written = read_job(self.engine, created.job_id)
        written.dag, written.executor = job.dag, job.executor
        return written

    def load_job(self, job_id: int) -> BackfillJob:
        """Return a job as its row says, with its DAG; `UsageError` if there is none of that id."""
        job = read_job(self.engine, job_id)
        job.dag = self._dag_of(job)
        return job

    def drive(self, job: BackfillJob, *, resume: bool = False) -> Report:
        """Drive a job that this runtime created, or with `resume` one that was left, until it settles.

        Returns the report of a job that ended well, raises as `backfill.coordinator.drive.drive` says, and `RefusedError` for
        a job that has ended, `JobHeld` for one that another process drives.
        """
        lease = self._resume(job) if resume else self._leases.pop(job.id)
        return self._drive_under(job, lease, resumed=resume)

    def report(self, job_id: int) -> Report:
        """Return state, counts and errors of a job as its rows are now, whoever drives it."""
        return repeat(self.engine, lambda tx: job_report(tx, job_id))

    def coordinator(self) -> Coordinator:
        """Return the daemon that drives submitted jobs with the means of this runtime."""
        driving: dict[int, BackfillJob] = {}

        def drive_job(job_id: int, lease: HeldLease) -> None:
            job = driving[job_id] = self.load_job(job_id)
            try:
                self._drive_under(job, lease, resumed=True)
            finally:
                del driving[job_id]

        def stop_job(job_id: int) -> None:
            if job_id in driving:
                driving[job_id].control.interrupt("the end of its coordinator")

        return Coordinator(self.engine, self.settings, drive_job, stop_job)

    def local_workers(self, count: int | None) -> AbstractContextManager[LocalWorkers | None]:
        """Return a Celery worker with `count` children (None: one per core) to enter and leave.

        Nothing is started for 0, or when a worker listens already (interface.md, `--workers`).
        """
        if count == 0 or not self.broker_url or living_workers(self.broker_url):
            return nullcontext()
        own = self.settings.override(
            "the local worker",
            {
                "database.url": self.database_url,
                "celery.broker_url": self.broker_url,
                # tasks of a command that was interrupted are not waited for: they are handed back (S11.4)
                "worker.soft_shutdown_timeout": min(
                    LOCAL_GRACE, self.settings.worker.soft_shutdown_timeout
                ).total_seconds(),
            },
        )
        return LocalWorkers(
            concurrency=count or self.settings.worker.concurrency or os.cpu_count() or 1,
            environment=settings_environment(own, os.environ),
            log=self.settings.core.home / "logs" / "worker.log",
            stop_within=own.worker.soft_shutdown_timeout,
        )

    # -- how ------------------------------------------------------------------------------------------------------------

    def _resume(self, job: BackfillJob) -> HeldLease:
        if job.state in FINISHED_JOB:
            raise RefusedError(
                f"Job {job.id} has ended as {job.state} and cannot be resumed; "
                "start a new one with --rerun-failed-tasks to run what failed again."
            )
        return HeldLease.take(self.engine, job.id, holder=holder_name(), settings=self.settings)

    def _drive_under(self, job: BackfillJob, lease: HeldLease, *, resumed: bool) -> Report:
        workplace = Workplace(
            engine=self.engine,
            settings=self.settings,
            telemetry=self.telemetry,
            lease=lease,
            executors=self._executors_for(job),
            database_url=self.database_url,
            broker_url=self.broker_url,
        )
        return drive(job, workplace, lease, resumed=resumed)

    def _executors_for(self, job: BackfillJob) -> dict[str, BaseExecutor]:
        """Return the executors that a chosen task uses (S1.6), by name."""
        if job.dag is None:
            raise ValueError(f"job {job.id} has no DAG")
        names = {normal_name(task.executor or job.request.executor) for task in job.dag.task_dict.values()}
        given = {job.executor.name: job.executor} if job.executor else {}
        return {name: given.get(name) or executors.load(name) for name in sorted(names | set(given))}

    def _dag_of(self, job: BackfillJob) -> DAG:
        if job.dag_pickle_hash is None:
            return find_dag(f"{job.dag_source['file']}:{job.dag_id}", self.settings.core.dags_folder).dag
        pickle = repeat(self.engine, lambda tx: pickles.load_pickle(tx, str(job.dag_pickle_hash)))
        if pickle is None:
            raise FrozenDagError(f"The DAG of job {job.id} is not in the database any more.")
        return thaw(FrozenDag(*pickle), signing_key(self.settings))


@contextmanager
def open_runtime(
    settings: Settings, *, database: bool = True, broker: bool = True, check_schema: bool = True
) -> Iterator[Runtime]:
    """Reach the servers that the settings name, or start embedded ones, and yield the runtime.

    The schema of an embedded database is upgraded here, that of any other is checked unless `check_schema` is off. Raises
    `ServiceUnavailable` if a server does not answer, `SchemaMismatch`, `ConfigError`.
    """
    with ExitStack() as at_the_end:
        servers = at_the_end.enter_context(Servers(settings.core.home))
        own_database = database and not settings.database.url
        own_broker = broker and not settings.celery.broker_url
        if own_database or own_broker:
            endpoints = servers.acquire(database=own_database, broker=own_broker)
        database_url = (endpoints.database_url if own_database else settings.database.url) or ""
        broker_url = ((endpoints.broker_url if own_broker else settings.celery.broker_url) or "") if broker else ""
        engine = create_engine(
            database_url,
            application_name="backfill",
            connect_timeout=settings.database.connect_timeout,
            pool_size=10,
        )
        at_the_end.callback(engine.dispose)
        if own_database:
            migrations.upgrade(engine, default_pool_slots=settings.core.default_pool_slots)
        elif check_schema:
            repeat(engine, database_now, attempts=2)
            migrations.check(engine)
        if broker and not own_broker:
            check_broker(broker_url)
        yield Runtime(settings=settings, engine=engine, database_url=database_url, broker_url=broker_url)


def run_job(job: BackfillJob) -> Report:
    """Do what `BackfillJob.run()` promises: open the servers of the settings, create the job, drive it (S1.9)."""
    settings = load_settings()
    with open_runtime(settings, broker=job.uses_celery()) as runtime:
        try:
            created = runtime.create(job)
        except NothingToDo as nothing:
            return Report(job_id=None, dag_id=job.dag_id, state=JobState.SUCCESS, notes=(str(nothing),))
        job.id = created.id
        with runtime.local_workers(0 if settings.celery.broker_url else None):
            return runtime.drive(created)
