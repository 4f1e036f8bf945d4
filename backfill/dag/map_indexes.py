"""Map indexes in mapped task groups: which instance of a task belongs to which index of a group (S4.5).

A task in mapped groups has one instance for each combination of their indexes; the innermost group varies fastest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backfill.dag.abstract_operator import AbstractOperator
    from backfill.dag.task_group import MappedTaskGroup


def indexes_to_pull(source: AbstractOperator, context: Mapping[str, Any]) -> int | list[int] | None:
    """Return the map indexes of `source` that belong to the task instance of `context`; None means all there are."""
    own, theirs = context["task"].mapped_groups, source.mapped_groups
    common = sum(1 for _ in takewhile(lambda pair: pair[0] is pair[1], zip(own, theirs, strict=False)))
    if common == 0:
        return None
    index: int = context["ti"].map_index // _size(own[common:], context)
    if common == len(theirs):
        return index
    size = _size(theirs[common:], context)
    return list(range(index * size, (index + 1) * size))


def index_in_group(group: MappedTaskGroup, context: Mapping[str, Any]) -> int:
    """Return the index of `group` that the task instance of `context` belongs to."""
    groups: Sequence[MappedTaskGroup] = context["task"].mapped_groups
    inner = groups[groups.index(group) + 1 :]
    index: int = context["ti"].map_index // _size(inner, context)
    return index % _size((group,), context) if group is not groups[0] else index


def _size(groups: Sequence[MappedTaskGroup], context: Mapping[str, Any]) -> int:
    return prod(group.expand_input.length_in(context) for group in groups)
