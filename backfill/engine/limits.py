"""Limits on what is in flight at once (S5, S5.2)."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final, Protocol

from backfill.engine.graph import Graph, TaskSpec

#: Slots of a pool that has no limit, and of one that is closed.
UNLIMITED_POOL: Final = -1
CLOSED_POOL: Final = 0
#: Room where nothing limits.
PLENTY: Final = sys.maxsize


class Limit(Enum):
    """What may hold back a ready task instance; the value is its name for people."""

    PARALLELISM = "core.parallelism"
    MAX_ACTIVE_TASKS = "max_active_tasks"
    POOL = "pool"
    MAX_ACTIVE_TIS_PER_DAG = "max_active_tis_per_dag"
    MAX_ACTIVE_TIS_PER_DAGRUN = "max_active_tis_per_dagrun"


class OccupancyRow(Protocol):
    """How many task instances of one task in one run are in flight in one pool, and the slots that they take."""

    @property
    def pool(self) -> str:
        """The pool that they are in."""

    @property
    def dag_id(self) -> str:
        """Their DAG."""

    @property
    def task_id(self) -> str:
        """Their task."""

    @property
    def dag_run_id(self) -> int:
        """Their run."""

    @property
    def count(self) -> int:
        """How many they are."""

    @property
    def slots(self) -> int:
        """The sum of their `pool_slots`."""


class Occupancy:
    """What is in flight, counted for each limit; `take` adds to it.

    `pool_sizes` has the slots of every pool that exists, of those that matter; `rows` is what is in flight in these pools
    or in the DAG, whoever runs it.
    """

    __slots__ = ("by_dag", "by_pool", "by_run", "by_task", "pool_sizes")

    def __init__(self, rows: Iterable[OccupancyRow] = (), *, pool_sizes: Mapping[str, int]) -> None:
        self.pool_sizes = dict(pool_sizes)
        #: Slots by pool; task instances by DAG, by DAG and task, by run and task.
        self.by_pool: Counter[str] = Counter()
        self.by_dag: Counter[str] = Counter()
        self.by_task: Counter[tuple[str, str]] = Counter()
        self.by_run: Counter[tuple[int, str]] = Counter()
        for row in rows:
            self.by_pool[row.pool] += row.slots
            self.by_dag[row.dag_id] += row.count
            self.by_task[row.dag_id, row.task_id] += row.count
            self.by_run[row.dag_run_id, row.task_id] += row.count

    def take(self, graph: Graph, spec: TaskSpec, dag_run_id: int, count: int) -> None:
        """Count `count` more task instances of a task, wherever it has a limit."""
        self.by_dag[graph.dag_id] += count
        self.by_pool[spec.pool] += count * spec.pool_slots
        if spec.max_active_tis_per_dag is not None:
            self.by_task[graph.dag_id, spec.task_id] += count
        if spec.max_active_tis_per_dagrun is not None:
            self.by_run[dag_run_id, spec.task_id] += count


def room(graph: Graph, spec: TaskSpec, dag_run_id: int, occupancy: Occupancy) -> int:
    """Return how many more task instances of a task may go in one run: each of its limits must have room (S5.2)."""
    left = min(dag_room(graph, occupancy), pool_room(spec, occupancy))
    if spec.max_active_tis_per_dag is not None:
        left = min(left, task_room(graph, spec, occupancy))
    if spec.max_active_tis_per_dagrun is not None:
        left = min(left, run_room(spec, dag_run_id, occupancy))
    return max(0, left)


def full_limits(graph: Graph, spec: TaskSpec, dag_run_id: int, occupancy: Occupancy) -> list[Limit]:
    """Return the limits of a task in one run that have no room for another of its task instances."""
    rooms = {
        Limit.MAX_ACTIVE_TASKS: dag_room(graph, occupancy),
        Limit.POOL: pool_room(spec, occupancy),
        Limit.MAX_ACTIVE_TIS_PER_DAG: task_room(graph, spec, occupancy),
        Limit.MAX_ACTIVE_TIS_PER_DAGRUN: run_room(spec, dag_run_id, occupancy),
    }
    return [limit for limit, left in rooms.items() if left <= 0]


def dag_room(graph: Graph, occupancy: Occupancy) -> int:
    """Return how many more task instances `max_active_tasks` allows."""
    limit = graph.max_active_tasks
    return PLENTY if limit is None else limit - occupancy.by_dag[graph.dag_id]


def pool_room(spec: TaskSpec, occupancy: Occupancy) -> int:
    """Return how many more task instances of a task its pool takes, each with its full `pool_slots`."""
    size = occupancy.pool_sizes.get(spec.pool, CLOSED_POOL)
    return PLENTY if size == UNLIMITED_POOL else (size - occupancy.by_pool[spec.pool]) // spec.pool_slots


def task_room(graph: Graph, spec: TaskSpec, occupancy: Occupancy) -> int:
    """Return how many more task instances of a task `max_active_tis_per_dag` allows."""
    limit = spec.max_active_tis_per_dag
    return PLENTY if limit is None else limit - occupancy.by_task[graph.dag_id, spec.task_id]


def run_room(spec: TaskSpec, dag_run_id: int, occupancy: Occupancy) -> int:
    """Return how many more task instances of a task `max_active_tis_per_dagrun` allows in one run."""
    limit = spec.max_active_tis_per_dagrun
    return PLENTY if limit is None else limit - occupancy.by_run[dag_run_id, spec.task_id]


def pool_never_suffices(spec: TaskSpec, pool_sizes: Mapping[str, int]) -> bool:
    """Return whether a task's pool does not exist, or is open but too small for it (S9.3 c)."""
    size = pool_sizes.get(spec.pool)
    return size is None or CLOSED_POOL < size < spec.pool_slots
