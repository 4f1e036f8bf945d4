"""What a task or group is mapped over, and the arguments of each index (S4.7)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from backfill.dag.map_indexes import index_in_group
from backfill.dag.mapped_values import elements_of
from backfill.dag.references import Reference, Value, operators_in
from backfill.dag.xcom_arg import SourceLength, XComArg
from backfill.exceptions import BackfillError, DagError

if TYPE_CHECKING:
    from backfill.dag.abstract_operator import AbstractOperator
    from backfill.dag.task_group import MappedTaskGroup


class ExpandInput(ABC):
    """The values that `.expand()` or `.expand_kwargs()` was given."""

    @abstractmethod
    def _parts(self) -> Sequence[object]:
        """Return the collections whose lengths multiply."""

    @abstractmethod
    def names(self) -> frozenset[str]:
        """Return the names of the arguments that differ between indexes, as far as they can be told."""

    @abstractmethod
    def resolve(self, index: int, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of one index.

        What comes from XComs is wrapped in `Value`, what stands in the DAG file is not: only the latter is rendered.
        """

    def length(self, source_length: SourceLength) -> int | None:
        """Return the number of indexes, given the lengths of (task id, XCom key); None if one is unknown."""
        lengths = [_length(part, source_length) for part in self._parts()]
        known = [length for length in lengths if length is not None]
        return prod(known) if len(known) == len(lengths) else None

    def literal_length(self) -> int | None:
        """Return the number of indexes if it stands in the DAG file, else None."""
        return self.length(lambda _task_id, _key: None) if not self.sources() else None

    def length_in(self, context: Mapping[str, Any]) -> int:
        """Return the number of indexes, pulling the values that it depends on."""
        return prod(len(_elements(part, context)) for part in self._parts())

    def sources(self) -> frozenset[str]:
        """Return the ids of the tasks whose XComs give the length."""
        return frozenset(task_id for task_id, _key in self.source_keys())

    def source_keys(self) -> frozenset[tuple[str, str]]:
        """Return (task id, XCom key) of the values that give the length."""
        return frozenset(key for part in self._parts() if isinstance(part, XComArg) for key in part.source_keys())

    def operators(self) -> Iterator[AbstractOperator]:
        """Yield all tasks that values come from, also those inside of literal lists."""
        yield from operators_in(list(self._parts()))


def _length(part: object, source_length: SourceLength) -> int | None:
    return part.length(source_length) if isinstance(part, XComArg) else len(elements_of(part, "expand()"))


def _elements(part: object, context: Mapping[str, Any]) -> Sequence[Any]:
    return elements_of(part.resolve(context) if isinstance(part, XComArg) else part, repr(part))


def _element(part: object, index: int, context: Mapping[str, Any]) -> Any:
    """Return one element of `part`, wrapped if it comes from an XCom."""
    element = _elements(part, context)[index]
    return Value(element) if isinstance(part, XComArg) else element


class ProductInput(ExpandInput):
    """`.expand(a=…, b=…)`: every combination of the arguments' elements, the last argument varying fastest."""

    def __init__(self, arguments: Mapping[str, object], owner: str) -> None:
        if not arguments:
            raise DagError(f"{owner}.expand() got no argument; it takes at least one to map over.")
        for name, value in arguments.items():
            if not isinstance(value, XComArg | list | tuple | dict):
                raise DagError(
                    f"{owner}.expand() got {name}={value!r}; it takes a list, a dict or the output of a task."
                )
        self.arguments = dict(arguments)

    def _parts(self) -> Sequence[object]:
        return list(self.arguments.values())

    def names(self) -> frozenset[str]:
        """Return the arguments' names."""
        return frozenset(self.arguments)

    def resolve(self, index: int, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of one index."""
        if len(self.arguments) == 1:
            return {name: _element(part, index, context) for name, part in self.arguments.items()}
        positions: dict[str, int] = {}
        for name, part in reversed(self.arguments.items()):
            index, positions[name] = divmod(index, len(_elements(part, context)))
        return {name: _element(part, positions[name], context) for name, part in self.arguments.items()}


class KwargsInput(ExpandInput):
    """`.expand_kwargs([{…}, …])`: one index for each mapping of arguments."""

    def __init__(self, arguments: object, owner: str) -> None:
        if not isinstance(arguments, XComArg | list | tuple):
            raise DagError(
                f"{owner}.expand_kwargs() got {arguments!r}; it takes a list of dicts or the output of a task."
            )
        if isinstance(arguments, list | tuple):
            for member in arguments:
                if not isinstance(member, Mapping | XComArg):
                    raise DagError(f"{owner}.expand_kwargs() got the member {member!r}; each is a dict of arguments.")
        self.arguments = arguments

    def _parts(self) -> Sequence[object]:
        return [self.arguments]

    def names(self) -> frozenset[str]:
        """Return the names in the literal members."""
        members = [] if isinstance(self.arguments, XComArg) else self.arguments
        return frozenset(name for member in members if isinstance(member, Mapping) for name in member)

    def resolve(self, index: int, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of one index; `BackfillError` if the element is no mapping with text keys."""
        element = _element(self.arguments, index, context)
        known = not isinstance(element, Reference)
        arguments = element if known else element.resolve(context)
        if not isinstance(arguments, Mapping) or not all(isinstance(name, str) for name in arguments):
            raise BackfillError(
                f"expand_kwargs() got {arguments!r} at index {index}; each element is a dict of arguments."
            )
        return dict(arguments) if known else {name: Value(value) for name, value in arguments.items()}


class MappedArgument(Reference):
    """An argument of a mapped task group, as the tasks inside of it see it."""

    def __init__(self, group: MappedTaskGroup, name: str) -> None:
        self.group = group
        self.name = name

    def __repr__(self) -> str:
        return f"{self.group.group_id}.{self.name}"

    def operators(self) -> Iterator[AbstractOperator]:
        """Yield the tasks that the group is mapped over."""
        return self.group.expand_input.operators()

    def resolve(self, context: Mapping[str, Any]) -> Any:
        """Return the argument at the group's index of this task instance."""
        arguments = self.group.expand_input.resolve(index_in_group(self.group, context), context)
        value = arguments[self.name]
        return value.resolve(context) if isinstance(value, Reference) else value
