"""What a job would do, without doing any of it: the answer of `backfill plan` (semantics, section 10)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from backfill.config import Settings
from backfill.dag import DAG
from backfill.engine.graph import Graph
from backfill.facts import PreviousRun, RunFacts, TaskInstanceFacts
from backfill.jobs.admission import subdags_by_task
from backfill.jobs.checks import CheckedRequest
from backfill.jobs.forecast import Capacity, Estimate, LimitRow, estimate, limits, longest, longest_run, together
from backfill.jobs.planning import DatePlan, LeftOutDate
from backfill.jobs.rehearsal import Lot, PlannedTask, Rehearsal, Rehearsed
from backfill.jobs.subdags import Subdag
from backfill.keys import backfill_run_id
from backfill.states import DagRunState, TaskInstanceState
from backfill.store import history, pools, previous, runs, task_instances
from backfill.store.database import Tx, database_now, read_only
from backfill.store.dates import PlannedDate
from backfill.store.subdags import select_above_failures

#: Runs whose task instances are read at a time.
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class DateOutlook:
    """What happens at one date."""

    logical_date: datetime
    data_interval_start: datetime
    data_interval_end: datetime
    #: `create`, `take`, `clear`, `done` or `left_out`.
    action: str
    why: str | None
    run_id: str | None
    #: State of the run that is there now.
    run_state: str | None
    tasks: tuple[PlannedTask, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the date as it stands in a plan's JSON: its task instances are counted only."""
        return {
            "logical_date": self.logical_date,
            "data_interval_start": self.data_interval_start,
            "data_interval_end": self.data_interval_end,
            "action": self.action,
            "why": self.why,
            "run_id": self.run_id,
            "run_state": self.run_state,
            "tasks": _counted(Counter(task.lot for task in self.tasks)),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What `run` would do with a request."""

    dag_id: str
    notes: tuple[str, ...]
    #: In the order of the job, those left out among them.
    dates: tuple[DateOutlook, ...]
    limits: tuple[LimitRow, ...]
    estimate: Estimate
    #: Tasks of the DAG that were not chosen.
    not_chosen: tuple[str, ...]
    #: The first date that the job takes on; None: all count as done.
    first: PlannedDate | None
    #: The run that is there, if any.
    first_run: RunFacts | None
    #: The dates of its subdags, by their ids.
    first_below: Mapping[str, PlannedDate]

    def first_task_instances(self) -> list[tuple[str, str, int]]:
        """Return dag_id, task_id and map index of the task instances of the first date that the job takes on."""
        when = self.first and self.first.logical_date
        return [
            (task.dag_id, task.task_id, task.map_index)
            for date in self.dates
            if date.logical_date == when
            for task in date.tasks
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON shape of `plan` (docs/cli.md)."""
        lots = Counter(task.lot for date in self.dates for task in date.tasks)
        actions = Counter(date.action for date in self.dates)
        return {
            "dag_id": self.dag_id,
            "notes": list(self.notes),
            "runs": {"total": len(self.dates), **{name: actions[name] for name in _ACTIONS}},
            "tasks": _counted(lots),
            "dates": [date.to_json() for date in self.dates],
            "task_instances": [_task_json(task) for date in self.dates for task in date.tasks],
            "tasks_not_chosen": list(self.not_chosen),
            "limits": [limit.to_json() for limit in self.limits],
            "estimate": {
                "seconds": self.estimate.seconds,
                "by": self.estimate.by,
                "without_history": list(self.estimate.without_history),
            },
        }


_ACTIONS = ("create", "take", "clear", "done", "left_out")


def look_ahead(
    tx: Tx, checked: CheckedRequest, settings: Settings, *, workers: int | None = None, reset: bool = False
) -> Outlook:
    """Return what a job of this request would do; `tx` is a transaction of its own, in which nothing can be written.

    `workers` are the processes of the worker that the command would start; with `reset` what is chosen in the range is cleared
    before (`--reset-dagruns`). Raises what creating the job would raise.
    """
    read_only(tx)
    plan = checked.plan(tx, reset=reset)
    if reset:
        plan = _all_cleared(plan)
    there = _Present(tx, plan.dates)
    now = database_now(tx)
    previous_runs = _previous_runs(tx, checked.dag.dag_id, checked.graph, plan.dates)
    again = there.above_failures(checked, checked.dag, checked.graph)
    rehearsal = Rehearsal(tx, checked.graph, checked.templates, previous_runs, now, again)
    below = [_Below(tx, checked, each, plan, now) for each in checked.subdags]
    rehearsed: list[Rehearsed] = []
    dates: list[DateOutlook] = []
    for date in plan.dates:
        rows = there.rows(date)
        if date.action == "done":
            tasks = tuple(_done(checked.dag.dag_id, checked.graph, date, rows))
        else:
            rehearsed.append(_rehearse(rehearsal, checked, checked.dag.dag_id, date, rows, last=len(plan.dates) - 1))
            tasks = rehearsed[-1].tasks
        for each in below:
            tasks += each.at(date, tasks)
        dates.append(_date_outlook(date, there.run(date), tasks))
    capacity = _capacity(tx, checked, settings, there, workers)
    todo = [date for date in plan.dates if date.action != "done"]
    medians = history.median_durations(tx, checked.dag.dag_id)
    lasting: Lasting = {}
    forecasts = [each.forecast(capacity, lasting) for each in reversed(below)]
    medians |= lasting.get(checked.dag.dag_id, {})
    return Outlook(
        dag_id=checked.dag.dag_id,
        notes=(*plan.notes, *_notes(checked, dates)),
        dates=tuple(_in_order(checked, dates, [_left_out(checked, date) for date in plan.left_out])),
        limits=together([limits(checked.graph, rehearsed, capacity), *(rows for rows, _ in reversed(forecasts))]),
        estimate=longest([estimate(checked.graph, rehearsed, capacity, medians), *(each for _, each in forecasts)]),
        not_chosen=tuple(sorted(checked.other_tasks)),
        first=todo[0] if todo else None,
        first_run=there.run(todo[0]) if todo else None,
        first_below={name: dates[todo[0].ordinal] for name, dates in plan.subdags.items() if todo},
    )


def _all_cleared(plan: DatePlan) -> DatePlan:
    return replace(
        plan,
        dates=tuple(_cleared(date) for date in plan.dates),
        subdags={dag_id: tuple(_cleared(date) for date in dates) for dag_id, dates in plan.subdags.items()},
    )


def _cleared(date: PlannedDate) -> PlannedDate:
    return date._replace(action="clear") if date.action == "take" else date


class _Present:
    """The runs that are there at the dates of a plan, with their task instances, read in order and in chunks."""

    def __init__(self, tx: Tx, dates: Sequence[PlannedDate]) -> None:
        self._tx = tx
        self._ids = [date.dag_run_id for date in dates if date.dag_run_id is not None]
        self._place = {dag_run_id: place for place, dag_run_id in enumerate(self._ids)}
        self._runs = {run.id: run for run in runs.select_runs(tx, self._ids)}
        self._rows: Mapping[int, list[TaskInstanceFacts]] = {}

    def run(self, date: PlannedDate) -> RunFacts | None:
        """Return the run that is there at a date."""
        return None if date.dag_run_id is None else self._runs.get(date.dag_run_id)

    def above_failures(self, checked: CheckedRequest, dag: DAG, graph: Graph) -> list[int]:
        """Return the task instances of a DAG that `rerun_failed_tasks` clears because of what ended badly in their subdags."""
        subdags = subdags_by_task(dag, graph) if checked.request.rerun_failed_tasks else {}
        return select_above_failures(self._tx, self._ids, subdags) if subdags else []

    def running(self) -> int:
        """Return how many of the runs are running."""
        return sum(run.state == DagRunState.RUNNING for run in self._runs.values())

    def rows(self, date: PlannedDate) -> Sequence[TaskInstanceFacts]:
        """Return the task instances that are there at a date."""
        if date.dag_run_id is None:
            return ()
        if date.dag_run_id not in self._rows:
            place = self._place[date.dag_run_id]
            chunk: dict[int, list[TaskInstanceFacts]] = {run_id: [] for run_id in self._ids[place : place + _CHUNK]}
            for row in task_instances.select_facts_of_runs(self._tx, list(chunk)):
                chunk[row.dag_run_id].append(row)
            self._rows = chunk
        return self._rows[date.dag_run_id]


#: Seconds of the longest run of subdags, by dag_id and task_id of what stands for them.
Lasting = dict[str, dict[str, float]]


class _Below:
    """A subdag in a plan: what it does at each date follows from what the task does that stands for it (S13)."""

    def __init__(self, tx: Tx, checked: CheckedRequest, subdag: Subdag, plan: DatePlan, now: datetime) -> None:
        self._tx = tx
        self._checked = checked
        self._subdag = subdag
        self._dates = {date.ordinal: date for date in plan.subdags[subdag.dag.dag_id]}
        self._there = _Present(tx, plan.subdags[subdag.dag.dag_id])
        past = _previous_runs(tx, subdag.dag.dag_id, subdag.graph, plan.subdags[subdag.dag.dag_id])
        again = self._there.above_failures(checked, subdag.dag, subdag.graph)
        self._rehearsal = Rehearsal(tx, subdag.graph, subdag.templates, past, now, again)
        self._rehearsed: list[Rehearsed] = []
        self.parent, self.task_id = subdag.parent, subdag.operator.task_id

    def at(self, above: PlannedDate, tasks: Sequence[PlannedTask]) -> tuple[PlannedTask, ...]:
        """Return its task instances at a date, given those of the DAGs above it."""
        date = self._dates[above.ordinal]
        rows, dag_id = self._there.rows(date), self._subdag.dag.dag_id
        own = next(task for task in tasks if (task.dag_id, task.task_id) == (self.parent, self.task_id))
        if own.lot in {Lot.RUN, Lot.RERUN}:
            self._rehearsed.append(
                _rehearse(self._rehearsal, self._checked, dag_id, date, rows, last=len(self._dates) - 1)
            )
            return self._rehearsed[-1].tasks
        if own.lot is Lot.DONE:
            return tuple(_done(dag_id, self._subdag.graph, date, rows))
        return tuple(
            PlannedTask(dag_id, template.task_id, date.logical_date, template.map_index, own.lot, None, own.why)
            for template in self._subdag.templates
        )

    def forecast(self, above: Capacity, lasting: Lasting) -> tuple[list[LimitRow], Estimate]:
        """Return its limits against its numbers, and how long its runs take.

        Subdags below it come first: how long each lasts goes to `lasting`, for the task that stands for it.
        """
        dag_id, graph = self._subdag.dag.dag_id, self._subdag.graph
        medians = {**history.median_durations(self._tx, dag_id), **lasting.get(dag_id, {})}
        seconds = longest_run(graph, self._rehearsed, medians)
        if seconds:
            lasting.setdefault(self.parent, {})[self.task_id] = seconds
        capacity = replace(above, in_flight=_in_flight(self._tx, dag_id))
        rows = limits(graph, self._rehearsed, capacity)
        own = [
            row._replace(of=f"{dag_id}.{row.of}") if row.of in graph.index else row
            for row in rows
            if row.limit != "max_active_runs"
        ]
        return own, estimate(graph, self._rehearsed, capacity, medians)


def _previous_runs(tx: Tx, dag_id: str, graph: Graph, planned: Sequence[PlannedDate]) -> Mapping[datetime, PreviousRun]:
    past = graph.past_task_ids
    dates = [date.logical_date for date in planned if date.action != "done"] if past else []
    return previous.select_previous_of_dates(tx, dag_id, dates, past) if dates else {}


def _rehearse(
    rehearsal: Rehearsal,
    checked: CheckedRequest,
    dag_id: str,
    date: PlannedDate,
    rows: Sequence[TaskInstanceFacts],
    *,
    last: int,
) -> Rehearsed:
    return rehearsal.run(
        date,
        rows,
        dag_id=dag_id,
        rerun_failed=checked.request.rerun_failed_tasks,
        first=date.ordinal == (last if checked.request.run_backwards else 0),
    )


def _done(dag_id: str, graph: Graph, date: PlannedDate, rows: Sequence[TaskInstanceFacts]) -> list[PlannedTask]:
    """Return the task instances of a run that is left as it is, in topological order (S2.8)."""
    place = graph.index
    mine = [row for row in rows if row.task_id in place and row.state != TaskInstanceState.REMOVED]
    return [
        PlannedTask(dag_id, row.task_id, date.logical_date, row.map_index, Lot.DONE, row.state, None)
        for row in sorted(mine, key=lambda row: (place[row.task_id], row.map_index))
    ]


def _left_out(checked: CheckedRequest, date: LeftOutDate) -> DateOutlook:
    """Return a date that is left out: so are the task instances that its run should have."""
    when = date.date.logical_date
    tasks = tuple(
        PlannedTask(dag_id, template.task_id, when, template.map_index, Lot.LEFT_OUT, None, date.reason)
        for dag_id, templates in (
            (checked.dag.dag_id, checked.templates),
            *((each.dag.dag_id, each.templates) for each in checked.subdags),
        )
        for template in templates
    )
    interval = (date.date.data_interval_start, date.date.data_interval_end)
    return DateOutlook(when, *interval, "left_out", date.reason, None, None, tasks)


def _date_outlook(date: PlannedDate, run: RunFacts | None, tasks: tuple[PlannedTask, ...]) -> DateOutlook:
    return DateOutlook(
        date.logical_date,
        date.data_interval_start,
        date.data_interval_end,
        date.action,
        None if run is None else f"there is a run in state {run.state}",
        backfill_run_id(date.logical_date) if run is None else run.run_id,
        None if run is None else run.state,
        tasks,
    )


def _in_order(
    checked: CheckedRequest, dates: Sequence[DateOutlook], left_out: Sequence[DateOutlook]
) -> list[DateOutlook]:
    return sorted([*dates, *left_out], key=lambda date: date.logical_date, reverse=checked.request.run_backwards)


def _capacity(tx: Tx, checked: CheckedRequest, settings: Settings, there: _Present, workers: int | None) -> Capacity:
    dag_id, own = checked.dag.dag_id, checked.request.max_active_runs
    return Capacity(
        max_active_runs=own if own is not None else checked.dag.max_active_runs,
        # those that the job takes need no further place (S2.13), and a limit of its own is about its own runs
        foreign_runs=0 if own is not None else max(0, runs.count_running_runs(tx, dag_id).all - there.running()),
        parallelism=settings.core.parallelism or None,
        workers=workers,
        pools={pool.pool: pool for pool in pools.list_pools(tx)},
        in_flight=_in_flight(tx, dag_id),
    )


def _in_flight(tx: Tx, dag_id: str) -> Counter[str]:
    in_flight: Counter[str] = Counter()
    for row in task_instances.select_occupancy(tx, [dag_id], []):
        in_flight[row.task_id] += row.count
    return in_flight


def _notes(checked: CheckedRequest, dates: Sequence[DateOutlook]) -> list[str]:
    """Return what the operator should know of runs that count as done though they failed (S2.7)."""
    failed = [date for date in dates if date.action == "done" and date.run_state == DagRunState.FAILED]
    if not failed or checked.other_tasks:
        return []
    stops = not (checked.request.continue_on_failures or checked.request.max_failures)
    more = ", and no further date is admitted once it is seen" if stops else ""
    which = failed[0].logical_date.isoformat() + (f" and {len(failed) - 1} more" if len(failed) > 1 else "")
    return [
        f"The run of {which} is failed and counts as done: the job will end as failed{more}; see --rerun-failed-tasks."
    ]


def _counted(lots: Mapping[Lot, int]) -> dict[str, int]:
    return {"total": sum(lots.values()), **{str(lot): lots.get(lot, 0) for lot in Lot}}


def _task_json(task: PlannedTask) -> dict[str, Any]:
    return {
        "dag_id": task.dag_id,
        "task_id": task.task_id,
        "logical_date": task.logical_date,
        "map_index": task.map_index,
        "action": str(task.lot),
        "state": task.state,
        "why": task.why,
    }
