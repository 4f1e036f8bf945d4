"""What one drive of a job has in memory: the compiled DAG, the window, the dates to come, and when to look again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from backfill.clock import Clock
from backfill.config import Settings
from backfill.dag import DAG
from backfill.dag.abstract_operator import AbstractOperator
from backfill.engine.family import Family, Windows
from backfill.engine.window import BlockReason, RunOutcome
from backfill.facts import PreviousRun, RunFacts, TaskInstanceFacts
from backfill.jobs.admission import Admission, CountedDate, LeftBehind, OpenedRuns
from backfill.jobs.base_job import Lease
from backfill.jobs.compiled import CompiledRequest
from backfill.jobs.policy import StopPolicy
from backfill.jobs.progress import Pace, Throttle
from backfill.jobs.request import BackfillRequest
from backfill.jobs.rhythm import Rhythm
from backfill.jobs.subdag_timeouts import FamilyTimeouts
from backfill.jobs.subdags import SubdagRuns
from backfill.jobs.task_status import BlockedTask, DagRunTaskStatus, TaskInstance
from backfill.jobs.timeouts import TIMED_OUT, RunTimeouts
from backfill.jobs.verdict import Budget
from backfill.keys import TaskInstanceKey
from backfill.messages import ExecutorEvent
from backfill.states import ENDED_BADLY, FINISHED, IN_FLIGHT, DagRunState, TaskInstanceState
from backfill.store import subdags
from backfill.store.alignment import TaskTemplate
from backfill.store.database import Tx


class Numbers(NamedTuple):
    """The numbers of S9.5; total is the sum of the last six."""

    runs_finished: int
    waiting: int
    running: int
    succeeded: int
    failed: int
    skipped: int
    deadlocked: int


@dataclass(kw_only=True, eq=False)
class Course:
    """The state of one drive; everything in it can be made again from the rows (S0.1)."""

    compiled: CompiledRequest
    total_runs: int
    window: Windows
    #: None: the chosen tasks have none.
    subdags: SubdagRuns | None
    admission: Admission
    policy: StopPolicy
    budget: Budget
    timeouts: RunTimeouts | FamilyTimeouts
    rhythm: Rhythm
    pace: Pace
    throttle: Throttle
    #: Task instances whose next attempt shares no message with others (S8.3).
    _isolated: set[int] = field(default_factory=set, init=False)
    #: Places in flight of the job's DAGs when dispatch last looked, with those that it gave away. While no fewer are known to be
    #: taken, what is heard to have ended was counted as free by then.
    places_counted: int = field(default=0, init=False)
    #: By dag_run_id and task_id: why a mapping in the window has no length.
    without_values: dict[tuple[int, str], str] = field(default_factory=dict, init=False)
    #: (dag_run_id, task_id) of mappings of which the next round creates more rows.
    half_expanded: list[tuple[int, str]] = field(default_factory=list, init=False)
    #: Whether any run turned out to be stuck (S9.3): the job is deadlocked then.
    deadlocked: bool = field(default=False, init=False)

    @classmethod
    def begin(
        cls, *, job_id: int, dag: DAG, request: BackfillRequest, settings: Settings, total_runs: int, clock: Clock
    ) -> Course:
        """Return the course of a drive that has seen nothing yet."""
        compiled = CompiledRequest.compile(dag, request, settings.celery.queue)
        window = compiled.window()
        return cls(
            compiled=compiled,
            total_runs=total_runs,
            window=window,
            subdags=_subdag_runs(job_id, compiled, window),
            admission=Admission(
                job_id=job_id, dag=dag, graph=compiled.graph, request=request, templates=compiled.templates
            ),
            policy=StopPolicy(request, planned=total_runs * compiled.rows_per_run),
            budget=Budget(settings.task.infrastructure_retries, disable_retry=request.disable_retry),
            timeouts=_timeouts(compiled, window, clock),
            rhythm=_rhythm(request, settings, clock),
            pace=Pace(clock.monotonic),
            throttle=Throttle(clock.monotonic),
        )

    def task_instances(self, rows: Iterable[TaskInstanceFacts]) -> list[TaskInstance]:
        """Return `rows`, all of runs in the window, with their keys; rows of tasks that were not chosen are passed over."""
        return [
            TaskInstance(self._key(row), row)
            for row in rows
            if self.window.knows(row.id) or row.state == TaskInstanceState.REMOVED
        ]

    def isolate(self, events: Iterable[ExecutorEvent]) -> None:
        """Note what was lost with others of its process, so that the next loss tells which of them was at fault (S8.3)."""
        self._isolated.update(event.task_instance_id for event in events if event.alone)

    def travels_alone(self, row: TaskInstanceFacts) -> bool:
        """Return whether an attempt of `row` must not share a message: it was lost before."""
        return row.infrastructure_failures > 0 or row.id in self._isolated

    def _key(self, row: TaskInstanceFacts) -> TaskInstanceKey:
        """Return the key of a row, also of an index that its mapping has lost, which the window forgets (S4.7)."""
        run = self.window.run(row.dag_run_id)
        return TaskInstanceKey(run.dag_id, row.task_id, run.run_id, row.map_index)

    def dag_id_of(self, dag_run_id: int) -> str:
        """Return the DAG of a run in the window."""
        return self.compiled.dag.dag_id if self.subdags is None else self.window.run(dag_run_id).dag_id

    def task(self, row: TaskInstanceFacts) -> AbstractOperator:
        """Return the task of a task instance in the window."""
        return self.compiled.dags[self.dag_id_of(row.dag_run_id)].task_dict[row.task_id]

    def task_of(self, ti_id: int) -> AbstractOperator:
        """Return the task of a task instance in the window, by its id."""
        if self.subdags is None:
            return self.compiled.dag.task_dict[self.window.task_id(ti_id)]
        return self.compiled.dags[self.window.key(ti_id).dag_id].task_dict[self.window.task_id(ti_id)]

    def template(self, dag_id: str, task_id: str) -> TaskTemplate:
        """Return the row that a run gets for a task, or one of them if it is mapped over literals."""
        return self.compiled.templates_by_task[dag_id, task_id]

    def read_left(self, tx: Tx) -> LeftBehind:
        """As `Admission.read_left`, with the ended runs of subdags that a retry may let go on."""
        left = self.admission.read_left(tx)
        if self.subdags is not None:
            left.runs.extend(subdags.select_ended_runs(tx, self.subdags.job_id))
        return left

    def open_runs(self, tx: Tx, opened: Sequence[RunFacts]) -> OpenedRuns:
        """As `Admission.open_runs`, for runs of all DAGs of the job."""
        return (
            self.subdags.open_runs(tx, opened, self.admission) if self.subdags else self.admission.open_runs(tx, opened)
        )

    def previous_of(self, tx: Tx, dag_run_ids: Sequence[int]) -> dict[int, PreviousRun]:
        """As `Admission.previous_of`, for runs in the window of all DAGs of the job."""
        return self.previous_of_runs(tx, [self.window.run(dag_run_id) for dag_run_id in dag_run_ids])

    def previous_of_runs(self, tx: Tx, runs: Sequence[RunFacts]) -> dict[int, PreviousRun]:
        """As `previous_of`, also for runs that are not in the window."""
        if self.subdags is None:
            return self.admission.previous_of(tx, [run.id for run in runs])
        return self.subdags.previous_of(tx, runs, self.admission)

    def take_half_expanded(self) -> list[tuple[int, str]]:
        """Return, once, the mappings of which rows are still to be created; not those whose sources have changed meanwhile."""
        begun, self.half_expanded = self.half_expanded, []
        return [each for each in begun if self.window.awaits_rows(*each)]

    def go_on_later_with(self, half_expanded: Sequence[tuple[int, str]]) -> None:
        """Have the next round, which begins at once, create more rows of these mappings (S4.7)."""
        if half_expanded:
            self.half_expanded += half_expanded
            self.rhythm.go_on()

    def is_first(self, run: RunFacts) -> bool:
        """Return whether `run` is the earliest of the range (S4.10)."""
        return run.ordinal == (self.total_runs - 1 if self.compiled.request.run_backwards else 0)

    def note_ends_of_subdags(self, outcomes: Iterable[RunOutcome]) -> None:
        """Note which runs of subdags have ended: they stay in the window, and what happens in them has no effect."""
        if isinstance(self.window, Family):
            self.window.note_ends(outcome.dag_run_id for outcome in outcomes)

    # -- counting -------------------------------------------------------------------------------------------------------

    def count_departed(self, ti_status: DagRunTaskStatus, left: LeftBehind) -> None:
        """Count what an earlier holder of the job saw finish."""
        ti_status.finished_runs += left.finished_runs
        ti_status.departed.update(left.departed)
        for state, count in left.departed.items():
            for _ in range(count if state in {TaskInstanceState.FAILED, TaskInstanceState.UPSTREAM_FAILED} else 0):
                self.policy.task_instance_ended_badly(itself=state is TaskInstanceState.FAILED)
        for _ in range(left.failed_runs):
            self.policy.run_failed()

    def count_as_done(self, ti_status: DagRunTaskStatus, done: Iterable[CountedDate]) -> None:
        """Count runs that were there and are left as they are (S2.8); a failed one is a failure of the job (S2.7)."""
        for date in done:
            ti_status.finished_runs += 1
            ti_status.departed.update(date.states)
            for state in (TaskInstanceState.FAILED, TaskInstanceState.UPSTREAM_FAILED):
                for _ in range(date.states[state]):
                    self.policy.task_instance_ended_badly(itself=state is TaskInstanceState.FAILED)
            if date.run_state == DagRunState.FAILED and not self.compiled.graph.others:
                self.policy.run_failed()

    def count_end(self, outcome: RunOutcome) -> None:
        """Count a run that ended: a failed one is a failure of the job, unless it failed by tasks not chosen (S9.1, S13.7)."""
        of_subdag = (
            self.dag_id_of(outcome.dag_run_id) != self.compiled.dag.dag_id
        )  # counts by the task instance that stands for it
        if outcome.state == DagRunState.FAILED and outcome.counts and not of_subdag:
            self.policy.run_failed(timed_out=outcome.reason == TIMED_OUT)

    def count_failures(self, ti: TaskInstance) -> None:
        """Count what counts as a failure now that `ti` is as it is (S9.1)."""
        if self.subdags is not None:
            failures = self.subdags.failures_of(ti)
        else:
            failures = [ti.facts] if ti.facts.state in ENDED_BADLY else []
        for row in failures:
            self.policy.task_instance_ended_badly(itself=row.state == TaskInstanceState.FAILED)

    def note_ends(self, ended: Iterable[TaskInstance]) -> None:
        """Note that task instances ended: the pace is theirs, and what they occupied is free."""
        finished = sum(ti.facts.state in FINISHED for ti in ended)
        if finished:
            self.pace.finished(finished)
            self.rhythm.something_ended(frees_places=self.window.places_taken < self.places_counted)

    def numbers(self, ti_status: DagRunTaskStatus) -> Numbers:
        """Return the numbers of S9.5: the window, what has left it, and the dates not admitted."""
        here, gone = self.window.counts(), ti_status.departed
        not_admitted = self.total_runs - ti_status.finished_runs - len(ti_status.active_runs)
        deadlocked = len(ti_status.deadlocked)
        here_blocked = sum(self.window.knows(blocked.ti.facts.id) for blocked in ti_status.blocked)
        return Numbers(
            runs_finished=ti_status.finished_runs,
            waiting=here.waiting
            - here_blocked
            + not_admitted * self.compiled.rows_per_run
            + _unfinished(gone)
            + (self.subdags.waiting() if self.subdags else 0),
            running=here.running,
            succeeded=here.succeeded + gone[TaskInstanceState.SUCCESS],
            failed=here.failed + gone[TaskInstanceState.FAILED] + gone[TaskInstanceState.UPSTREAM_FAILED],
            skipped=here.skipped + gone[TaskInstanceState.SKIPPED],
            deadlocked=deadlocked,
        )

    # -- rest and deadlines ---------------------------------------------------------------------------------------------

    def nothing_can_go(self, run_dates: Admission) -> bool:
        """Return whether no date can be admitted any more, and nothing in the window is in flight, ready, due or waits for another job.

        Once failures have used up their budget it is enough that nothing is in flight (S9.2).
        """
        if not self.policy.dispatches:
            return self.window.places_taken == 0
        more_dates = self.policy.admits and not run_dates.exhausted
        at_rest = self.window.idle() and not self.window.awaiting_previous()
        return at_rest and not (more_dates and run_dates.may_find_room)

    def cleared_dates_awaited(self, active_runs: Collection[RunFacts]) -> set[datetime]:
        """Return the dates that somebody cleared, if nothing in the window can go before one of them or another job's run has ended."""
        if not (active_runs and self.policy.dispatches and self.window.idle() and self.window.awaiting_previous()):
            return set()
        return self.admission.pending_before(max(run.ordinal for run in active_runs))

    def run_to_give_back(self, active_runs: Iterable[RunFacts]) -> RunFacts | None:
        """Return the last run in the window that may leave it and come again; None: none may.

        Nothing of it is in flight, nor does the task that stands for a subdag run; nor would its failures be cleared once more (S2.9).
        """
        kept = {*IN_FLIGHT, *(ENDED_BADLY if self.compiled.request.rerun_failed_tasks else ())}
        for run in sorted(active_runs, key=lambda run: run.ordinal, reverse=True):
            if not any(row.state in kept for row in self.window.rows(run.id)):
                return run
        return None

    def stuck_outcomes(self, ti_status: DagRunTaskStatus) -> list[RunOutcome]:
        """Return the ends of runs whose unfinished task instances can all never run; these are sorted as blocked (S9.3)."""
        stuck = set(self.window.stuck_runs())
        if not stuck:
            return []
        self.deadlocked = True
        for blocked in self.window.blocked():
            row = self.window.facts(blocked.ti_id)
            if (
                row.dag_run_id in stuck and blocked.reason is not BlockReason.SUBDAG
            ):  # that one ends with its subdag's run
                ti_status.block(
                    BlockedTask(
                        ti=TaskInstance(self.window.key(row.id), row),
                        run=self.window.run(row.dag_run_id),
                        reason=str(blocked),
                        waits_for_past=blocked.reason is BlockReason.PAST,
                    )
                )
        return [RunOutcome(dag_run_id, DagRunState.FAILED, "all_tasks_deadlocked") for dag_run_id in sorted(stuck)]

    def remove(self, run: RunFacts) -> list[TaskInstance]:
        """Let a run, and those of its subdags, leave the window; return its task instances as they were last seen."""
        below = self.window.runs_below(run.id) if isinstance(self.window, Family) else []
        leaving: list[TaskInstance] = []
        for each in (*below, run):
            leaving += self.task_instances(self.window.rows(each.id))
            self.window.remove(each.id)
            if self.without_values:
                self.without_values = {place: why for place, why in self.without_values.items() if place[0] != each.id}
        return leaving

    def due_in(self, lease: Lease) -> float:
        """Return the seconds until something is due that no event announces."""
        due: list[float] = [lease.due_in(), self.rhythm.due_in()]
        at = self.window.next_due()
        if at is not None:
            due.append((at - lease.now()).total_seconds())
        overdue_in = self.timeouts.due_in(lease.now())
        if overdue_in is not None:
            due.append(overdue_in)
        if self.throttle.news:
            due.append(self.throttle.due_in())
        return max(0.0, min(due))


def _unfinished(states: Mapping[TaskInstanceState, int]) -> int:
    return sum(count for state, count in states.items() if state not in FINISHED)


def _subdag_runs(job_id: int, compiled: CompiledRequest, window: Windows) -> SubdagRuns | None:
    if not isinstance(window, Family):
        return None
    return SubdagRuns(
        job_id=job_id, request=compiled.request, root=compiled.dag, members=compiled.members, window=window
    )


def _timeouts(compiled: CompiledRequest, window: Windows, clock: Clock) -> RunTimeouts | FamilyTimeouts:
    if isinstance(window, Family):
        return FamilyTimeouts(window, compiled.dags.values(), clock.monotonic)
    return RunTimeouts(window, compiled.dag.dagrun_timeout, clock.monotonic)


def _rhythm(request: BackfillRequest, settings: Settings, clock: Clock) -> Rhythm:
    return Rhythm(
        sweep_every=settings.coordinator.heartbeat_interval.total_seconds(),
        look_every=request.delay_on_limit_secs,
        clock=clock.monotonic,
    )
