"""The composition root: settings become servers, an engine, executors, jobs and what drives them.

Everything else receives its collaborators; this module is the only one that knows all of them.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import Engine

from backfill import executors, migrations
from backfill.config import Settings, load_settings
from backfill.coordinator.broker import a_worker_listens, check_broker, wake_holder
from backfill.coordinator.daemon import Coordinator
from backfill.coordinator.drive import drive, leaving_it_resumable, pause
from backfill.coordinator.inquiry import Inquirer
from backfill.coordinator.lease import HeldLease, holder_name
from backfill.coordinator.local_workers import LocalWorkers, Standby
from backfill.coordinator.orders import await_cancelled, pause_job, read_row, request_cancel
from backfill.coordinator.takeover import take_over
from backfill.dag import DAG
from backfill.dag.loader import LoadedDag
from backfill.embedded import Endpoints, Servers
from backfill.exceptions import BackfillUnfinished, NothingToDo, ServiceUnavailable
from backfill.executors import BaseExecutor
from backfill.executors.environment import settings_environment
from backfill.jobs import BackfillJob
from backfill.jobs.base_job import Workplace
from backfill.jobs.cancel import Cancellation
from backfill.jobs.checks import check_request
from backfill.jobs.conclusion import job_report
from backfill.jobs.control import Control
from backfill.jobs.creation import ConfirmReset, create, read_job
from backfill.jobs.outlook import Outlook, look_ahead
from backfill.jobs.report import Report
from backfill.jobs.request import BackfillRequest
from backfill.jobs.routing import executor_names
from backfill.jobs.shipping import check_shippable, dag_of, shipped
from backfill.messages import DagSource
from backfill.states import JobState
from backfill.store import recovery
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
    #: Reaches the broker, or starts an embedded one, and returns its URL.
    find_broker: Callable[[], str]
    #: Of jobs that this process may drive, and does not drive yet.
    _leases: dict[int, HeldLease] = field(default_factory=dict)
    #: Becomes the first local worker, if one is needed.
    standby: Standby | None = None
    _local_workers: LocalWorkers | None = None

    # -- jobs -----------------------------------------------------------------------------------------------------------

    def create_job(
        self, loaded: LoadedDag, request: BackfillRequest, *, submit: bool, confirm_reset: ConfirmReset | None = None
    ) -> BackfillJob:
        """Check and create a job for a DAG that was found in a file; see `create`."""
        source = {"file": str(loaded.file), "file_hash": loaded.file_hash}
        job = BackfillJob.from_request(loaded.dag, request)
        return self.create(job, source, submit=submit, confirm_reset=confirm_reset)

    def create(
        self,
        job: BackfillJob,
        dag_source: dict[str, Any] | None = None,
        *,
        submit: bool = False,
        confirm_reset: ConfirmReset | None = None,
    ) -> BackfillJob:
        """Check and write `job` (S1.2, S1.3), and return it as its row is; dates left out are told as notes.

        The lease is this process's, for `drive`, unless the job is submitted. Raises as `backfill.jobs.creation.create` says.
        """
        if job.dag is None:
            raise ValueError("a job read from its row cannot be created again")
        holder = None if submit else holder_name()
        created = create(
            job,
            self.engine,
            self.settings,
            frozen=shipped(job.dag, job.request, self.settings),
            dag_source=dag_source or {},
            holder=holder,
            confirm_reset=confirm_reset,
        )
        for note in created.notes:
            self.telemetry.emit(Note(created.job_id, note))
        if holder is not None and created.epoch is not None:
            self._leases[created.job_id] = HeldLease(
                self.engine, created.job_id, holder=holder, epoch=created.epoch, settings=self.settings
            )
        written = read_job(self.engine, created.job_id)
        written.dag, written.executor = job.dag, job.executor
        return written

    def plan(self, dag: DAG, request: BackfillRequest, *, workers: int | None = None, reset: bool = False) -> Outlook:
        """Return what a job of this request would do, with `reset` after `--reset-dagruns`; nothing is written, and no broker is needed.

        Raises what `create` would raise.
        """
        check_shippable(dag, request)
        checked = check_request(dag, request, self.settings)
        return repeat(self.engine, lambda tx: look_ahead(tx, checked, self.settings, workers=workers, reset=reset))

    def load_job(self, job_id: int) -> BackfillJob:
        """Return a job as its row says, with its DAG; `UsageError` if there is none of that id."""
        job = read_job(self.engine, job_id)
        job.dag = dag_of(job, self.engine, self.settings)
        return job

    def take_over(self, job: BackfillJob) -> bool:
        """Take the lease of a job that was left, for `drive`; False: its holder lives, and goes on with it after a pause.

        Waits for the lease to run out where its holder has died; raises as `backfill.coordinator.takeover.take_over` says.
        """
        lease = take_over(
            self.engine,
            job.id,
            holder=holder_name(),
            settings=self.settings,
            tell=lambda text: self.telemetry.emit(Note(job.id, text)),
            wake=lambda: self._wake_holder(job.id),
        )
        if lease is not None:
            self._leases[job.id] = lease
        return lease is not None

    def drive(self, job: BackfillJob, *, resume: bool = False) -> Report:
        """Drive a job that this runtime created or, with `resume`, has taken over, until it settles.

        Returns the report of a job that ended well, raises as `backfill.coordinator.drive.drive` says.
        """
        lease = self._leases.pop(job.id)
        try:
            return self._drive_under(job, lease, resumed=resume, lifts_pause=resume)
        except ServiceUnavailable:
            with suppress(ServiceUnavailable):  # where only the broker is away nobody has to wait for the lease
                lease.release(attempts=1)
            raise

    def pause(self, job_id: int) -> bool:
        """Let nothing more of a job be started (S11.1); False: it is paused already. Raises as `orders.pause_job` says."""
        paused = pause_job(self.engine, job_id)
        self._wake_holder(job_id)
        return paused

    def cancel(self, job_id: int) -> bool:
        """End a job for good, and wait until nothing of it runs any more (S11.5); False: it is cancelled already.

        Its holder does that; without a living one this process takes the lease. Raises as `orders.request_cancel` and
        `orders.await_cancelled` say.
        """
        if not request_cancel(self.engine, job_id):
            return False
        self._wake_holder(job_id)
        lease = await_cancelled(
            self.engine,
            job_id,
            holder=holder_name(),
            settings=self.settings,
            tell=lambda text: self.telemetry.emit(Note(job_id, text)),
        )
        if lease is not None:
            self._cancel_under(lease)
        return True

    def report(self, job_id: int) -> Report:
        """Return state, counts and errors of a job as its rows are now, whoever drives it."""
        return repeat(self.engine, lambda tx: job_report(tx, job_id))

    def inquirer(self) -> Inquirer:
        """Return what answers questions about jobs (S11.6)."""
        return Inquirer(
            engine=self.engine,
            settings=self.settings,
            load_dag=lambda job: dag_of(job, self.engine, self.settings),
            reach_broker=self.reach_broker,
        )

    def coordinator(self) -> Coordinator:
        """Return the daemon that drives submitted jobs with the means of this runtime."""

        def drive_job(job_id: int, lease: HeldLease, control: Control) -> None:
            with leaving_it_resumable(self.engine, lease):
                job = self.load_job(job_id)
            job.control = control
            self._drive_under(job, lease, resumed=job.state != JobState.QUEUED)

        return Coordinator(self.engine, self.settings, drive_job)

    def reach_broker(self) -> str:
        """Have a broker at hand from now on, and return its URL; raises `ServiceUnavailable` if it does not answer."""
        self.broker_url = self.broker_url or self.find_broker()
        return self.broker_url

    def local_workers(self, count: int | None) -> AbstractContextManager[LocalWorkers | None]:
        """Return a Celery worker with `count` children (None: one per core) to enter and leave; None for 0.

        It is started when, and as long as, no other worker listens (interface.md, `--workers`).
        """
        if count == 0 or not self.broker_url:
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
        self._local_workers = LocalWorkers(
            concurrency=_children(self.settings, count),
            environment=settings_environment(own, os.environ),
            log=self.settings.core.home / "logs" / "worker.log",
            stop_within=own.worker.soft_shutdown_timeout,
            others_listen=lambda: a_worker_listens(self.broker_url, self.settings.celery.queue),
            standby=self.standby,
        )
        return self._local_workers

    # -- how ------------------------------------------------------------------------------------------------------------

    def let_go(self) -> None:
        """Leave jobs resumable that this process was to drive, and was interrupted before it did (S11.4)."""
        while self._leases:
            pause(self.engine, self._leases.popitem()[1])

    def _wake_holder(self, job_id: int) -> None:
        """Have the holder of a job look at its row now, which without a broker it does at its next heartbeat."""
        job = read_row(self.engine, job_id)
        lives = job.heartbeat_age is not None and job.heartbeat_age < self.settings.lease_timeout
        if not lives or job.params.get("executor") != "celery":
            return
        with suppress(ServiceUnavailable):
            wake_holder(self.reach_broker(), job_id)

    def _drive_under(self, job: BackfillJob, lease: HeldLease, *, resumed: bool, lifts_pause: bool = False) -> Report:
        if self._local_workers is not None:
            job.control.before_leaving_at_once(self._local_workers.kill)
        with leaving_it_resumable(self.engine, lease):
            workplace = self._workplace(lease, self._executors_for(job))
        return drive(job, workplace, lease, resumed=resumed, lifts_pause=lifts_pause)

    def _cancel_under(self, lease: HeldLease) -> None:
        """Cancel a job whose holder has died, by its rows; the lease is free again if that is broken off."""
        try:
            in_flight = repeat(self.engine, lambda tx: recovery.select_in_flight(tx, lease.job_id))
            celery = any(each.executor == "celery" for each in in_flight)
            with ExitStack() as at_the_end:
                workplace = self._workplace(lease, self._reachable_executors() if celery else {})
                workplace.start_executors(DagSource(read_row(self.engine, lease.job_id).dag_id), at_the_end)
                Cancellation(lease.job_id, workplace).carry_out()
        except BaseException:
            lease.release()
            raise

    def _reachable_executors(self) -> dict[str, BaseExecutor]:
        """Return the executor that reaches remote workers, if the broker answers; what runs looks at its row in any case."""
        try:
            self.reach_broker()
        except ServiceUnavailable as error:
            logger.warning("%s", error)
            return {}
        return {"celery": executors.load("celery")}

    def _workplace(self, lease: HeldLease, available: dict[str, BaseExecutor]) -> Workplace:
        return Workplace(
            engine=self.engine,
            settings=self.settings,
            telemetry=self.telemetry,
            lease=lease,
            executors=available,
            database_url=self.database_url,
            broker_url=self.broker_url,
        )

    def _executors_for(self, job: BackfillJob) -> dict[str, BaseExecutor]:
        """Return the executors that a chosen task uses (S1.6), by name."""
        if job.dag is None:
            raise ValueError(f"job {job.id} has no DAG")
        names = executor_names(job.dag, job.request)
        given = {job.executor.name: job.executor} if job.executor else {}
        return {name: given.get(name) or executors.load(name) for name in sorted(names | given.keys())}


def _children(settings: Settings, count: int | None) -> int:
    return count or settings.worker.concurrency or os.cpu_count() or 1


def standby_worker(settings: Settings, count: int | None) -> AbstractContextManager[Standby | None]:
    """Return a worker, to enter and leave, that gets ready while servers start, for `Runtime.standby`; None for a `count` of 0."""
    if count == 0:
        return nullcontext()
    # this process needs Celery, too, and would import it when everything else is ready
    threading.Thread(target=executors.load, args=("celery",), name="import-celery").start()
    return Standby(_children(settings, count))


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
        found = Endpoints(settings.database.url, None)
        if own_database or own_broker:  # side by side
            found = servers.acquire(database=own_database, broker=own_broker)
        database_url = found.database_url or settings.database.url
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

        def find_broker() -> str:
            if not settings.celery.broker_url:
                return servers.acquire(database=False).broker_url or ""
            check_broker(settings.celery.broker_url)
            return settings.celery.broker_url

        runtime = Runtime(
            settings=settings,
            engine=engine,
            database_url=database_url,
            broker_url=found.broker_url or "",
            find_broker=find_broker,
        )
        if broker:
            runtime.reach_broker()
        at_the_end.callback(runtime.let_go)
        yield runtime


def run_job(job: BackfillJob) -> Report:
    """Do what `BackfillJob.run()` promises: open the servers of the settings, create the job, drive it (S1.9)."""
    settings = load_settings()
    with open_runtime(settings, broker=job.uses_celery()) as runtime:
        try:
            created = runtime.create(job)
        except NothingToDo as nothing:
            return Report(job_id=None, dag_id=job.dag_id, state=JobState.SUCCESS, notes=(str(nothing),))
        job.id = created.id
        try:
            with runtime.local_workers(0 if settings.celery.broker_url else None):
                report = runtime.drive(created)
        except BackfillUnfinished as unfinished:
            _bring_up_to_date(job, cast("Report", unfinished.report))
            raise
        _bring_up_to_date(job, report)
        return report


def _bring_up_to_date(job: BackfillJob, report: Report) -> None:
    """Let the caller's job, of which another object was driven, know what became of it."""
    job.state, job.start_date, job.end_date = report.state, report.start_date, report.end_date
