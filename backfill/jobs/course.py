"""What one drive of a job has in memory: the compiled DAG, the window, the dates to come, and when to look again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from backfill.clock import Clock
from backfill.config import Settings
from backfill.dag import DAG
from backfill.dag.subset import chosen_tasks
from backfill.engine.graph import Graph
from backfill.engine.window import BlockReason, Options, RunOutcome, Window
from backfill.facts import RunFacts, TaskInstanceFacts
from backfill.jobs.admission import Admission, CountedDate, LeftBehind, templates_for
from backfill.jobs.base_job import Lease
from backfill.jobs.policy import StopPolicy
from backfill.jobs.progress import Pace, Throttle
from backfill.jobs.request import BackfillRequest
from backfill.jobs.rhythm import Rhythm
from backfill.jobs.task_status import BlockedTask, DagRunTaskStatus, TaskInstance
from backfill.jobs.timeouts import TIMED_OUT, RunTimeouts
from backfill.jobs.verdict import Budget
from backfill.messages import ExecutorEvent
from backfill.states import FINISHED, DagRunState, TaskInstanceState
from backfill.store.runs import TaskTemplate


class Numbers(NamedTuple):
    """The numbers of S9.5; total is the sum of the last six."""

    runs_finished: int
    waiting: int
    running: int
    succeeded: int
    failed: int
    skipped: int
    deadlocked: int


def engine_options(request: BackfillRequest) -> Options:
    """Return what of `request` changes how dependencies are judged."""
    return Options(
        ignore_task_deps=request.ignore_task_deps or request.ignore_dependencies,
        ignore_first_depends_on_past=request.ignore_first_depends_on_past,
        mark_success=request.mark_success,
        disable_retry=request.disable_retry,
        pool=request.pool,
    )


def compile_graph(dag: DAG, request: BackfillRequest) -> Graph:
    """Return the graph of the tasks that `request` chooses (S13.6)."""
    chosen = chosen_tasks(dag, request.task_regex, request.ignore_dependencies)
    return Graph.compile(dag, chosen, options=engine_options(request))


class Course:
    """The state of one drive; everything in it can be made again from the rows (S0.1)."""

    def __init__(
        self, *, job_id: int, dag: DAG, request: BackfillRequest, settings: Settings, total_runs: int, clock: Clock
    ) -> None:
        self.dag = dag
        self.request = request
        options = engine_options(request)
        self.graph = compile_graph(dag, request)
        self.window = Window(self.graph, options)
        templates = templates_for(dag, self.graph, request, settings.celery.queue)
        self._templates = {template.task_id: template for template in templates}
        self.admission = Admission(job_id=job_id, dag=dag, graph=self.graph, request=request, templates=templates)
        self.total_runs = total_runs
        self.rows_per_run = len(templates)
        self.policy = StopPolicy(request, planned=total_runs * self.rows_per_run)
        self.rhythm = Rhythm(
            sweep_every=settings.coordinator.heartbeat_interval.total_seconds(),
            look_every=request.delay_on_limit_secs,
            clock=clock.monotonic,
        )
        self.timeouts = RunTimeouts(self.window, dag.dagrun_timeout, clock.monotonic)
        self.budget = Budget(settings.task.infrastructure_retries, disable_retry=request.disable_retry)
        #: Task instances whose next attempt shares no message with others (S8.3).
        self._isolated: set[int] = set()
        self.pace = Pace(clock.monotonic)
        self.throttle = Throttle(clock.monotonic)
        #: Whether any run turned out to be stuck (S9.3): the job is deadlocked then.
        self.deadlocked = False

    def task_instances(self, rows: Iterable[TaskInstanceFacts]) -> list[TaskInstance]:
        """Return `rows`, all of runs in the window, with their keys."""
        return [TaskInstance(self.window.key(row.id), row) for row in rows]

    def isolate(self, events: Iterable[ExecutorEvent]) -> None:
        """Note what was lost with others of its process, so that the next loss tells which of them was at fault (S8.3)."""
        self._isolated.update(event.task_instance_id for event in events if event.alone)

    def travels_alone(self, row: TaskInstanceFacts) -> bool:
        """Return whether an attempt of `row` must not share a message: it was lost before."""
        return row.infrastructure_failures > 0 or row.id in self._isolated

    def template(self, task_id: str) -> TaskTemplate:
        """Return the row that a run gets for a task, or the first of them if it is mapped over literals."""
        return self._templates[task_id]

    def is_first(self, run: RunFacts) -> bool:
        """Return whether `run` is the earliest of the range (S4.10)."""
        return run.ordinal == (self.total_runs - 1 if self.request.run_backwards else 0)

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
            if date.run_state == DagRunState.FAILED and not self.graph.others:
                self.policy.run_failed()

    def count_end(self, outcome: RunOutcome) -> None:
        """Count a run that ended: a failed one is a failure of the job, unless it failed by tasks not chosen (S9.1, S13.7)."""
        if outcome.state == DagRunState.FAILED and outcome.counts:
            self.policy.run_failed(timed_out=outcome.reason == TIMED_OUT)

    def note_ends(self, ended: Iterable[TaskInstance]) -> None:
        """Note that task instances ended: the pace is theirs, and what they occupied is free."""
        finished = sum(ti.facts.state in FINISHED for ti in ended)
        if finished:
            self.pace.finished(finished)
            self.rhythm.something_ended()

    def numbers(self, ti_status: DagRunTaskStatus) -> Numbers:
        """Return the numbers of S9.5: the window, what has left it, and the dates not admitted."""
        here, gone = self.window.counts(), ti_status.departed
        not_admitted = self.total_runs - ti_status.finished_runs - len(ti_status.active_runs)
        deadlocked = len(ti_status.deadlocked)
        here_blocked = sum(self.window.knows(blocked.ti.facts.id) for blocked in ti_status.blocked)
        return Numbers(
            runs_finished=ti_status.finished_runs,
            waiting=here.waiting - here_blocked + not_admitted * self.rows_per_run + _unfinished(gone),
            running=here.running,
            succeeded=here.succeeded + gone[TaskInstanceState.SUCCESS],
            failed=here.failed + gone[TaskInstanceState.FAILED] + gone[TaskInstanceState.UPSTREAM_FAILED],
            skipped=here.skipped + gone[TaskInstanceState.SKIPPED],
            deadlocked=deadlocked,
        )

    # -- rest and deadlines ---------------------------------------------------------------------------------------------

    @property
    def at_rest(self) -> bool:
        """Whether nothing in the window is in flight, ready or due, and nothing waits for another job (S9.4)."""
        return self.window.idle() and not self.window.awaiting_previous()

    def stuck_outcomes(self, ti_status: DagRunTaskStatus) -> list[RunOutcome]:
        """Return the ends of runs whose unfinished task instances can all never run; these are sorted as blocked (S9.3)."""
        stuck = set(self.window.stuck_runs())
        if not stuck:
            return []
        self.deadlocked = True
        for blocked in self.window.blocked():
            row = self.window.facts(blocked.ti_id)
            if row.dag_run_id in stuck:
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
        """Let a run leave the window; return its task instances as they were last seen."""
        leaving = self.task_instances(self.window.rows(run.id))
        self.window.remove(run.id)
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
