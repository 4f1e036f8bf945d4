"""A range of task instances goes back to the initial state (S3.26): which ones, and how many of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from backfill.dag import DAG
from backfill.dag.subset import matching_tasks, relevant_setups_and_teardowns
from backfill.facts import TaskInstanceFacts
from backfill.states import ENDED_BADLY, TaskInstanceState
from backfill.store.clearable import Clearable, select_clearable
from backfill.store.clearing import CLEARED_FROM, clear_task_instances
from backfill.store.database import Tx

#: There is nothing to clear where nothing has happened yet; so a clear that is repeated finds nothing.
CLEARABLE = CLEARED_FROM - {TaskInstanceState.NONE}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearScope:
    """What is to be cleared: tasks of a DAG, in its runs of any type from `start` to `end`, both included."""

    dag: DAG
    start: datetime
    end: datetime
    task_ids: frozenset[str]
    #: Only task instances in these states.
    states: frozenset[TaskInstanceState] = CLEARABLE
    #: Tasks that are cleared in a run in which the task of that id is, whatever their own state.
    companions: Mapping[str, Collection[str]] = field(default_factory=dict)
    #: Of a subdag: what it clears there clears the task that stands for it as well, and what is downstream of that (S13.5).
    reaches_up: bool = False


@dataclass(frozen=True, slots=True)
class ClearCount:
    """How much a clear is about, or has done."""

    #: Task instances by task id; those of other DAGs than the one that was named by dag_id and task_id.
    tasks: Counter[str]
    runs: int
    #: Task instances in the range that run now: they are left alone.
    left_running: int

    @property
    def task_instances(self) -> int:
        """How many task instances are cleared."""
        return self.tasks.total()

    def __str__(self) -> str:
        return f"{_number(self.task_instances, 'task instance')} in {_number(self.runs, 'run')}"


def clear_scope(
    dag: DAG,
    start: datetime,
    end: datetime,
    *,
    task_regex: str | None = None,
    upstream: bool = False,
    downstream: bool = False,
    only_failed: bool = False,
) -> ClearScope:
    """Return what an operator asked to clear: the tasks that match, and if asked those up- and downstream of them.

    With each work task that is cleared in a run go its relevant setups and teardowns there (S3.26). `UsageError` if nothing matches.
    """
    task_ids = set(matching_tasks(dag, task_regex))
    for task_id in sorted(task_ids):
        task = dag.task_dict[task_id]
        task_ids |= task.get_flat_relative_ids(upstream=True) if upstream else set()
        task_ids |= task.get_flat_relative_ids(upstream=False) if downstream else set()
    return ClearScope(
        dag=dag,
        start=start,
        end=end,
        task_ids=frozenset(task_ids),
        states=ENDED_BADLY if only_failed else CLEARABLE,
        companions={
            task_id: relevant_setups_and_teardowns(dag.task_dict[task_id])
            for task_id in sorted(task_ids)
            if not dag.task_dict[task_id].is_teardown
        },
        reaches_up=True,
    )


def count_clearable(tx: Tx, scope: ClearScope, heartbeat_timeout: timedelta) -> ClearCount:
    """Return what a clear would find now."""
    parts = _Search(tx, scope, heartbeat_timeout).find()
    return _counted(
        scope,
        parts,
        [(part, row.task_id, row.dag_run_id) for part in parts for row in part.rows.values() if not row.alive],
    )


def clear(tx: Tx, scope: ClearScope, heartbeat_timeout: timedelta) -> ClearCount:
    """Clear what `scope` names, but for what runs, and return how much that was.

    What runs is what gave a heartbeat within `heartbeat_timeout`; finished runs become `queued`, and an active job takes its own again.
    """
    parts = _Search(tx, scope, heartbeat_timeout).find()
    cleared = [
        (part, facts.task_id, facts.dag_run_id)
        for part in parts
        # what is needed by others comes second: their state is looked at again when they are locked
        for companions, states in ((False, scope.states), (True, CLEARABLE))
        for facts in _clear(tx, part, states, heartbeat_timeout, companions=companions)
    ]
    return _counted(scope, parts, cleared)


def _clear(
    tx: Tx, part: _Part, states: Collection[TaskInstanceState], heartbeat_timeout: timedelta, *, companions: bool
) -> list[TaskInstanceFacts]:
    rows = [row for row in part.rows.values() if not row.alive and row.companion == companions]
    return clear_task_instances(
        tx,
        sorted({row.dag_run_id for row in rows}),
        {task_id: part.dag.task_dict[task_id].retries for task_id in sorted({row.task_id for row in rows})},
        states=states,
        ti_ids=[row.id for row in rows],
        heartbeat_timeout=heartbeat_timeout,
    )


def _counted(scope: ClearScope, parts: Sequence[_Part], found: Sequence[tuple[_Part, str, int]]) -> ClearCount:
    return ClearCount(
        Counter(task_id if part.dag is scope.dag else f"{part.dag.dag_id}.{task_id}" for part, task_id, _ in found),
        len({dag_run_id for _, _, dag_run_id in found}),
        sum(row.alive for part in parts for row in part.rows.values()),
    )


@dataclass(slots=True)
class _Part:
    """What of one DAG a clear is about."""

    dag: DAG
    #: Tasks that were asked for; the others go with what of a subdag is cleared.
    task_ids: frozenset[str]
    rows: dict[int, Clearable] = field(default_factory=dict)

    def add(self, rows: Iterable[Clearable]) -> None:
        """Add task instances, unless they are among those there."""
        for row in rows:
            self.rows.setdefault(row.id, row)


class _Search:
    """Looks for what a clear is about: in the DAG that it names, its subdags, and the DAGs that it is a subdag of (S13.5)."""

    def __init__(self, tx: Tx, scope: ClearScope, heartbeat_timeout: timedelta) -> None:
        self._tx = tx
        self._scope = scope
        self._heartbeat_timeout = heartbeat_timeout
        self._parts: dict[str, _Part] = {}

    def find(self) -> list[_Part]:
        """Return what is found of each DAG."""
        self._go_down(self._scope.dag, self._scope.task_ids)
        top = self._scope.dag
        while self._scope.reaches_up and top.parent_dag is not None:
            top = top.parent_dag
        for dag in reversed(top.subdags):
            part = self._parts.get(dag.dag_id)
            dates = {row.logical_date for row in part.rows.values() if not row.alive} if part else set()
            if dates and dag.parent_dag is not None:
                self._go_up(dag, dag.parent_dag, dates)
        return list(self._parts.values())

    def _go_down(self, dag: DAG, task_ids: frozenset[str]) -> None:
        """Add what was asked for of a DAG, and all subdags whose tasks are among it."""
        scope = self._scope
        part = self._parts[dag.dag_id] = _Part(dag, task_ids)
        part.add(self._select(dag, task_ids, scope.states, scope.companions if dag is scope.dag else {}))
        for subdag in _subdags(dag, task_ids):
            self._go_down(subdag, frozenset(subdag.task_dict))

    def _go_up(self, subdag: DAG, dag: DAG, dates: Collection[datetime]) -> None:
        """Add the task that stands for a subdag at dates at which something of that is cleared.

        If it was not asked for itself, with all that is downstream of it, and the subdags there.
        """
        part = self._parts.setdefault(dag.dag_id, _Part(dag, frozenset()))
        task = next(task for task in dag.tasks if getattr(task, "subdag", None) is subdag)
        wanted = {task.task_id}
        if task.task_id not in part.task_ids:
            wanted |= task.get_flat_relative_ids(upstream=False)
        companions = {task_id: relevant_setups_and_teardowns(dag.task_dict[task_id]) for task_id in wanted}
        self._add(part, frozenset(wanted), dates, companions)
        for sibling in _subdags(dag, wanted - {task.task_id}):
            for each in (sibling, *sibling.subdags):
                further = self._parts.setdefault(each.dag_id, _Part(each, frozenset()))
                self._add(further, frozenset(each.task_dict), dates, {})

    def _add(
        self,
        part: _Part,
        task_ids: frozenset[str],
        dates: Collection[datetime],
        companions: Mapping[str, Collection[str]],
    ) -> None:
        rows = self._select(part.dag, task_ids, CLEARABLE, companions, dates)
        part.add(row._replace(companion=True) for row in rows)

    def _select(
        self,
        dag: DAG,
        task_ids: frozenset[str],
        states: Collection[TaskInstanceState],
        companions: Mapping[str, Collection[str]],
        dates: Collection[datetime] | None = None,
    ) -> list[Clearable]:
        return select_clearable(
            self._tx,
            dag.dag_id,
            self._scope.start,
            self._scope.end,
            task_ids=task_ids,
            states=states,
            companions=companions,
            companion_states=CLEARABLE,
            heartbeat_timeout=self._heartbeat_timeout,
            dates=dates,
        )


def _subdags(dag: DAG, task_ids: Collection[str]) -> list[DAG]:
    """Return the subdags that tasks of a DAG stand for."""
    found = (getattr(dag.task_dict[task_id], "subdag", None) for task_id in sorted(task_ids))
    return [subdag for subdag in found if subdag is not None]


def _number(count: int, noun: str) -> str:
    return f"1 {noun}" if count == 1 else f"{count} {noun}s"
