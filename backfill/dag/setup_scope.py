"""`with setup_task:` and `with teardown_task:`: what is made inside comes after the setups and before the teardowns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backfill.dag import scope
from backfill.dag.node import connect, nodes_of
from backfill.exceptions import DagError

if TYPE_CHECKING:
    from backfill.dag.abstract_operator import AbstractOperator


class SetupScope:
    """The tasks made inside of one `with` of a setup or teardown task."""

    def __init__(self, setups: list[AbstractOperator], teardowns: list[AbstractOperator]) -> None:
        self.setups = setups
        self.teardowns = teardowns
        self.tasks: list[AbstractOperator] = []

    @classmethod
    def of(cls, task: AbstractOperator) -> SetupScope:
        """Return the scope of a setup and its teardowns, or of a teardown and its setups; `DagError` for other tasks."""
        if task.is_teardown:
            opened = cls([setup for setup in task.upstream_list if setup.is_setup], [task])
        elif task.is_setup:
            opened = cls([task], [teardown for teardown in task.downstream_list if teardown.is_teardown])
        else:
            raise DagError(
                f"The task {task.task_id!r} is neither setup nor teardown, so that `with` cannot be used on it."
            )
        for member in (*opened.setups, *opened.teardowns):
            scope.note_task(member)
        return opened

    def add_task(self, task: object) -> None:
        """Let a task (or its output, or a list of tasks) that was made elsewhere belong to the scope too."""
        for node in nodes_of(task):
            self.tasks.extend(operator for operator in node.leaves if operator not in self.tasks)

    def connect(self) -> None:
        """Draw the edges: setups to the first tasks of the scope, its last tasks to the teardowns."""
        edge = (*self.setups, *self.teardowns)
        inner = [task for task in self.tasks if task not in edge]
        ids = {task.task_id for task in inner}
        firsts = [task for task in inner if not task.is_teardown and task.upstream_task_ids.isdisjoint(ids)]
        lasts = [task for task in inner if not task.is_setup and task.downstream_task_ids.isdisjoint(ids)]
        connect(self.setups, firsts)
        connect(lasts, self.teardowns)
