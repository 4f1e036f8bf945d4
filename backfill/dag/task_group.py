"""Task groups: a name for several tasks, which edges and branches can use as if they were one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from backfill.dag import scope
from backfill.dag.abstract_operator import AbstractOperator
from backfill.dag.arguments import check_group_id
from backfill.dag.node import DependencyMixin, connect
from backfill.exceptions import DagError

if TYPE_CHECKING:
    from backfill.dag.dag import DAG
    from backfill.dag.expand_input import ExpandInput


class TaskGroup(DependencyMixin):
    """Tasks and groups made inside of `with TaskGroup("name"):` belong together.

    Their ids start with the group's id and a dot unless `prefix_group_id` is false. `default_args` go over the DAG's.
    Raises `DagError` if the id is taken, unless `add_suffix_on_collision`.
    """

    def __init__(  # the order that users of Airflow know
        self,
        group_id: str | None,
        prefix_group_id: bool = True,
        parent_group: TaskGroup | None = None,
        dag: DAG | None = None,
        default_args: dict[str, Any] | None = None,
        tooltip: str = "",
        add_suffix_on_collision: bool = False,
    ) -> None:
        self.parent_group = parent_group if group_id is None else parent_group or _open_group(dag, group_id)
        self._dag = dag if self.parent_group is None else self.parent_group.dag
        self.prefix_group_id = prefix_group_id
        self.default_args = dict(default_args or {})
        self.tooltip = tooltip
        self.children: dict[str, AbstractOperator | TaskGroup] = {}
        self.group_id = "" if group_id is None else self._own_id(check_group_id(group_id), add_suffix_on_collision)
        if self.parent_group is not None:
            self.parent_group.children[self.group_id] = self
            self.dag.task_groups[self.group_id] = self

    def _own_id(self, group_id: str, add_suffix: bool) -> str:
        assert self.parent_group is not None
        own = self.parent_group.child_id(group_id)
        if add_suffix:
            return self.dag.free_id(own)
        self.dag.refuse_taken(own, "task group")
        return own

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.group_id}>"

    def __enter__(self) -> Self:
        """Let tasks and groups made from now on belong to this one."""
        scope.open_group(self)
        return self

    def __exit__(
        self, error: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End what `__enter__` began."""
        scope.close_group()

    @property
    def dag(self) -> DAG:
        """The DAG that the group belongs to."""
        assert self._dag is not None
        return self._dag

    @property
    def prefix(self) -> str:
        """What the ids of its children start with; nothing at all without `prefix_group_id`, in whatever groups it is itself."""
        return f"{self.group_id}." if self.group_id and self.prefix_group_id else ""

    def child_id(self, label: str) -> str:
        """Return the id of a task or group named `label` in this group."""
        return f"{self.prefix}{label}"

    @property
    def inherited_default_args(self) -> dict[str, Any]:
        """Its default_args over those of the groups around it."""
        outer = self.parent_group.inherited_default_args if self.parent_group is not None else {}
        return {**outer, **self.default_args}

    @property
    def mapped_groups(self) -> tuple[MappedTaskGroup, ...]:
        """The mapped groups around it and itself if it is one, outermost first."""
        return () if self.parent_group is None else self.parent_group.mapped_groups

    def add(self, task: AbstractOperator) -> None:
        """Make `task` a member."""
        self.children[task.task_id] = task

    def __iter__(self) -> Iterator[AbstractOperator]:
        """Iterate over the tasks in it and in the groups in it, in the order of definition."""
        for child in self.children.values():
            if isinstance(child, TaskGroup):
                yield from child
            else:
                yield child

    def has_task(self, task: AbstractOperator) -> bool:
        """Tell if the task is in it or in a group in it."""
        return any(task is member for member in self)

    @property
    def roots(self) -> Sequence[AbstractOperator]:
        """The tasks that no other task of the group comes before."""
        tasks = list(self)
        ids = {task.task_id for task in tasks}
        return [task for task in tasks if task.upstream_task_ids.isdisjoint(ids)]

    @property
    def leaves(self) -> Sequence[AbstractOperator]:
        """The tasks that no other task of the group comes after; in place of a teardown, what comes before it."""
        members = {task.task_id: task for task in self}
        found: dict[str, AbstractOperator] = {}
        for task in members.values():
            if task.downstream_task_ids.isdisjoint(members):
                found.update((leaf.task_id, leaf) for leaf in _without_teardown(task, members))
        return list(found.values())


def _open_group(dag: DAG | None, group_id: str) -> TaskGroup:
    """Return the group that a new group belongs to; `DagError` if there is neither a group nor a DAG open."""
    group = scope.current_group()
    if group is not None and (dag is None or group.dag is dag):
        return group
    if dag is None:
        raise DagError(f"The task group {group_id!r} belongs to no DAG; make it inside of `with DAG(…)` or pass dag=…")
    return dag.task_group


def _without_teardown(task: AbstractOperator, members: dict[str, AbstractOperator]) -> Iterator[AbstractOperator]:
    """Yield the task, or if it is a teardown the last tasks before it that are neither teardown nor its setup."""
    if not task.is_teardown:
        yield task
        return
    for task_id in sorted(task.upstream_task_ids & members.keys()):
        if not members[task_id].is_setup:
            yield from _without_teardown(members[task_id], members)


class MappedTaskGroup(TaskGroup):
    """A group that runs once for each element of `expand_input`."""

    def __init__(self, group_id: str, *, expand_input: ExpandInput, **arguments: Any) -> None:
        super().__init__(group_id, **arguments)
        self.expand_input = expand_input
        around = set(super().mapped_groups)
        inner = next((source for source in expand_input.operators() if around.intersection(source.mapped_groups)), None)
        if inner is not None:
            raise DagError(
                f"The task group {self.group_id!r} is mapped over {inner.task_id!r}, which is in the same mapped group; "
                "its length must not differ between the indexes of that group."
            )

    @property
    def mapped_groups(self) -> tuple[MappedTaskGroup, ...]:
        """The mapped groups around it and itself, outermost first."""
        return (*super().mapped_groups, self)

    def __exit__(
        self, error: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Close the group; its first tasks come after those that it is mapped over."""
        super().__exit__(error, _value, _trace)
        connect(self.expand_input.operators(), self.roots)
