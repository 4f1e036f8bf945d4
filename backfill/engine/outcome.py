"""How a run ends (S2.14, S2.15, S13.7)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
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
    #: Whether `failed` is a failure of the job; it is not if only tasks that were not chosen ended badly (S13.7).
    counts: bool = True


def outcome(run: RunState) -> RunOutcome:
    """Return how a run without unfinished task instances ended."""
    graph = run.graph
    others = _finished_others(run)
    chosen_failed = _any_ended_badly(run, graph.leaves)
    if others is None:
        failed = chosen_failed
    else:
        leaves = [graph.index[task_id] for task_id in graph.leaves_of_all if task_id in graph.index]
        others_failed = any(ended_badly(code) for task_id in graph.leaves_of_all for code in others.get(task_id, ()))
        failed = others_failed or _any_ended_badly(run, leaves)
    if failed:
        return RunOutcome(run.facts.id, DagRunState.FAILED, "task_failure", counts=chosen_failed)
    return RunOutcome(run.facts.id, DagRunState.SUCCESS, "success")


def _any_ended_badly(run: RunState, tasks: Iterable[int]) -> bool:
    return any(ended_badly(code) for task in tasks for code in run.states_of(task))


def _finished_others(run: RunState) -> dict[str, list[int]] | None:
    """Return how the tasks ended that were not chosen, if all of them have task instances and these are finished.

    Then the run is judged over the whole DAG, else over the chosen tasks (S13.7).
    """
    others: dict[str, list[int]] = defaultdict(list)
    for task_id, word in run.bystanders.values():
        if CODES[word] != REMOVED:
            others[task_id].append(CODES[word])
    is_complete = others.keys() == run.graph.others and all(min(codes) >= SUCCESS for codes in others.values())
    return others if run.graph.others and is_complete else None
