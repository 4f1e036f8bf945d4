"""Lazy sequences over pulled XCom values: only the elements that a task instance looks at are computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

from backfill.dag.params import NOTSET
from backfill.exceptions import BackfillError


def elements_of(value: object, name: str) -> Sequence[Any]:
    """Return what can be mapped over: a sequence's elements or a mapping's items (S12.5).

    Raises `BackfillError` naming `name` for a text, None or anything else.
    """
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return value
    kind = "nothing" if value is None else f"a value of type {type(value).__name__}"
    raise BackfillError(f"{name} gave {kind}, which cannot be mapped over; it takes a list or a dict.")


class _LazySequence(Sequence[Any]):
    """A sequence whose elements `_element` computes, for indexes from 0."""

    def _element(self, index: int) -> Any:
        raise IndexError(index)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """Return one element, or a list of those in a slice."""
        if isinstance(index, slice):
            return [self._element(position) for position in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(index)
        return self._element(position)

    def __eq__(self, other: object) -> bool:
        """Tell if `other` is a sequence of the same elements."""
        return isinstance(other, Sequence) and not isinstance(other, str) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # like a list

    def __repr__(self) -> str:
        return repr(list(self))


class MappedValues(_LazySequence):
    """`values`, each passed through `function`."""

    def __init__(self, values: Sequence[Any], function: Callable[[Any], Any]) -> None:
        self._values = values
        self._function = function

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._values)

    def _element(self, index: int) -> Any:
        return self._function(self._values[index])


class ZippedValues(_LazySequence):
    """Tuples of the elements of `columns`; a short column is filled up with `fillvalue` if there is one."""

    def __init__(self, columns: Sequence[Sequence[Any]], fillvalue: Any = NOTSET) -> None:
        self._columns = columns
        self._fillvalue = fillvalue

    def __len__(self) -> int:
        """Return the shortest length, with a fill value the longest."""
        lengths = [len(column) for column in self._columns]
        return min(lengths) if self._fillvalue is NOTSET else max(lengths)

    def _element(self, index: int) -> Any:
        return tuple(column[index] if index < len(column) else self._fillvalue for column in self._columns)


class ConcatenatedValues(_LazySequence):
    """The elements of `parts`, one after the other."""

    def __init__(self, parts: Sequence[Sequence[Any]]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        """Return the sum of the lengths."""
        return sum(len(part) for part in self._parts)

    def _element(self, index: int) -> Any:
        for part in self._parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(index)
