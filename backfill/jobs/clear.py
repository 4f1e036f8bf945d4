"""A range of task instances goes back to the initial state (S3.26): which ones, and how many of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from backfill.dag import DAG
from backfill.dag.subset import matching_tasks, relevant_setups_and_teardowns
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


@dataclass(frozen=True, slots=True)
class ClearCount:
    """How much a clear is about, or has done."""

    #: Task instances by task id.
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
    )


def count_clearable(tx: Tx, scope: ClearScope, heartbeat_timeout: timedelta) -> ClearCount:
    """Return what a clear would find now."""
    found = _find(tx, scope, heartbeat_timeout)
    idle = [row for row in found if not row.alive]
    return ClearCount(
        Counter(row.task_id for row in idle), len({row.dag_run_id for row in idle}), len(found) - len(idle)
    )


def clear(tx: Tx, scope: ClearScope, heartbeat_timeout: timedelta) -> ClearCount:
    """Clear what `scope` names, but for what runs, and return how much that was.

    What runs is what gave a heartbeat within `heartbeat_timeout`; finished runs become `queued`, and an active job takes its own again.
    """
    found = _find(tx, scope, heartbeat_timeout)
    idle = [row for row in found if not row.alive]
    cleared = [
        facts
        # what is needed by others comes second: their state is looked at again when they are locked
        for rows, states in (
            ([row for row in idle if not row.companion], scope.states),
            ([row for row in idle if row.companion], CLEARABLE),
        )
        for facts in clear_task_instances(
            tx,
            sorted({row.dag_run_id for row in rows}),
            _retries(scope.dag, rows),
            states=states,
            ti_ids=[row.id for row in rows],
            heartbeat_timeout=heartbeat_timeout,
        )
    ]
    return ClearCount(
        Counter(facts.task_id for facts in cleared),
        len({facts.dag_run_id for facts in cleared}),
        len(found) - len(idle),
    )


def _find(tx: Tx, scope: ClearScope, heartbeat_timeout: timedelta) -> list[Clearable]:
    return select_clearable(
        tx,
        scope.dag.dag_id,
        scope.start,
        scope.end,
        task_ids=scope.task_ids,
        states=scope.states,
        companions=scope.companions,
        companion_states=CLEARABLE,
        heartbeat_timeout=heartbeat_timeout,
    )


def _retries(dag: DAG, rows: Sequence[Clearable]) -> dict[str, int]:
    return {task_id: dag.task_dict[task_id].retries for task_id in sorted({row.task_id for row in rows})}


def _number(count: int, noun: str) -> str:
    return f"1 {noun}" if count == 1 else f"{count} {noun}s"
