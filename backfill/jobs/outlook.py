"""What a job would do, without doing any of it: the answer of `backfill plan` (semantics, section 10)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from backfill.config import Settings
from backfill.facts import PreviousRun, RunFacts, TaskInstanceFacts
from backfill.jobs.checks import CheckedRequest
from backfill.jobs.forecast import Capacity, Estimate, LimitRow, estimate, limits
from backfill.jobs.planning import DatePlan, LeftOutDate
from backfill.jobs.rehearsal import Lot, PlannedTask, Rehearsal, Rehearsed
from backfill.keys import backfill_run_id
from backfill.states import DagRunState, TaskInstanceState
from backfill.store import history, pools, previous, runs, task_instances
from backfill.store.database import Tx, database_now, read_only
from backfill.store.dates import PlannedDate

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

    def first_task_instances(self) -> list[tuple[str, int]]:
        """Return task id and map index of the task instances of the first date that the job takes on."""
        when = self.first and self.first.logical_date
        return [
            (task.task_id, task.map_index) for date in self.dates if date.logical_date == when for task in date.tasks
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


def look_ahead(tx: Tx, checked: CheckedRequest, settings: Settings, *, workers: int | None = None) -> Outlook:
    """Return what a job of this request would do; `tx` is a transaction of its own, in which nothing can be written.

    `workers` are the processes of the worker that the command would start. Raises what creating the job would raise.
    """
    read_only(tx)
    plan = checked.plan(tx)
    there = _Present(tx, plan)
    rehearsal = Rehearsal(tx, checked.graph, checked.templates, _previous_runs(tx, checked, plan), database_now(tx))
    rehearsed: list[Rehearsed] = []
    dates: list[DateOutlook] = []
    for date in plan.dates:
        rows = there.rows(date)
        if date.action == "done":
            tasks = tuple(_done(checked, date, rows))
        else:
            rehearsed.append(_rehearse(rehearsal, checked, plan, date, rows))
            tasks = rehearsed[-1].tasks
        dates.append(_date_outlook(date, there.run(date), tasks))
    capacity = _capacity(tx, checked, settings, there, workers)
    todo = [date for date in plan.dates if date.action != "done"]
    return Outlook(
        dag_id=checked.dag.dag_id,
        notes=(*plan.notes, *_notes(checked, dates)),
        dates=tuple(_in_order(checked, dates, [_left_out(checked, date) for date in plan.left_out])),
        limits=tuple(limits(checked.graph, rehearsed, capacity)),
        estimate=estimate(checked.graph, rehearsed, capacity, history.median_durations(tx, checked.dag.dag_id)),
        not_chosen=tuple(sorted(checked.other_tasks)),
        first=todo[0] if todo else None,
        first_run=there.run(todo[0]) if todo else None,
    )


class _Present:
    """The runs that are there at the dates of a plan, with their task instances, read in order and in chunks."""

    def __init__(self, tx: Tx, plan: DatePlan) -> None:
        self._tx = tx
        self._ids = [date.dag_run_id for date in plan.dates if date.dag_run_id is not None]
        self._place = {dag_run_id: place for place, dag_run_id in enumerate(self._ids)}
        self._runs = {run.id: run for run in runs.select_runs(tx, self._ids)}
        self._rows: Mapping[int, list[TaskInstanceFacts]] = {}

    def run(self, date: PlannedDate) -> RunFacts | None:
        """Return the run that is there at a date."""
        return None if date.dag_run_id is None else self._runs.get(date.dag_run_id)

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


def _previous_runs(tx: Tx, checked: CheckedRequest, plan: DatePlan) -> Mapping[datetime, PreviousRun]:
    past = checked.graph.past_task_ids
    dates = [date.logical_date for date in plan.dates if date.action != "done"] if past else []
    return previous.select_previous_of_dates(tx, checked.dag.dag_id, dates, past) if dates else {}


def _rehearse(
    rehearsal: Rehearsal,
    checked: CheckedRequest,
    plan: DatePlan,
    date: PlannedDate,
    rows: Sequence[TaskInstanceFacts],
) -> Rehearsed:
    earliest = len(plan.dates) - 1 if checked.request.run_backwards else 0
    return rehearsal.run(
        date,
        rows,
        dag_id=checked.dag.dag_id,
        rerun_failed=checked.request.rerun_failed_tasks,
        first=date.ordinal == earliest,
    )


def _done(checked: CheckedRequest, date: PlannedDate, rows: Sequence[TaskInstanceFacts]) -> list[PlannedTask]:
    """Return the task instances of a run that is left as it is, in topological order (S2.8)."""
    place = checked.graph.index
    mine = [row for row in rows if row.task_id in place and row.state != TaskInstanceState.REMOVED]
    return [
        PlannedTask(row.task_id, date.logical_date, row.map_index, Lot.DONE, row.state, None)
        for row in sorted(mine, key=lambda row: (place[row.task_id], row.map_index))
    ]


def _left_out(checked: CheckedRequest, date: LeftOutDate) -> DateOutlook:
    """Return a date that is left out: so are the task instances that its run should have."""
    when = date.date.logical_date
    tasks = tuple(
        PlannedTask(template.task_id, when, template.map_index, Lot.LEFT_OUT, None, date.reason)
        for template in checked.templates
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
    in_flight: Counter[str] = Counter()
    for row in task_instances.select_occupancy(tx, [dag_id], []):
        in_flight[row.task_id] += row.count
    return Capacity(
        max_active_runs=own if own is not None else checked.dag.max_active_runs,
        # those that the job takes need no further place (S2.13), and a limit of its own is about its own runs
        foreign_runs=0 if own is not None else max(0, runs.count_running_runs(tx, dag_id).all - there.running()),
        parallelism=settings.core.parallelism or None,
        workers=workers,
        pools={pool.pool: pool for pool in pools.list_pools(tx)},
        in_flight=in_flight,
    )


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
        "task_id": task.task_id,
        "logical_date": task.logical_date,
        "map_index": task.map_index,
        "action": str(task.lot),
        "state": task.state,
        "why": task.why,
    }
