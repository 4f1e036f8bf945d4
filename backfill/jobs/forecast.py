"""Which limits will bind, and how long it may take: numbers of a plan against the limits of S5 and the history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from backfill.engine.graph import Graph
from backfill.jobs.rehearsal import Rehearsed
from backfill.store.pools import UNLIMITED, Pool


class LimitRow(NamedTuple):
    """One limit against what the plan would take of it if there were no limits on task instances."""

    limit: str
    #: The DAG, task or pool that it holds for.
    of: str
    value: int
    #: What others take of it now.
    in_use: int
    wanted: int

    @property
    def binds(self) -> bool:
        """Whether it will hold something back."""
        return self.wanted > self.value - self.in_use

    def to_json(self) -> dict[str, object]:
        """Return the row as a plan's JSON has it."""
        return {**self._asdict(), "binds": self.binds}


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long the plan takes, by the medians of what ran before."""

    #: None: there is no history.
    seconds: float | None
    #: The limit that decides it.
    by: str | None
    #: Tasks that are counted as taking no time, since they never succeeded before.
    without_history: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The limits of one job, and what others take of them now."""

    max_active_runs: int
    foreign_runs: int
    #: `core.parallelism`, and the processes of this command's workers; None: no limit that is known.
    parallelism: int | None
    workers: int | None
    pools: Mapping[str, Pool]
    #: What of the DAG is in flight now, by task.
    in_flight: Counter[str]


def limits(graph: Graph, runs: Sequence[Rehearsed], capacity: Capacity) -> list[LimitRow]:
    """Return the limits of a job against the numbers of its `runs`."""
    at_once = min(len(runs), capacity.max_active_runs)
    peak = max((sum(lap.values()) for run in runs for lap in run.rounds), default=0) * at_once
    rows = [LimitRow("max_active_runs", graph.dag_id, capacity.max_active_runs, capacity.foreign_runs, len(runs))]
    if graph.max_active_tasks is not None:
        rows.append(
            LimitRow("max_active_tasks", graph.dag_id, graph.max_active_tasks, capacity.in_flight.total(), peak)
        )
    if capacity.parallelism:
        rows.append(LimitRow("core.parallelism", "coordinator", capacity.parallelism, 0, peak))
    if capacity.workers:
        rows.append(LimitRow("--workers", "this command", capacity.workers, 0, peak))
    return [*rows, *_pools(graph, runs, capacity, at_once), *_tasks(graph, runs, capacity, at_once)]


def together(parts: Sequence[Sequence[LimitRow]]) -> tuple[LimitRow, ...]:
    """Return the limits of a DAG and its subdags as one list; of what they share they want as much as all of them together."""
    rows: dict[tuple[str, str], LimitRow] = {}
    for row in (row for part in parts for row in part):
        known = rows.get((row.limit, row.of))
        rows[row.limit, row.of] = row if known is None else known._replace(wanted=known.wanted + row.wanted)
    return tuple(rows.values())


def longest(estimates: Sequence[Estimate]) -> Estimate:
    """Return the longest of the estimates for a DAG and its subdags: each is what it takes at least."""
    without = tuple(dict.fromkeys(task_id for each in estimates for task_id in each.without_history))
    known = [(each.seconds, each.by) for each in estimates if each.seconds]
    if known:
        seconds, by = max(known, key=lambda found: found[0])
        return Estimate(seconds, by, without)
    return Estimate(None if any(each.seconds is None for each in estimates) else 0.0, None, without)


def _pools(graph: Graph, runs: Sequence[Rehearsed], capacity: Capacity, at_once: int) -> Iterator[LimitRow]:
    for name in graph.pools:
        pool = capacity.pools[name]
        if pool.slots != UNLIMITED:
            slots = max((_slots(graph, lap, name) for run in runs for lap in run.rounds), default=0)
            yield LimitRow("pool", name, pool.slots, pool.queued_slots + pool.running_slots, int(slots) * at_once)


def _slots(graph: Graph, numbers: Mapping[str, float], pool: str) -> float:
    return sum(
        number * spec.pool_slots
        for task_id, number in numbers.items()
        for spec in (graph.spec(task_id),)
        if spec.pool == pool
    )


def _tasks(graph: Graph, runs: Sequence[Rehearsed], capacity: Capacity, at_once: int) -> Iterator[LimitRow]:
    for spec in graph.tasks:
        most = max((lap[spec.task_id] for run in runs for lap in run.rounds), default=0)
        if spec.max_active_tis_per_dag is not None:
            in_use = capacity.in_flight[spec.task_id]
            yield LimitRow("max_active_tis_per_dag", spec.task_id, spec.max_active_tis_per_dag, in_use, most * at_once)
        if spec.max_active_tis_per_dagrun is not None:
            yield LimitRow("max_active_tis_per_dagrun", spec.task_id, spec.max_active_tis_per_dagrun, 0, most)


def estimate(graph: Graph, runs: Sequence[Rehearsed], capacity: Capacity, medians: Mapping[str, float]) -> Estimate:
    """Return how long `runs` take if each task takes its median: the longest of what each limit alone makes of it."""
    numbers: Counter[str] = Counter()
    for run in runs:
        for lap in run.rounds:
            numbers.update(lap)
    if not numbers:
        return Estimate(0.0, None, ())
    without = tuple(task_id for task_id in graph.task_ids if numbers[task_id] and task_id not in medians)
    if not any(task_id in medians for task_id in numbers):
        return Estimate(None, None, without)
    work = {task_id: number * medians.get(task_id, 0.0) for task_id, number in numbers.items()}
    seconds, by = max(_bounds(graph, runs, capacity, medians, work))
    return Estimate(seconds, by, without)


def _bounds(
    graph: Graph,
    runs: Sequence[Rehearsed],
    capacity: Capacity,
    medians: Mapping[str, float],
    work: Mapping[str, float],
) -> Iterator[tuple[float, str]]:
    """Yield what each limit alone makes of the work, in seconds, and its name."""
    at_once = max(1, min(len(runs), capacity.max_active_runs))
    lengths = [_longest_path(graph, run, medians) for run in runs]
    yield max(lengths), "the longest run"
    yield sum(lengths) / at_once, "max_active_runs"
    total = sum(work.values())
    shared = {
        "max_active_tasks": graph.max_active_tasks,
        "core.parallelism": capacity.parallelism,
        "--workers": capacity.workers,
    }
    yield from ((total / value, name) for name, value in shared.items() if value)
    for name in graph.pools:
        if capacity.pools[name].slots > 0:
            yield _slots(graph, work, name) / capacity.pools[name].slots, f"pool {name}"
    for spec in graph.tasks:
        own = work.get(spec.task_id, 0.0)
        if spec.max_active_tis_per_dag:
            yield own / spec.max_active_tis_per_dag, f"max_active_tis_per_dag of {spec.task_id}"
        if spec.max_active_tis_per_dagrun:
            yield own / spec.max_active_tis_per_dagrun / at_once, f"max_active_tis_per_dagrun of {spec.task_id}"
        if spec.past:
            alone = sum(any(lap[spec.task_id] for lap in run.rounds) for run in runs)
            yield alone * medians.get(spec.task_id, 0.0), f"depends_on_past of {spec.task_id}"


def longest_run(graph: Graph, runs: Sequence[Rehearsed], medians: Mapping[str, float]) -> float:
    """Return the seconds of the longest of `runs`, if each task takes its median."""
    return max((_longest_path(graph, run, medians) for run in runs), default=0.0)


def _longest_path(graph: Graph, run: Rehearsed, medians: Mapping[str, float]) -> float:
    """Return the seconds of the longest chain of tasks of one run."""
    runs = {task_id for lap in run.rounds for task_id in lap} | run.subdags
    ends: list[float] = []
    for spec in graph.tasks:  # in topological order
        begins = max((ends[up] for up in spec.upstream), default=0.0)
        ends.append(begins + (medians.get(spec.task_id, 0.0) if spec.task_id in runs else 0.0))
    return max(ends, default=0.0)
