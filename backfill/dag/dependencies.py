"""Shorthands for drawing many edges: `chain`, `cross_downstream`, and labels on edges."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from backfill.dag.node import DependencyMixin, nodes_of
from backfill.exceptions import DagError

if TYPE_CHECKING:
    from backfill.dag.abstract_operator import AbstractOperator


def chain(*nodes: object) -> None:
    """Connect each argument with the next: `chain(a, [b, c], [d, e], f)`.

    Two lists that follow each other are connected member by member and must be of the same length (`DagError`).
    """
    for before, after in pairwise(nodes):
        if isinstance(before, DependencyMixin) or isinstance(after, DependencyMixin):
            for node in nodes_of(before):
                node.set_downstream(after)
            continue
        befores, afters = list(nodes_of(before)), list(nodes_of(after))
        if len(befores) != len(afters):
            raise DagError(
                f"chain() got lists of {len(befores)} and {len(afters)} tasks after each other; make them equally long."
            )
        for node, follower in zip(befores, afters, strict=True):
            node.set_downstream(follower)


def cross_downstream(from_tasks: object, to_tasks: object) -> None:
    """Connect every task of the first list with every task of the second."""
    for node in nodes_of(from_tasks):
        node.set_downstream(to_tasks)


class Label(DependencyMixin):
    """A text on an edge: `a >> Label("if empty") >> b`. The edge is drawn as without it."""

    def __init__(self, label: str = "") -> None:
        self.label = label
        self._before: list[AbstractOperator] = []
        self._after: list[AbstractOperator] = []

    @property
    def roots(self) -> Sequence[AbstractOperator]:
        """What comes after it, since an edge into the label goes on to there."""
        return self._after

    @property
    def leaves(self) -> Sequence[AbstractOperator]:
        """What comes before it."""
        return self._before

    def preceded_by(self, tasks: Sequence[AbstractOperator]) -> None:
        """Remember what comes before the label."""
        self._before.extend(tasks)

    def followed_by(self, tasks: Sequence[AbstractOperator]) -> None:
        """Remember what comes after the label."""
        self._after.extend(tasks)
