"""Branches: operators that name the tasks to go on with (S4.8)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from backfill.dag.abstract_operator import AbstractOperator, SkipReach
from backfill.dag.arguments import Context
from backfill.dag.base_operator import BaseOperator
from backfill.exceptions import BackfillError


class BranchMixin(BaseOperator):
    """Makes the result of `execute` the choice of a branch."""

    @classmethod
    def skips_decided_with(cls, arguments: Mapping[str, Any]) -> SkipReach:  # noqa: ARG003  # the base's signature
        """Return that it decides about direct children."""
        return "children"

    def decide_skips(self, result: Any, context: Context) -> tuple[str, ...]:  # noqa: ARG002  # the base's signature
        """Return the direct children that were not named and are not downstream of a named task.

        Raises `BackfillError` naming a choice that is no task or group of the DAG.
        """
        return skipped_by_choice(self, result)


class BaseBranchOperator(BranchMixin):
    """A branch of one's own: `choose_branch` names the tasks to go on with."""

    def choose_branch(self, context: Context) -> str | Iterable[str] | None:  # noqa: ARG002  # for subclasses
        """Return the id of a task or group, several of them, or None for none."""
        raise BackfillError(f"The operator {self.operator_name} has no choose_branch(); its class must define it.")

    def execute(self, context: Context) -> Any:
        """Return the choice."""
        return as_listed(self.choose_branch(context))


def as_listed(choice: Any) -> Any:
    """Return a choice in a form that can be an XCom."""
    return (
        sorted(choice) if isinstance(choice, set | frozenset) else list(choice) if isinstance(choice, tuple) else choice
    )


def skipped_by_choice(task: AbstractOperator, choice: object) -> tuple[str, ...]:
    """Return the direct children of `task` to skip when it chose `choice`."""
    chosen = _chosen_ids(task, choice)
    kept = chosen.union(*(task.dag.task_dict[task_id].get_flat_relative_ids() for task_id in chosen))
    return tuple(sorted(task.downstream_task_ids - kept))


def _chosen_ids(task: AbstractOperator, choice: object) -> set[str]:
    """Return the task ids that a choice stands for; a group stands for its roots."""
    names = [] if choice is None else [choice] if isinstance(choice, str) else choice
    if not isinstance(names, list | tuple | set | frozenset):
        raise BackfillError(
            f"The branch {task.task_id!r} chose {choice!r}; it takes a task id, a list of them or None."
        )
    chosen: set[str] = set()
    for name in names:
        if name in task.dag.task_groups:
            chosen.update(root.task_id for root in task.dag.task_groups[name].roots)
        elif name in task.dag.task_dict:
            chosen.add(name)
        else:
            raise BackfillError(
                f"The branch {task.task_id!r} chose {name!r}, which is no task or group of the DAG {task.dag_id!r}; "
                f"after it come {', '.join(sorted(task.downstream_task_ids)) or 'no tasks'}."
            )
    return chosen


def skipped_downstream(task: AbstractOperator, *, everything: bool) -> tuple[str, ...]:
    """Return the direct children of `task`, or `everything` downstream of it, without teardowns."""
    task_ids = task.get_flat_relative_ids() if everything else task.downstream_task_ids
    return tuple(sorted(task_id for task_id in task_ids if not task.dag.task_dict[task_id].is_teardown))
