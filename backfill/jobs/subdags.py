"""Subdags of a job: their runs begin and end with the task instances that stand for them (S13)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

from backfill.dag import DAG
from backfill.engine.codes import CODES, SUCCESS
from backfill.engine.family import Branch, Family
from backfill.engine.graph import Graph
from backfill.engine.retries import is_eligible, retry_delay
from backfill.engine.window import RunOutcome
from backfill.facts import PreviousRun, RunFacts, TaskInstanceFacts
from backfill.jobs.admission import Admission, OpenedRuns, templates_for
from backfill.jobs.fail_stop import stop_rest_of_run
from backfill.jobs.request import BackfillRequest
from backfill.jobs.task_status import TaskInstance
from backfill.jobs.timeouts import TIMED_OUT
from backfill.operators import SubDagOperator
from backfill.operators.subdag import SkippedStatePropagationOptions
from backfill.states import ENDED_BADLY, IDLE, DagRunState, TaskInstanceState
from backfill.store import clearing, runs, subdags, task_instances
from backfill.store.alignment import TaskTemplate
from backfill.store.attempts import Stopped
from backfill.store.database import Tx
from backfill.store.subdags import SubdagDate, SubdagEnd

#: Reason of a run that was closed since nothing in it could go any more (S9.4): no retry would help.
STUCK = "all_tasks_deadlocked"
#: An error text names so many of the task instances that ended badly.
_NAMED = 3

#: A date of a subdag: its dag_id, and the ordinal of the date.
Place = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subdag:
    """A subdag of a job, compiled; all of its tasks are chosen."""

    dag: DAG
    graph: Graph
    #: The rows that each of its runs gets.
    templates: tuple[TaskTemplate, ...]
    #: The task that stands for it, and `dag_id` of the DAG that this belongs to.
    operator: SubDagOperator
    parent: str

    @property
    def branch(self) -> Branch:
        """What the engine needs to know of it."""
        return Branch(self.graph, self.parent, self.operator.task_id)

    def children_to_skip(self, rows: Iterable[TaskInstanceFacts]) -> tuple[str, ...] | None:
        """Return the direct children that are skipped after its run ended well with `rows`; None: it decides nothing (S13.4)."""
        option = self.operator.propagate_skipped_state
        if option is None:
            return None
        leaves = {self.graph.tasks[index].task_id for index in self.graph.leaves}
        skipped = [
            row.state == TaskInstanceState.SKIPPED
            for row in rows
            if row.task_id in leaves and row.state != TaskInstanceState.REMOVED
        ]
        some = any if option is SkippedStatePropagationOptions.ANY_LEAF else all
        return tuple(sorted(self.operator.downstream_task_ids)) if skipped and some(skipped) else ()

    @property
    def cleared_for_a_retry(self) -> frozenset[TaskInstanceState]:
        """States of the task instances that a retry clears; what a failure may have skipped is among them (S6.6, S6.8)."""
        skips = self.dag.fail_stop or self.dag.dagrun_timeout is not None
        return ENDED_BADLY | {TaskInstanceState.SKIPPED} if skips else ENDED_BADLY


def conf_of(subdag: DAG, root: DAG, conf: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the conf of the run of a subdag in a run of `root` that has `conf`: that of the nearest task that has one."""
    if subdag.parent_dag is None or subdag is root:
        return conf
    operator = next(task for task in subdag.parent_dag.tasks if getattr(task, "subdag", None) is subdag)
    own = operator.conf if isinstance(operator, SubDagOperator) else None
    return conf_of(subdag.parent_dag, root, conf) if own is None else own


def subdags_of(dag: DAG, graph: Graph, request: BackfillRequest, queue: str) -> tuple[Subdag, ...]:
    """Return the subdags of the chosen tasks of a DAG, each followed by its own."""
    return tuple(_subdags_of(dag, graph, request, queue))


def _subdags_of(dag: DAG, graph: Graph, request: BackfillRequest, queue: str) -> Iterator[Subdag]:
    for index in graph.subdags:
        operator = dag.task_dict[graph.tasks[index].task_id]
        if not isinstance(operator, SubDagOperator):
            raise TypeError(f"the task {operator.task_id!r} has a subdag and is no SubDagOperator")
        own = Graph.compile(operator.subdag, options=graph.options)
        yield Subdag(
            dag=operator.subdag,
            graph=own,
            templates=templates_for(operator.subdag, own, request, queue),
            operator=operator,
            parent=dag.dag_id,
        )
        yield from _subdags_of(operator.subdag, own, request, queue)


def order_of_tasks(dag_id: str, graph: Graph, subdags: Sequence[Subdag]) -> list[tuple[str, str]]:
    """Return (dag_id, task_id) of all tasks of a job in topological order; those of a subdag come just before its own task."""
    standing_for = {(each.parent, each.operator.task_id): each for each in subdags}
    order: list[tuple[str, str]] = []
    for task_id in graph.task_ids:
        subdag = standing_for.get((dag_id, task_id))
        order += [] if subdag is None else order_of_tasks(subdag.dag.dag_id, subdag.graph, subdags)
        order.append((dag_id, task_id))
    return order


class Started(NamedTuple):
    """What came of one look at the subdags that are to be started."""

    opened: OpenedRuns
    #: Task instances that stand for subdags, as they are now.
    rows: list[TaskInstanceFacts]
    #: Whether some could not start: a run of another type is running at their date (S2.6), or the job has just been paused.
    refused: bool


class Mirrored(NamedTuple):
    """What the ends of subdags' runs brought about."""

    #: The task instances that stood for them, with the errors of those that failed by id.
    ended: Sequence[TaskInstanceFacts] = ()
    errors: Mapping[int, str | None] = {}
    #: What `fail_stop` stopped, with the attempts whose processes run.
    stopped: Sequence[TaskInstanceFacts] = ()
    attempts: Sequence[str] = ()


@dataclass(slots=True)
class SubdagRuns:
    """Starts and ends the runs of a job's subdags."""

    job_id: int
    request: BackfillRequest
    #: The DAG of the job.
    root: DAG
    members: Mapping[str, Subdag]
    window: Family
    _admissions: dict[str, Admission] = field(init=False)

    def __post_init__(self) -> None:
        self._admissions = {
            name: Admission(
                job_id=self.job_id,
                dag=each.dag,
                graph=each.graph,
                request=self.request,
                templates=each.templates,
            )
            for name, each in self.members.items()
        }

    def waiting(self) -> int:
        """Return how many task instances of subdags wait for their run to begin, in runs that are under way (S9.5)."""
        return sum(self.window.not_begun(name) * len(each.templates) for name, each in self.members.items())

    # -- runs enter the window ------------------------------------------------------------------------------------------

    def open_runs(self, tx: Tx, opened: Sequence[RunFacts], root: Admission) -> OpenedRuns:
        """As `Admission.open_runs`, for runs of all DAGs of the job; those of subdags come first."""
        by_dag: dict[str, list[RunFacts]] = defaultdict(list)
        for run in opened:
            by_dag[run.dag_id].append(run)
        admissions = {**self._admissions, self.root.dag_id: root}
        return _together(admissions[name].open_runs(tx, by_dag[name]) for name in admissions if name in by_dag)

    def previous_of(self, tx: Tx, dag_runs: Iterable[RunFacts], root: Admission) -> dict[int, PreviousRun]:
        """As `Admission.previous_of`, for runs of all DAGs of the job."""
        by_dag: dict[str, list[int]] = defaultdict(list)
        for run in dag_runs:
            by_dag[run.dag_id].append(run.id)
        found: dict[int, PreviousRun] = {}
        for name, ids in by_dag.items():
            found |= self._admissions.get(name, root).previous_of(tx, ids)
        return found

    def start(self, tx: Tx) -> Started:
        """Let the runs of subdags begin whose task instance is ready, and that run with them (S13.2), in one transaction.

        Locks are taken in the order dates, runs, task instances.
        """
        ready = self.window.startable()
        rows = task_instances.select_facts(tx, ready)
        places = {self._place_of(row): row for row in rows if row.state in IDLE}
        dates = {(date.dag_id, date.ordinal): date for date in subdags.lock_dates(tx, self.job_id, places)}
        going_on = [place for place in places if self.window.run_of(*place) is not None]
        fresh = [place for place in dates if place not in going_on]
        subdags.reopen_dates(tx, self.job_id, fresh)
        admitted = self._admit(tx, fresh, places)
        self._clear(tx, admitted, dates)
        begun = {(run.dag_id, run.ordinal) for run in admitted} | set(going_on)
        started = subdags.start_if_idle(tx, self.job_id, [places[place].id for place in begun])
        left = set(ready) - {row.id for row in started}
        return Started(
            opened=_together(
                admission.open_runs(tx, [run for run in admitted if run.dag_id == name])
                for name, admission in self._admissions.items()
            ),
            rows=started + task_instances.select_facts(tx, sorted(left)),
            refused=len(started) < len(places),
        )

    def _place_of(self, row: TaskInstanceFacts) -> Place:
        subdag = self.window.subdag_of(row.id)
        if subdag is None:
            raise ValueError(f"task instance {row.id} stands for no subdag")
        return subdag, self.window.run(row.dag_run_id).ordinal

    def _admit(self, tx: Tx, dates: Sequence[Place], places: Mapping[Place, TaskInstanceFacts]) -> list[RunFacts]:
        """Create or take the runs of `dates`; those of one subdag with one conf in one statement."""
        together: dict[tuple[str, str], list[int]] = defaultdict(list)
        for place in dates:
            conf = self.members[place[0]].operator.conf
            if conf is None:  # an empty one of the parent's does not replace that of a run which is there
                conf = self.window.run(places[place].dag_run_id).conf or None
            together[place[0], json.dumps(conf, sort_keys=True)].append(place[1])
        return [
            run
            for (dag_id, conf), ordinals in together.items()
            for run in runs.admit_dates(tx, self.job_id, dag_id, ordinals, conf=json.loads(conf))
        ]

    def _clear(self, tx: Tx, admitted: Sequence[RunFacts], dates: Mapping[Place, SubdagDate]) -> None:
        """Clear what the job asks for when a date comes up first (S2.7, S2.9), and what failed when it comes up again (S13.4)."""
        for name, member in self.members.items():
            mine = [(run.id, dates[name, run.ordinal]) for run in admitted if run.dag_id == name]
            admission = self._admissions[name]
            again = [run_id for run_id, date in mine if date.progress != "pending"]
            admission.clear(tx, again, member.cleared_for_a_retry)
            to_clear = [run_id for run_id, date in mine if date.progress == "pending" and date.action == "clear"]
            admission.clear(tx, to_clear, clearing.CLEARED_FROM)
            if self.request.rerun_failed_tasks:
                admission.clear_failures(tx, [run_id for run_id, _ in mine if run_id not in (*again, *to_clear)])

    # -- runs end -------------------------------------------------------------------------------------------------------

    def settle(self, tx: Tx, outcomes: Sequence[RunOutcome]) -> Mirrored:
        """Let the task instances mirror how their subdags' runs ended (S13.4), in the transaction that writes the outcomes."""
        ends = {end.task_instance_id: end for outcome in outcomes if (end := self._end(outcome)) is not None}
        ended = subdags.end_if_running(tx, ends.values())
        failed = [row for row in ended if row.state == TaskInstanceState.FAILED]
        stopped = [each for row in failed for each in self._fail_stop(tx, row)]
        return Mirrored(
            ended=ended,
            errors={row.id: ends[row.id].error for row in ended},
            stopped=task_instances.select_facts(tx, [each.task_instance_id for each in stopped]),
            attempts=[each.attempt_id for each in stopped if each.attempt_id],
        )

    def pass_over(self, tx: Tx, outcomes: Iterable[RunOutcome]) -> None:
        """Let dates of subdags be done with that had no run when the run ended that they belong to (S13.5)."""
        ended = [self.window.run(outcome.dag_run_id) for outcome in outcomes]
        subdags.pass_over_dates(
            tx,
            self.job_id,
            [(name, run.ordinal) for run in ended for name in self.members if run.dag_id == self.root.dag_id],
        )

    def pass_over_settled(self, tx: Tx, ti_ids: Iterable[int]) -> None:
        """Let dates of subdags be done with whose task instance was settled without a start (S13.5)."""
        found = [(name, ti_id) for ti_id in ti_ids if (name := self.window.subdag_of(ti_id)) is not None]
        subdags.pass_over_dates(
            tx,
            self.job_id,
            [
                (below, self.window.run(self.window.facts(ti_id).dag_run_id).ordinal)
                for name, ti_id in found
                for below in (name, *self.window.below(name))
            ],
        )

    def _end(self, outcome: RunOutcome) -> SubdagEnd | None:
        row = self.window.operator_row(outcome.dag_run_id)
        if row is None:
            return None
        member = self.members[self.window.run(outcome.dag_run_id).dag_id]
        if outcome.state == DagRunState.SUCCESS:
            skips = member.children_to_skip(self.window.rows(outcome.dag_run_id))
            return SubdagEnd(row.id, TaskInstanceState.SUCCESS, skips=skips)
        retries = outcome.reason != STUCK and is_eligible(
            retries=member.operator.retries,
            try_number=row.try_number,
            max_tries=row.max_tries,
            disable_retry=self.request.disable_retry,
        )
        return SubdagEnd(
            row.id,
            TaskInstanceState.UP_FOR_RETRY if retries else TaskInstanceState.FAILED,
            error=self._error(member, outcome),
            retry_delay=self._delay(member, row) if retries else None,
        )

    def _error(self, member: Subdag, outcome: RunOutcome) -> str:
        whose = f"The run of its subdag {member.dag.dag_id!r} failed"
        if outcome.reason == TIMED_OUT:
            return f"{whose}: dagrun_timeout of {member.dag.dagrun_timeout} is over."
        if outcome.reason == STUCK:
            return f"{whose}: what was left of it did not run."
        bad = [row.task_id for row in self.window.rows(outcome.dag_run_id) if row.state in ENDED_BADLY]
        more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        return f"{whose}: {', '.join(bad[:_NAMED])}{more} ended badly."

    def _delay(self, member: Subdag, row: TaskInstanceFacts) -> timedelta:
        return retry_delay(member.operator, self.window.run(row.dag_run_id).logical_date, row.try_number)

    def _fail_stop(self, tx: Tx, row: TaskInstanceFacts) -> list[Stopped]:
        key = self.window.key(row.id)
        dag = self.root if key.dag_id == self.root.dag_id else self.members[key.dag_id].dag
        return stop_rest_of_run(tx, dag, row.dag_run_id, key)

    # -- what counts ----------------------------------------------------------------------------------------------------

    def failures_of(self, ti: TaskInstance) -> list[TaskInstanceFacts]:
        """Return what counts as a failure now that `ti` is as it is (S9.1).

        What ends badly in a subdag counts once the task instance of the job's DAG has ended that stands for it: till then a
        retry may clear it.
        """
        if ti.key.dag_id != self.root.dag_id:
            return []
        own = [ti.facts] if ti.facts.state in ENDED_BADLY else []
        subdag = self.window.subdag_of(ti.facts.id)
        if subdag is None or CODES[ti.facts.state] < SUCCESS:
            return own
        below = self.window.runs_below(ti.facts.dag_run_id, subdag)
        return [row for run in below for row in self.window.rows(run.id) if row.state in ENDED_BADLY] + own


def _together(parts: Iterable[OpenedRuns]) -> OpenedRuns:
    found = list(parts)
    return OpenedRuns(
        [run for each in found for run in each.runs],
        {dag_run_id: rows for each in found for dag_run_id, rows in each.rows.items()},
        {dag_run_id: previous for each in found for dag_run_id, previous in each.previous.items()},
    )
