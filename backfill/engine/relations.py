"""Relations between tasks that follow from the edges: who is upstream of whom, weights, skips, setups, leaves.

Tasks are numbers in topological order. Sets of tasks are whole numbers whose bit i stands for task i, so that the
transitive closure of a graph costs one `|` per edge.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from backfill.dag.abstract_operator import AbstractOperator
from backfill.states import TriggerRule, WeightRule

Edges = Sequence[Sequence[int]]


class Relations(NamedTuple):
    """The edges among the chosen tasks and their closure."""

    tasks: Sequence[AbstractOperator]
    up: Edges
    down: Edges
    #: Bit sets: all tasks upstream, all tasks downstream.
    ancestors: Sequence[int]
    descendants: Sequence[int]


def relate(tasks: Sequence[AbstractOperator]) -> Relations:
    """Return the relations among `tasks`, which stand in topological order; edges to other tasks are cut (S13.6)."""
    index = {task.task_id: i for i, task in enumerate(tasks)}
    up = [sorted(index[name] for name in task.upstream_task_ids if name in index) for task in tasks]
    down = [sorted(index[name] for name in task.downstream_task_ids if name in index) for task in tasks]
    return Relations(tasks, up, down, _closure(up), _closure(down, backwards=True))


def _closure(edges: Edges, *, backwards: bool = False) -> list[int]:
    reached = [0] * len(edges)
    numbers = range(len(edges))
    for task in reversed(numbers) if backwards else numbers:
        mask = 0
        for other in edges[task]:
            mask |= reached[other] | 1 << other
        reached[task] = mask
    return reached


def bits(tasks: Iterable[int]) -> int:
    """Return the bit set of `tasks`."""
    mask = 0
    for task in tasks:
        mask |= 1 << task
    return mask


def members(mask: int) -> Iterator[int]:
    """Yield the tasks of a bit set in topological order."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def effective_weights(relations: Relations) -> list[int]:
    """Return each task's weight in the order of dispatch, by its `weight_rule` over the chosen tasks (S5.5)."""
    by_weight: Mapping[int, int] = _tasks_by_weight(relations.tasks)
    weights = []
    for i, task in enumerate(relations.tasks):
        match WeightRule(task.weight_rule):
            case WeightRule.DOWNSTREAM:
                counted = relations.descendants[i]
            case WeightRule.UPSTREAM:
                counted = relations.ancestors[i]
            case WeightRule.ABSOLUTE:
                counted = 0
        others = sum(weight * (mask & counted).bit_count() for weight, mask in by_weight.items())
        weights.append(task.priority_weight + others)
    return weights


def _tasks_by_weight(tasks: Sequence[AbstractOperator]) -> dict[int, int]:
    masks: dict[int, int] = defaultdict(int)
    for i, task in enumerate(tasks):
        masks[task.priority_weight] |= 1 << i
    return masks


def skip_deciders(relations: Relations) -> list[tuple[int, ...]]:
    """Return for each task those that may decide to skip it (S4.8).

    Direct parents that branch, short-circuit or pass skips on, and short circuits anywhere upstream that ignore rules;
    the latter leave teardowns alone.
    """
    whole_branch = bits(i for i, task in enumerate(relations.tasks) if task.decides_skips == "downstream")
    children = bits(i for i, task in enumerate(relations.tasks) if task.decides_skips == "children")
    return [
        tuple(
            members(
                (bits(relations.up[i]) & children) | (0 if task.is_teardown else relations.ancestors[i] & whole_branch)
            )
        )
        for i, task in enumerate(relations.tasks)
    ]


def indirect_setups(relations: Relations) -> list[tuple[int, ...]]:
    """Return for each task the relevant setups upstream of it that are not its direct parents (S4.6).

    A setup is relevant if one of its teardowns comes after the task, or if it has none. Teardowns and `always` have none.
    """
    setups = bits(i for i, task in enumerate(relations.tasks) if task.is_setup)
    teardowns = bits(i for i, task in enumerate(relations.tasks) if task.is_teardown)

    def relevant(task: int) -> Iterator[int]:
        for setup in members(relations.ancestors[task] & setups & ~bits(relations.up[task])):
            its_teardowns = bits(relations.down[setup]) & teardowns
            if not its_teardowns or its_teardowns & relations.descendants[task]:
                yield setup

    return [
        () if task.is_teardown or task.trigger_rule == TriggerRule.ALWAYS or not setups else tuple(relevant(i))
        for i, task in enumerate(relations.tasks)
    ]


def effective_leaves(relations: Relations) -> tuple[int, ...]:
    """Return the tasks by whose end a run is judged (S2.14)."""
    ignorable = {i for i, task in enumerate(relations.tasks) if task.is_teardown and not task.on_failure_fail_dagrun}
    plain = range(len(relations.tasks))
    leaves = tuple(i for i in plain if i not in ignorable and ignorable.issuperset(relations.down[i]))
    return leaves or tuple(i for i in plain if not relations.down[i])
