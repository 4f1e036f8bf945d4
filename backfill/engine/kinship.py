"""Which task instances of one task belong to which of another, if both are in the same mapped group (S4.5)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, takewhile
from math import prod
from typing import NamedTuple

from backfill.dag.abstract_operator import AbstractOperator
from backfill.dag.expand_input import ExpandInput


class Kinship(NamedTuple):
    """Two tasks with a common mapped group: how many indexes of each one index of that group has.

    None: known only in a run, since an inner group is mapped over what a task returns. Then `gauge`, a task of that
    group of which one index of the group has `width` indexes, tells how many indexes the group has.
    """

    own: int | None
    other: int | None
    gauge: int
    width: int

    def turned(self) -> Kinship:
        """Return the same as seen from the other task."""
        return self._replace(own=self.other, other=self.own)


def kinship(tasks: Sequence[AbstractOperator], one: int, other: int) -> Kinship | None:
    """Return how the indexes of two tasks go together; None if all of the one are relevant to all of the other."""
    groups = _group_ids(tasks[one])
    pairs = zip(groups, _group_ids(tasks[other]), strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    if not common:
        return None
    members = (i for i, task in enumerate(tasks) if _group_ids(task)[:common] == groups[:common])
    widths = ((i, _width(tasks[i], common)) for i in chain((one, other), members))
    gauge = next(((i, width) for i, width in widths if width is not None), None)
    return gauge and Kinship(_width(tasks[one], common), _width(tasks[other], common), *gauge)


def _group_ids(task: AbstractOperator) -> list[str]:
    return [group.group_id for group in task.mapped_groups]


def _width(task: AbstractOperator, depth: int) -> int | None:
    """Return how many indexes of `task` one index of its group at `depth` has."""
    lengths = [mapping.literal_length() for mapping in mappings(task)[depth:]]
    return None if None in lengths else max(1, prod(length for length in lengths if length is not None))


def mappings(task: AbstractOperator) -> list[ExpandInput]:
    """Return what `task` is mapped over: its mapped groups' values, outermost first, then its own."""
    groups = [group.expand_input for group in task.mapped_groups]
    return groups if task.expand_input is None else [*groups, task.expand_input]


def kin_slots(index: int, kinship: Kinship, mine: int, theirs: Sequence[int], gauged: int) -> Sequence[int]:
    """Return those of `theirs` that belong to map index `index` of a task that has `mine` indexes; `gauged` has the gauge."""
    groups = max(1, gauged // kinship.width)
    my_width = kinship.own or max(1, mine // groups)
    their_width = kinship.other or max(1, len(theirs) // groups)
    group = index // my_width
    return theirs[group * their_width : (group + 1) * their_width]
