"""What `>>` and `<<` connect: tasks, task groups, XCom arguments and lists of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from backfill.exceptions import DagError

if TYPE_CHECKING:
    from backfill.dag.abstract_operator import AbstractOperator

OtherT = TypeVar("OtherT")


class DependencyMixin(ABC):
    """Anything that can stand on either side of `>>`.

    `roots` are the tasks that an edge into it reaches, `leaves` those that an edge out of it starts from.
    """

    @property
    @abstractmethod
    def roots(self) -> Sequence[AbstractOperator]:
        """Tasks that come first in it."""

    @property
    @abstractmethod
    def leaves(self) -> Sequence[AbstractOperator]:
        """Tasks that come last in it."""

    def set_upstream(self, other: object) -> None:
        """Make everything in `other` (a node or nested lists of nodes) come directly before this."""
        for node in nodes_of(other):
            _join(node, self)

    def set_downstream(self, other: object) -> None:
        """Make everything in `other` (a node or nested lists of nodes) come directly after this."""
        for node in nodes_of(other):
            _join(self, node)

    def preceded_by(self, tasks: Sequence[AbstractOperator]) -> None:  # noqa: B027  # most nodes need no notice
        """Take notice that `tasks` were put directly before it."""

    def followed_by(self, tasks: Sequence[AbstractOperator]) -> None:  # noqa: B027  # most nodes need no notice
        """Take notice that `tasks` were put directly after it."""

    def __rshift__(self, other: OtherT) -> OtherT:
        """`self >> other`."""
        self.set_downstream(other)
        return other

    def __lshift__(self, other: OtherT) -> OtherT:
        """`self << other`."""
        self.set_upstream(other)
        return other

    def __rrshift__(self, other: Iterable[Any]) -> DependencyMixin:
        """`[…] >> self`."""
        self.set_upstream(other)
        return self

    def __rlshift__(self, other: Iterable[Any]) -> DependencyMixin:
        """`[…] << self`."""
        self.set_downstream(other)
        return self


def _join(before: DependencyMixin, after: DependencyMixin) -> None:
    leaves, roots = before.leaves, after.roots
    connect(leaves, roots)
    before.followed_by(roots)
    after.preceded_by(leaves)


def nodes_of(value: object) -> Iterator[DependencyMixin]:
    """Yield the nodes in `value`, a node or nested lists, tuples or sets of nodes; `DagError` names anything else."""
    if isinstance(value, DependencyMixin):
        yield value
    elif isinstance(value, list | tuple | set | frozenset):
        for member in cast("Iterable[object]", value):
            yield from nodes_of(member)
    else:
        raise DagError(f"A task cannot be connected with {value!r}; `>>` takes tasks, task groups and lists of them.")


def connect(upstream: Iterable[AbstractOperator], downstream: Iterable[AbstractOperator]) -> None:
    """Draw an edge from each of `upstream` to each of `downstream`."""
    targets = list(downstream)
    for source in list(upstream):
        for target in targets:
            source.share_dag_with(target)
            source.downstream_task_ids.add(target.task_id)
            target.upstream_task_ids.add(source.task_id)
