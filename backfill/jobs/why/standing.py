"""A job's window as its rows say it is, built again by a process that does not drive the job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from backfill.states import FINISHED, DagRunState, TaskInstanceState
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

    def holds(self, ti_id: int) -> bool:
        """Return whether a task instance is in a run that goes on; runs of subdags stay in the window after their end."""
        window = self.window
        return window.knows(ti_id) and _goes_on(window.run(window.facts(ti_id).dag_run_id))

    def spec(self, ti: OfRun) -> TaskSpec:
        """Return what the engine knows of the task of a task instance in the window."""
        return self.course.compiled.graphs[self.course.dag_id_of(ti.dag_run_id)].spec(ti.task_id)

    def reason(self, ti_id: int, *, ranked: bool) -> Reason:
        """Return what holds a task instance that is in the window (S11.6)."""
        return self.window.explain(ti_id, self.now, self.occupancy, self.parallelism, ranked=ranked)

    def rows(self) -> Iterator[tuple[RunFacts, TaskInstanceFacts]]:
        """Yield the chosen task instances of all runs that go on, run by run in the order of admission."""
        for run in sorted(filter(_goes_on, self.window.runs()), key=lambda run: run.ordinal):
            for row in self.window.rows(run.id):
                yield run, row


def read_standing(tx: Tx, job: BackfillJob, settings: Settings) -> Standing:
    """Return how a job stands by its rows; it must know its DAG. Nothing is written or locked."""
    assert job.dag is not None
    course = Course.begin(
        job_id=job.id,
        dag=job.dag,
        request=job.request,
        settings=settings,
        total_runs=job.total_runs,
        clock=SystemClock(),
    )
    _admit(tx, course, job)
    now = database_now(tx)
    dag_ids, used = sorted(course.compiled.graphs), course.compiled.pools
    sizes = {pool.pool: pool.slots for pool in pools.list_pools(tx)}
    occupancy = Occupancy(task_instances.select_occupancy(tx, dag_ids, used), pool_sizes=sizes)
    decisions = course.window.decide(now)
    course.window.pick(occupancy, 0)  # so that the window knows the pools
    course.window.stuck_runs()  # so that the windows of a family know which subdags are stuck
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


def _goes_on(run: RunFacts) -> bool:
    return run.state == DagRunState.RUNNING


def _admit(tx: Tx, course: Course, job: BackfillJob) -> None:
    """Take the runs that have work left into the window, those of subdags after what they belong to, and count the failures (S9.2)."""
    left = course.read_left(tx)
    closed = inspection.select_closed_runs(tx, job.id)
    places = {dag_id: place for place, dag_id in enumerate(course.compiled.dags)}
    runs = sorted(
        (run for run in (*left.runs, *closed) if run.dag_id in places),
        key=lambda run: (run.ordinal, places[run.dag_id]),
    )
    rows = _rows_of(tx, runs)
    if closed:
        runs, rows = _before_the_close(runs, rows)
    previous = course.previous_of_runs(tx, runs)
    for run in runs:
        course.window.admit(run, rows[run.id], first=course.is_first(run), previous=previous.get(run.id))
    course.count_departed(DagRunTaskStatus(), left)
    for run in runs:
        for ti in course.task_instances(course.window.rows(run.id)):
            course.count_failures(ti)


def _rows_of(tx: Tx, runs: Sequence[RunFacts]) -> dict[int, list[TaskInstanceFacts]]:
    rows: dict[int, list[TaskInstanceFacts]] = {run.id: [] for run in runs}
    for row in task_instances.select_facts_of_runs(tx, list(rows)):
        rows[row.dag_run_id].append(row)
    return rows


def _before_the_close(
    runs: Sequence[RunFacts], rows: Mapping[int, list[TaskInstanceFacts]]
) -> tuple[list[RunFacts], dict[int, list[TaskInstanceFacts]]]:
    """Return closed runs as they were when nothing could go any more: what stood for those of subdags ran (S9.3, S13.4)."""
    unfinished: set[tuple[str, int]] = set()
    before: dict[int, list[TaskInstanceFacts]] = {}
    for run in reversed(runs):
        before[run.id] = [
            row._replace(state=TaskInstanceState.RUNNING)
            if row.state == TaskInstanceState.FAILED and (f"{run.dag_id}.{row.task_id}", run.ordinal) in unfinished
            else row
            for row in rows[run.id]
        ]
        if any(row.state not in FINISHED for row in before[run.id]):
            unfinished.add((run.dag_id, run.ordinal))
    return [
        run._replace(state=DagRunState.RUNNING) if (run.dag_id, run.ordinal) in unfinished else run for run in runs
    ], before


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
        if row.dag_run_id in stuck and found.reason is not BlockReason.SUBDAG  # that one ended with its subdag's run
    ]


def past_hint(standing: Standing, blocked: Sequence[ReportedError]) -> str | None:
    """Return the hint of S9.7 where a blocked task instance of the first run waits only for a run before the range."""
    first = {run.logical_date for run in standing.window.runs() if standing.course.is_first(run)}
    return next((hint_for(e.key.task_id) for e in blocked if e.waits_for_past and e.logical_date in first), None)
