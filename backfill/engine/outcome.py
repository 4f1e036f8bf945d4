"""How a run ends (S2.14, S2.15, S13.7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from backfill.engine.codes import CODES, REMOVED, SUCCESS, ended_badly
from backfill.engine.run import RunState
from backfill.states import DagRunState


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """The end of a run, with the reason that its callback is told."""

    dag_run_id: int
    state: DagRunState
    reason: str


def outcome(run: RunState) -> RunOutcome:
    """Return how a run without unfinished task instances ended."""
    if any(map(ended_badly, _judged(run))):
        return RunOutcome(run.facts.id, DagRunState.FAILED, "task_failure")
    return RunOutcome(run.facts.id, DagRunState.SUCCESS, "success")


def _judged(run: RunState) -> Iterator[int]:
    """Yield the codes by which the run is judged.

    A subset of the DAG is judged over the whole DAG, if the other tasks have task instances and these are finished.
    """
    graph = run.graph
    leaves = graph.leaves
    others: dict[str, list[int]] = {}
    for task_id, word in run.bystanders.values():
        if CODES[word] != REMOVED:
            others.setdefault(task_id, []).append(CODES[word])
    if graph.others and others.keys() == graph.others and min(map(min, others.values())) >= SUCCESS:
        leaves = tuple(graph.index[task_id] for task_id in graph.leaves_of_all if task_id in graph.index)
        for task_id in graph.leaves_of_all & others.keys():
            yield from others[task_id]
    for leaf in leaves:
        yield from run.states_of(leaf)
