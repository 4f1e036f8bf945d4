"""Choosing some of a DAG's tasks: `-t` and `-i` (S13.6)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from backfill.dag.matching import matching
from backfill.exceptions import NoTaskMatches

if TYPE_CHECKING:
    from backfill.dag.abstract_operator import AbstractOperator
    from backfill.dag.dag import DAG


def chosen_tasks(dag: DAG, task_regex: str | None, ignore_dependencies: bool) -> frozenset[str]:
    """Return the ids of the tasks whose id has a match of `task_regex` (all without one), with what belongs to them.

    That is all their upstream tasks and the teardowns of chosen setups; with `ignore_dependencies` their relevant setups
    and teardowns only. Raises `UsageError` if nothing matches or the regex cannot be read.
    """
    matches = matching_tasks(dag, task_regex)
    if task_regex is None:
        return matches
    if ignore_dependencies:
        return frozenset(matches.union(*(relevant_setups_and_teardowns(dag.task_dict[task_id]) for task_id in matches)))
    chosen = matches.union(*(dag.task_dict[task_id].get_flat_relative_ids(upstream=True) for task_id in matches))
    return frozenset(chosen.union(*(teardowns_of(dag.task_dict[task_id]) for task_id in chosen)))


def matching_tasks(dag: DAG, task_regex: str | None) -> frozenset[str]:
    """Return the ids of the tasks whose id has a match of `task_regex`, all without one, and nothing that belongs to them.

    Raises `UsageError` if nothing matches or the regex cannot be read.
    """
    if task_regex is None:
        return frozenset(dag.task_dict)
    matches = frozenset(matching(task_regex, dag.task_dict))
    if not matches:
        raise NoTaskMatches(
            f"No task of the DAG {dag.dag_id!r} matches {task_regex!r}; its tasks are {_some(dag.task_dict)}."
        )
    return matches


def _some(task_ids: Iterable[str], most: int = 8) -> str:
    names = list(task_ids)
    return ", ".join(names[:most]) + (f" and {len(names) - most} others" if len(names) > most else "")


def teardowns_of(task: AbstractOperator) -> set[str]:
    """Return the ids of the teardowns of a setup; of no other task."""
    return {child.task_id for child in task.downstream_list if child.is_teardown} if task.is_setup else set()


def relevant_setups(task: AbstractOperator) -> Iterator[AbstractOperator]:
    """Yield the upstream setups that have a teardown downstream of `task`, or no teardown (S4.6)."""
    downstream = task.get_flat_relative_ids(upstream=False)
    for task_id in sorted(task.get_flat_relative_ids(upstream=True)):
        setup = task.dag.task_dict[task_id]
        teardowns = teardowns_of(setup)
        if setup.is_setup and (not teardowns or teardowns & downstream):
            yield setup


def relevant_setups_and_teardowns(task: AbstractOperator) -> set[str]:
    """Return the ids of the relevant setups of `task` and of their teardowns, and of its own if it is a setup itself."""
    found = teardowns_of(task)
    for setup in relevant_setups(task):
        found |= {setup.task_id} | teardowns_of(setup)
    return found
