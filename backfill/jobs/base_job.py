"""What every job is: a row with a state, parameters and a lease, and the means by which a process drives it."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from backfill.clock import Clock, SystemClock
from backfill.config import Settings
from backfill.exceptions import LeaseLost
from backfill.executors import BaseExecutor, ExecutorContext, Mailbox
from backfill.jobs.report import Report
from backfill.messages import DagSource, ExecutorEvent
from backfill.models import Base, job as job_table
from backfill.states import JobState
from backfill.store.database import Tx, autocommitting, repeat
from backfill.store.leases import JobControl
from backfill.telemetry import Telemetry

T = TypeVar("T")

#: How often a transaction of the loop is tried: with the pauses between, for more than two minutes, the time of a restart (S1.8).
ATTEMPTS = 40
#: Task instances that one step of the loop admits, takes in, sweeps or queues, if not those of one run: none holds up the others.
PORTION = 400


class Lease(Protocol):
    """The right to drive one job (S1.4); `backfill.coordinator.lease` keeps it."""

    job_id: int
    epoch: int
    #: What the operator wants, as last read by a fence or a renewal.
    control: JobControl

    def fence(self, tx: Tx) -> JobControl:
        """Lock the job's row against takeover until `tx` ends; `LeaseLost` if another holds it."""
        ...

    def fence_and_lock_limits(self, tx: Tx, dag_ids: Sequence[str], pools: Sequence[str]) -> dict[str, int]:
        """Do what `fence` does, lock the limits of DAGs and pools (S5.1), and return the slots of each pool that exists."""
        ...

    def renew_if_due(self, *, at_once: bool = False) -> JobControl | None:
        """Renew the lease when its heartbeat is due, or `at_once`, and return what the operator wants (`control`) as read with that.

        Returns None, and asks the database nothing, while the heartbeat is not due. Raises `LeaseLost` if another process has
        taken the job over, `ServiceUnavailable`. To be called wherever the loop may stay for longer than a heartbeat.
        """
        ...

    def due_in(self) -> float:
        """Return the seconds until the next heartbeat."""
        ...

    def now(self) -> datetime:
        """Return the present time by the database's clock."""
        ...


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """What the driving process has at hand; made by the composition root, handed to the job."""

    engine: Engine
    settings: Settings
    telemetry: Telemetry
    lease: Lease
    #: Executors by name, not started yet.
    executors: Mapping[str, BaseExecutor]
    database_url: str
    broker_url: str
    mailbox: Mailbox = field(default_factory=Mailbox)
    #: By which the loop waits; what it writes bears the database's time (S0.2).
    clock: Clock = field(default_factory=SystemClock)

    def write(self, work: Callable[[Connection | Session], T], session: Session | None = None) -> T:
        """Do `work` in one transaction that only the lease's holder can commit (S1.4), and return its result.

        A transaction that fails for a passing reason is repeated from its start (S1.8), so `work` must bear repetition. With a
        `session` the work is done, and committed, there. Raises `LeaseLost`, `ServiceUnavailable`.
        """

        def fenced(tx: Connection | Session) -> T:
            self.lease.fence(tx)
            return work(tx)

        return self._transact(self.engine, fenced, session)

    def write_under_limits(
        self,
        work: Callable[[Connection | Session, Mapping[str, int]], T],
        dag_ids: Sequence[str],
        pools: Sequence[str],
        session: Session | None = None,
    ) -> T:
        """As `write`, in a transaction that has locked the limits of DAGs and pools (S5.1).

        `work` is also given the slots of each of the pools that exists.
        """

        def fenced(tx: Connection | Session) -> T:
            return work(tx, self.lease.fence_and_lock_limits(tx, dag_ids, pools))

        return self._transact(self.engine, fenced, session)

    def read(self, work: Callable[[Connection | Session], T], session: Session | None = None) -> T:
        """Do `work`, which only reads; the holder need not hold. Each statement sees the moment at which it begins."""
        return self._transact(self._reading, work, session)

    def start_executors(self, dag_source: DagSource, at_the_end: ExitStack) -> None:
        """Start every executor once, and let each be ended once, also after errors (S1.6)."""
        context = ExecutorContext(
            job_id=self.lease.job_id,
            settings=self.settings,
            database_url=self.database_url,
            broker_url=self.broker_url,
            dag_source=dag_source,
            mailbox=self.mailbox,
        )
        for executor in self.executors.values():
            at_the_end.push(partial(_let_go_of, executor))
            executor.start(context)

    def reported_events(self) -> list[ExecutorEvent]:
        """Return what the executors have reported since the last call, and let them do what was left over.

        Of very much the rest waits for the next call.
        """
        for executor in self.executors.values():
            executor.catch_up()
        return self.mailbox.drain(PORTION)

    @cached_property
    def _reading(self) -> Engine:
        return autocommitting(self.engine)

    def _transact(self, engine: Engine, work: Callable[[Connection | Session], T], session: Session | None) -> T:
        if session is None:
            return repeat(engine, work, attempts=ATTEMPTS, wait=self.clock.sleep)
        result = work(session)
        session.commit()
        return result


def _let_go_of(
    executor: BaseExecutor,
    _kind: type[BaseException] | None,
    error: BaseException | None,
    _traceback: TracebackType | None,
) -> None:
    """End `executor`; what it runs is not ours to stop if another process drives the job by now (S1.4)."""
    if isinstance(error, LeaseLost):
        executor.leave()
    else:
        executor.end()


class BaseJob(Base):
    """A row of `job`. Subclasses say what driving it means."""

    __table__ = job_table
    __mapper_args__ = {  # noqa: RUF012  # SQLAlchemy reads it from the class
        "polymorphic_on": job_table.c.job_type,
        "polymorphic_identity": "BaseJob",
    }

    if TYPE_CHECKING:  # the columns, as attributes of an instance
        id: int
        job_type: str
        dag_id: str
        state: str
        params: dict[str, Any]
        dag_pickle_hash: str | None
        dag_source: dict[str, Any]
        total_runs: int
        submitted: bool
        cancel_requested: bool
        lease_holder: str | None
        lease_epoch: int
        latest_heartbeat: datetime | None
        created_at: datetime
        start_date: datetime | None
        end_date: datetime | None
        hostname: str | None
        unixname: str | None
        error: str | None
        #: Given while a process drives the job.
        workplace: Workplace | None
    workplace = None

    def __init__(self, dag_id: str, params: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.dag_id = dag_id
        self.params = dict(params or {})
        self.state = JobState.QUEUED
        self.hostname = socket.gethostname()
        self.unixname = getpass.getuser()

    def at_work(self) -> Workplace:
        """Return the means by which this process drives the job."""
        if self.workplace is None:
            raise RuntimeError("the job is not being driven: call run(), or give it a workplace first")
        return self.workplace

    def source_for_workers(self) -> DagSource:
        """Return where workers find the DAG."""
        return DagSource(
            dag_id=self.dag_id,
            pickle_hash=self.dag_pickle_hash,
            file=self.dag_source.get("file"),
            file_hash=self.dag_source.get("file_hash"),
        )

    def _execute(self, session: Session | None = None) -> Report:
        """Drive the job to its end and return the report; a `session` takes every write."""
        raise TypeError(f"{type(self).__name__} does not say how it is driven, with or without {session!r}")
