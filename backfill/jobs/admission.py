"""Run dates become runs in the window, strictly in order, while there is room (S2.10 to S2.13, S5)."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from backfill.dag import DAG
from backfill.engine.graph import Graph
from backfill.facts import PreviousRun, RunFacts, TaskInstanceFacts
from backfill.jobs.base_job import PORTION
from backfill.jobs.request import BackfillRequest
from backfill.operators import SubDagOperator
from backfill.states import ENDED_BADLY, DagRunState, TaskInstanceState
from backfill.store import alignment, clearing, dates, giving_way, previous, report, runs, subdags, task_instances
from backfill.store.alignment import TaskTemplate
from backfill.store.database import Tx
from backfill.store.dates import PlannedDate

#: Pending dates are read this many at a time: enough for many ticks, little enough to keep in memory.
CHUNK = 500
#: Told of a DAG whose dates all wait.
CROWDED_OUT = "The runs of other jobs take all of {}'s max_active_runs; waiting for one to end."

#: Told of a run that has to wait for one that was cleared.
GIVEN_BACK = "{} is queued again: an earlier run that was cleared, and that all runs under way wait for, has its place."

#: Told of a date that keeps others waiting for good.
GIVEN_UP = "{} was cleared, and this job takes it up no more; what waits for it is blocked. Another backfill of these dates runs them."


@dataclass(frozen=True, slots=True)
class CountedDate:
    """A date whose run was there and is left as it is (S2.8)."""

    date: PlannedDate
    run_state: DagRunState
    states: Counter[TaskInstanceState]


@dataclass(frozen=True, slots=True)
class OpenedRuns:
    """Runs that enter the window, their task instances, and the run before each where somebody depends on the past."""

    runs: Sequence[RunFacts] = ()
    rows: Mapping[int, list[TaskInstanceFacts]] = field(default_factory=dict)
    previous: Mapping[int, PreviousRun] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Admitted:
    """What one look at the pending dates brought."""

    opened: OpenedRuns = field(default_factory=OpenedRuns)
    done: Sequence[CountedDate] = ()

    @property
    def runs(self) -> Sequence[RunFacts]:
        """The runs that were admitted."""
        return self.opened.runs


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """What an earlier holder of the job left: runs in the window, and what had finished before."""

    runs: list[RunFacts]
    finished_runs: int
    failed_runs: int
    departed: Counter[TaskInstanceState]


def templates_for(dag: DAG, graph: Graph, request: BackfillRequest, queue: str) -> tuple[TaskTemplate, ...]:
    """Return the rows that each run gets: one for each chosen task, or for each index of a literal mapping (S2.12)."""
    return tuple(
        TaskTemplate(
            task_id=task_id,
            map_index=index,
            max_tries=task.retries,
            pool=request.pool or task.pool,
            pool_slots=task.pool_slots,
            queue=task.queue or queue,
            executor=task.executor or request.executor,
            operator=SubDagOperator.__name__ if graph.spec(task_id).is_subdag else task.operator_name,
            priority_weight=graph.weight(task_id),
            dynamic=graph.spec(task_id).is_dynamic,
        )
        for task_id in graph.task_ids
        for task in (dag.task_dict[task_id],)
        for index in graph.literal_indexes(task_id)
    )


def subdags_by_task(dag: DAG, graph: Graph) -> dict[str, list[str]]:
    """Return for each chosen task that stands for a subdag the ids of that and of those below it."""
    operators = (dag.task_dict[graph.tasks[index].task_id] for index in graph.subdags)
    return {
        operator.task_id: [operator.subdag.dag_id, *(below.dag_id for below in operator.subdag.subdags)]
        for operator in operators
        if isinstance(operator, SubDagOperator)
    }


class Admission:
    """The dates of one job that have no run in the window yet, in order."""

    def __init__(
        self,
        *,
        job_id: int,
        dag: DAG,
        graph: Graph,
        request: BackfillRequest,
        templates: Sequence[TaskTemplate],
    ) -> None:
        self._job_id = job_id
        self._dag = dag
        self._graph = graph
        self._request = request
        self._templates = templates
        self._retries = {task_id: dag.task_dict[task_id].retries for task_id in graph.task_ids}
        self._subdags = subdags_by_task(dag, graph)
        self._not_chosen = frozenset(dag.task_dict) - frozenset(graph.task_ids)
        self._pending: deque[PlannedDate] = deque()
        self._read_all = False
        self._own_runs = 0
        self._foreign_runs = 0
        self._refused = False
        self._crowded = False
        self._at_once = max(1, PORTION // max(1, len(templates)))
        #: Whether the last look left dates alone for which there is room.
        self.has_more = False

    # -- is it worth asking the database? -------------------------------------------------------------------------------

    @property
    def exhausted(self) -> bool:
        """Whether every date has been admitted."""
        return self._read_all and not self._pending

    @property
    def may_find_room(self) -> bool:
        """Whether room may appear though no run of this job leaves the window: others occupy it, or a date was refused."""
        return self._foreign_runs > 0 or self._refused or self._own_runs < self._limit

    def worth_a_look(self, active_runs: int) -> bool:
        """Return whether a date might be admitted now, with `active_runs` of this job in the window."""
        return not self.exhausted and active_runs < self._limit

    @property
    def _limit(self) -> int:
        own = self._request.max_active_runs
        return own if own is not None else self._dag.max_active_runs

    @property
    def waits_for_others(self) -> bool:
        """Whether a date is left that only the end of somebody else's run lets in."""
        return not self.exhausted and (self._foreign_runs > 0 or self._refused)

    def pending_before(self, ordinal: int) -> set[datetime]:
        """Return the dates that are known to be pending and come before one in the window: somebody cleared their runs."""
        return {date.logical_date for date in self._pending if date.ordinal < ordinal}

    def crowded_out(self, admitted: Admitted) -> bool:
        """Return whether runs of others have just come to hold back every date; once until that changes."""
        before, self._crowded = self._crowded, not admitted.runs and not self._own_runs and self._foreign_runs > 0
        return self._crowded and not before

    def read_again(self, tx: Tx) -> None:
        """Read which dates are pending: a run that somebody cleared meanwhile is so again."""
        self._pending.clear()
        self._read_all = False
        self._fill(tx, 0)

    # -- dates become runs ----------------------------------------------------------------------------------------------

    def admit_next(self, tx: Tx) -> Admitted:
        """Admit the dates whose turn it is, as many as `max_active_runs` allows; those that count as done need no room (S2.13).

        `tx` has locked the limits of the DAG (S5.1).
        """
        room = self._room(tx)
        self._fill(tx, room)
        taken: list[PlannedDate] = []
        for date in self._pending:
            needs_place = date.action != "done" and not date.counts_as_running
            if (needs_place and room == 0) or len(taken) == self._at_once:
                break
            room -= needs_place
            taken.append(date)
        done = self._count_as_done(tx, [date for date in taken if date.action == "done"])
        admitted = self._admit(tx, [date for date in taken if date.action != "done"])
        self._refused = len(done) + len(admitted) < len(taken)
        # what was counted has grown: where the window is full now, no room may appear by itself
        self._own_runs += len(admitted)
        taken_over = sum(date.counts_as_running for date in taken)
        self._foreign_runs = max(0, self._foreign_runs - taken_over)
        self.has_more = len(taken) == self._at_once
        # in this transaction: nobody may see a run without the task instances that it is going to have
        return Admitted(self.open_runs(tx, admitted), done)

    def admit_in_place_of(self, tx: Tx, run: RunFacts) -> OpenedRuns | None:
        """Put `run` back to `queued`, and let the earliest pending date have its place, which comes before it (S2.13).

        None, and nothing written, where that is not so any more. `tx` has locked the limits of the DAG (S5.1).
        """
        earliest = dates.pending_dates(tx, self._job_id, 1)
        if self._room(tx) > 0 or not earliest or earliest[0].ordinal >= run.ordinal:
            return None
        if not giving_way.give_back_if_idle(tx, self._job_id, run.id, in_favour_of=earliest[0].dag_run_id):
            return None
        opened = self.open_runs(tx, self._admit(tx, earliest))
        self.read_again(tx)
        return opened

    def admit_if_room(self, tx: Tx, logical_date: datetime) -> RunFacts | None:
        """Admit this one date and return its run, also if it was admitted before; None where there is not enough room.

        Raises `ValueError` for a date that is not among those the job has yet to bring about.
        """
        task_instances.lock_limits(tx, [self._dag.dag_id], [])
        for run in runs.select_window_runs(tx, self._job_id):
            if run.logical_date == logical_date:
                return run
        planned = [date for date in dates.pending_dates(tx, self._job_id, None) if date.logical_date == logical_date]
        if not planned:
            raise ValueError(f"{logical_date.isoformat()} is no date that job {self._job_id} has yet to run")
        if self._room(tx) == 0 and not planned[0].counts_as_running:
            return None
        return next(iter(self._admit(tx, planned)), None)

    def confirm(self, admitted: Admitted) -> None:
        """Take dates off the list, now that the transaction that admitted them is committed."""
        gone = {run.ordinal for run in admitted.runs} | {counted.date.ordinal for counted in admitted.done}
        stay = []
        while gone and self._pending:
            date = self._pending.popleft()
            if date.ordinal in gone:
                gone.remove(date.ordinal)
            else:
                stay.append(date)
        self._pending.extendleft(reversed(stay))

    def _room(self, tx: Tx) -> int:
        """Return how many more runs may be `running`; the caller has locked the DAG's row (S5.1)."""
        running = runs.count_running_runs(tx, self._dag.dag_id, self._job_id)
        own_limit = self._request.max_active_runs is not None
        counted = running.own if own_limit else running.all
        self._own_runs, self._foreign_runs = running.own, counted - running.own
        return max(0, self._limit - counted)

    def _fill(self, tx: Tx, room: int) -> None:
        """Read further pending dates while there may be more of them than are known."""
        if not self._read_all and len(self._pending) <= room:
            fresh = dates.pending_dates(tx, self._job_id, room + CHUNK)
            self._pending = deque(fresh)
            self._read_all = len(fresh) < room + CHUNK

    def _admit(self, tx: Tx, planned: Sequence[PlannedDate]) -> list[RunFacts]:
        if not planned:
            return []
        admitted = runs.admit_dates(
            tx, self._job_id, self._dag.dag_id, [date.ordinal for date in planned], conf=self._request.conf
        )
        self._clear(tx, planned, admitted)
        return admitted

    def _clear(self, tx: Tx, planned: Sequence[PlannedDate], admitted: Sequence[RunFacts]) -> None:
        """Clear what `reprocess` and `rerun_failed_tasks` ask for, once, when the date comes up (S2.7, S2.9)."""
        to_clear = {date.ordinal for date in planned if date.action == "clear"}
        self.clear(tx, [run.id for run in admitted if run.ordinal in to_clear], clearing.CLEARED_FROM)
        if self._request.rerun_failed_tasks:
            self.clear_failures(tx, [run.id for run in admitted if run.ordinal not in to_clear])

    def clear(self, tx: Tx, dag_run_ids: Sequence[int], states: Collection[TaskInstanceState]) -> None:
        """Clear the chosen task instances of runs that are in one of `states` (S3.22)."""
        clearing.clear_task_instances(tx, dag_run_ids, self._retries, states=states)

    def clear_failures(self, tx: Tx, dag_run_ids: Sequence[int]) -> None:
        """Clear what ended badly in runs, and what stands for subdags in which something did (S2.9, S13.5)."""
        self.clear(tx, dag_run_ids, ENDED_BADLY)
        if self._subdags and dag_run_ids:
            above = subdags.select_above_failures(tx, dag_run_ids, self._subdags)
            clearing.clear_task_instances(tx, dag_run_ids, self._retries, ti_ids=above)

    def _count_as_done(self, tx: Tx, done: Sequence[PlannedDate]) -> list[CountedDate]:
        if not done:
            return []
        ids = [date.dag_run_id for date in done if date.dag_run_id is not None]
        found = {run.id: run for run in runs.select_runs(tx, ids)}
        states: dict[int, Counter[TaskInstanceState]] = defaultdict(Counter)
        for row in task_instances.select_facts_of_runs(tx, ids):
            if row.task_id in self._graph.index:
                states[row.dag_run_id][TaskInstanceState(row.state)] += 1
        dates.mark_dates(tx, self._job_id, [date.ordinal for date in done], "finished")
        if self._subdags:
            below = subdags.count_as_done(tx, self._job_id, [date.ordinal for date in done])
            for date in done:
                states[date.dag_run_id or 0].update(below[date.ordinal])
        return [
            CountedDate(date, DagRunState(found[date.dag_run_id].state), states[date.dag_run_id])
            for date in done
            if date.dag_run_id in found
        ]

    # -- runs enter the window ------------------------------------------------------------------------------------------

    def open_runs(self, tx: Tx, opened: Sequence[RunFacts]) -> OpenedRuns:
        """Bring the task instances of runs in line with the DAG and return them, with the run before each (S2.12, S4.9)."""
        if not opened:
            return OpenedRuns()
        ids = [run.id for run in opened]
        found = alignment.align_task_instances(tx, ids, self._templates, is_subset=bool(self._not_chosen))
        rows: dict[int, list[TaskInstanceFacts]] = defaultdict(list)
        for row in task_instances.select_facts_of_runs(tx, ids) if found is None else found:
            rows[row.dag_run_id].append(row)
        return OpenedRuns(opened, rows, self.previous_of(tx, ids))

    def previous_of(self, tx: Tx, dag_run_ids: Sequence[int]) -> dict[int, PreviousRun]:
        """Return P of S4.9 for each of the runs; nothing where no chosen task looks at the past."""
        if not self._graph.past_task_ids or not dag_run_ids:
            return {}
        return previous.select_previous_runs(tx, self._dag.dag_id, dag_run_ids, self._graph.past_task_ids)

    def read_left(self, tx: Tx) -> LeftBehind:
        """Return what an earlier holder of this job left; nothing at all for a job that was just made."""
        in_window = runs.select_window_runs(tx, self._job_id)
        gone = report.departed_counts(tx, self._job_id, task_ids=self._graph.task_ids)
        return LeftBehind(in_window, gone.runs.total, gone.runs.failed, Counter(gone.states))
