"""A job's window as its rows say it is, built again by a process that does not drive the job."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from backfill.clock import SystemClock
from backfill.config import Settings
from backfill.engine.family import Family
from backfill.engine.graph import TaskSpec
from backfill.engine.limits import Occupancy
from backfill.engine.window import Blocked, BlockReason, Reason, Window
from backfill.facts import RunFacts, TaskInstanceFacts
from backfill.jobs.backfill_job import BackfillJob
from backfill.jobs.conclusion import hint_for
from backfill.jobs.course import Course
from backfill.jobs.report import ReportedError
from backfill.jobs.task_status import DagRunTaskStatus
from backfill.states import ENDED_BADLY, TaskInstanceState
from backfill.store import inspection, pools, task_instances
from backfill.store.database import Tx, database_now
from backfill.store.inspection import Occupant


class OfRun(Protocol):
    """A row that names its task and its run."""

    @property
    def dag_run_id(self) -> int:
        """Its run."""
        ...

    @property
    def task_id(self) -> str:
        """Its task."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the engine makes of the rows of one job, and who takes up the room under its limits."""

    job: BackfillJob
    course: Course
    now: datetime
    occupancy: Occupancy
    occupants: Sequence[Occupant]
    #: `core.parallelism`; None: no limit.
    parallelism: int | None
    #: What the engine has decided and no row says yet: the state to come, by task instance.
    to_be_settled: dict[int, TaskInstanceState] = field(default_factory=dict)
    #: (dag_run_id, task_id) of mappings that are about to be expanded.
    to_be_expanded: frozenset[tuple[int, str]] = frozenset()
    #: What can never run (S9.3), by task instance.
    blocked: dict[int, Blocked] = field(default_factory=dict)

    @property
    def window(self) -> Window | Family:
        """The runs that have work left."""
        return self.course.window

    def spec(self, ti: OfRun) -> TaskSpec:
        """Return what the engine knows of the task of a task instance in the window."""
        return self.course.graphs[self.course.dag_id_of(ti.dag_run_id)].spec(ti.task_id)

    def reason(self, ti_id: int, *, ranked: bool) -> Reason:
        """Return what holds a task instance that is in the window (S11.6)."""
        return self.window.explain(ti_id, self.now, self.occupancy, self.parallelism, ranked=ranked)

    def rows(self) -> Iterator[tuple[RunFacts, TaskInstanceFacts]]:
        """Yield the chosen task instances of all runs in the window, run by run in the order of admission."""
        for run in sorted(self.window.runs(), key=lambda run: run.ordinal):
            for row in self.window.rows(run.id):
                yield run, row


def read_standing(tx: Tx, job: BackfillJob, settings: Settings) -> Standing:
    """Return how a job stands by its rows; it must know its DAG. Nothing is written or locked."""
    assert job.dag is not None
    course = Course(
        job_id=job.id,
        dag=job.dag,
        request=job.request,
        settings=settings,
        total_runs=job.total_runs,
        clock=SystemClock(),
    )
    _admit(tx, course, job)
    now = database_now(tx)
    dag_ids, used = sorted(course.graphs), course.pools
    sizes = {pool.pool: pool.slots for pool in pools.list_pools(tx)}
    occupancy = Occupancy(task_instances.select_occupancy(tx, dag_ids, used), pool_sizes=sizes)
    decisions = course.window.decide(now)
    course.window.pick(occupancy, 0)  # so that the window knows the pools
    return Standing(
        job=job,
        course=course,
        now=now,
        occupancy=occupancy,
        occupants=inspection.select_occupants(tx, dag_ids, used),
        parallelism=settings.core.parallelism or None,
        to_be_settled=dict(decisions.settle),
        to_be_expanded=frozenset(decisions.expand),
        blocked={found.ti_id: found for found in course.window.blocked()},
    )


def _admit(tx: Tx, course: Course, job: BackfillJob) -> None:
    """Take the runs that have work left into the window, and count the failures that there were (S9.2)."""
    runs = inspection.select_unfinished_runs(tx, job.id)
    ids = [run.id for run in runs]
    rows: dict[int, list[TaskInstanceFacts]] = defaultdict(list)
    for row in task_instances.select_facts_of_runs(tx, ids):
        rows[row.dag_run_id].append(row)
    previous = course.previous_of(tx, ids)
    for run in runs:
        course.window.admit(run, rows[run.id], first=course.is_first(run), previous=previous.get(run.id))
    course.count_departed(DagRunTaskStatus(), course.read_left(tx))
    for row in (row for run in runs for row in course.window.rows(run.id)):
        if row.state in ENDED_BADLY:
            course.policy.task_instance_ended_badly(itself=row.state == TaskInstanceState.FAILED)


def blocked_errors(standing: Standing) -> list[ReportedError]:
    """Return what can never run of a job that has ended, as its report names it (S9.7): all of runs that were stuck."""
    stuck = set(standing.window.stuck_runs())
    return [
        ReportedError(
            kind="deadlocked",
            key=standing.window.key(ti_id),
            logical_date=standing.window.run(row.dag_run_id).logical_date,
            try_number=row.try_number,
            state=row.state,
            error=str(found),
            waits_for_past=found.reason is BlockReason.PAST,
        )
        for ti_id, found in standing.blocked.items()
        for row in (standing.window.facts(ti_id),)
        if row.dag_run_id in stuck
    ]


def past_hint(standing: Standing, blocked: Sequence[ReportedError]) -> str | None:
    """Return the hint of S9.7 where a blocked task instance of the first run waits only for a run before the range."""
    first = {run.logical_date for run in standing.window.runs() if standing.course.is_first(run)}
    return next((hint_for(e.key.task_id) for e in blocked if e.waits_for_past and e.logical_date in first), None)
