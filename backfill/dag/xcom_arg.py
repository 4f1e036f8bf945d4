"""`XComArg`: what a task returned, as an argument of another task."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from backfill.dag.map_indexes import indexes_to_pull
from backfill.dag.mapped_values import (
    ConcatenatedValues,
    MappedValues,
    ZippedValues,
    elements_of,
)
from backfill.dag.node import DependencyMixin
from backfill.dag.params import NOTSET
from backfill.dag.references import Reference
from backfill.exceptions import DagError

if TYPE_CHECKING:
    from backfill.dag.abstract_operator import AbstractOperator
    from backfill.dag.setup_scope import SetupScope

#: XCom key of what `execute` returned.
RETURN_VALUE = "return_value"

SourceLength = Callable[[str, str], int | None]


class XComArg(Reference, DependencyMixin):
    """A value that comes from other tasks' XComs.

    `XComArg(operator, key)` is the value that `operator` pushed under `key`. The methods `map`, `zip` and `concat` give
    new arguments to map over; their functions run on the worker.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ARG004  # Python hands over what __init__ takes
        """Return a plain argument for `XComArg(operator, …)`."""
        return super().__new__(PlainXComArg if cls is XComArg else cls)  # type: ignore[return-value]  # is a subclass

    def __init__(self, operator: AbstractOperator, key: str = RETURN_VALUE) -> None:
        """See the class; only `PlainXComArg` is made this way."""

    @property
    def roots(self) -> Sequence[AbstractOperator]:
        """The tasks that the value comes from."""
        return list(self.operators())

    @property
    def leaves(self) -> Sequence[AbstractOperator]:
        """The tasks that the value comes from."""
        return list(self.operators())

    @abstractmethod
    def source_keys(self) -> Iterator[tuple[str, str]]:
        """Yield (task id, XCom key) of each value that it is made of."""

    @abstractmethod
    def length(self, source_length: SourceLength) -> int | None:
        """Return the number of elements to map over, given those of (task id, XCom key); None if one is unknown."""

    def __getitem__(self, key: str) -> XComArg:
        """Return the argument for another XCom key of the same task; only a plain return value has one."""
        raise DagError(f"{self!r} has no key {key!r}; a key belongs to the output of one task.")

    def map(self, function: Callable[[Any], Any]) -> MapXComArg:
        """Return the argument whose elements are `function(element)`; one that raises `SkipTask` skips its instance."""
        if isinstance(function, DependencyMixin) or hasattr(function, "expand_kwargs"):
            raise DagError("map() takes a plain function, not a task; to run a task for each element use .expand().")
        return MapXComArg(self, function)

    def zip(self, *others: XComArg, fillvalue: Any = NOTSET) -> ZipXComArg:
        """Return the argument of tuples, as long as the shortest, with a fill value as long as the longest."""
        return ZipXComArg((self, *others), fillvalue)

    def concat(self, *others: XComArg) -> ConcatXComArg:
        """Return the argument of this one's elements followed by those of the others."""
        return ConcatXComArg((self, *others))


class PlainXComArg(XComArg):
    """What one task pushed under one key."""

    def __init__(self, operator: AbstractOperator, key: str = RETURN_VALUE) -> None:
        self.operator = operator
        self.key = key

    def __eq__(self, other: object) -> bool:
        """Tell if both mean the same task and key."""
        return isinstance(other, PlainXComArg) and (self.operator, self.key) == (other.operator, other.key)

    def __hash__(self) -> int:
        """Agree with `__eq__`."""
        return hash((id(self.operator), self.key))

    def __repr__(self) -> str:
        return f"XComArg({self.operator.task_id!r}{'' if self.key == RETURN_VALUE else f', {self.key!r}'})"

    def __str__(self) -> str:
        """Return a template that pulls the value, for use inside of a longer text."""
        return f"{{{{ ti.xcom_pull(task_ids={self.operator.task_id!r}, key={self.key!r}) }}}}"

    def __getitem__(self, key: str) -> XComArg:
        """Return the argument for another key of the same task."""
        if not isinstance(key, str):
            raise DagError(
                f"{self!r}[{key!r}]: an XCom key is a text; to take one element use .map() or the task itself."
            )
        return PlainXComArg(self.operator, key)

    def __enter__(self) -> SetupScope:
        """Open the scope of the setup or teardown task that this is the output of."""
        return self.operator.__enter__()

    def __exit__(self, *_: object) -> None:
        """Close the scope."""
        self.operator.__exit__()

    def as_setup(self) -> PlainXComArg:
        """Mark the task as a setup."""
        self.operator.as_setup()
        return self

    def as_teardown(
        self,
        *,
        setups: object = NOTSET,
        on_failure_fail_dagrun: bool = False,
    ) -> PlainXComArg:
        """Mark the task as the teardown of `setups`."""
        self.operator.as_teardown(setups=setups, on_failure_fail_dagrun=on_failure_fail_dagrun)
        return self

    def operators(self) -> Iterator[AbstractOperator]:
        """Yield the task."""
        yield self.operator

    def source_keys(self) -> Iterator[tuple[str, str]]:
        """Yield its own."""
        yield self.operator.task_id, self.key

    def length(self, source_length: SourceLength) -> int | None:
        """Return the number of values that the task pushed."""
        return source_length(self.operator.task_id, self.key)

    def resolve(self, context: Mapping[str, Any]) -> Any:
        """Pull the value; from a task of several instances a sequence in index order (S12.5)."""
        return context["ti"].xcom_pull(
            task_ids=self.operator.task_id,
            key=self.key,
            map_indexes=indexes_to_pull(self.operator, context),
        )


class MapXComArg(XComArg):
    """The elements of another argument, each passed through a function."""

    def __init__(self, argument: XComArg, function: Callable[[Any], Any]) -> None:
        self.argument = argument
        self.function = function

    def __repr__(self) -> str:
        return f"{self.argument!r}.map({getattr(self.function, '__name__', self.function)})"

    def operators(self) -> Iterator[AbstractOperator]:
        """Yield the tasks of the argument below."""
        return self.argument.operators()

    def source_keys(self) -> Iterator[tuple[str, str]]:
        """Yield those of the argument below."""
        return self.argument.source_keys()

    def length(self, source_length: SourceLength) -> int | None:
        """Return the length of the argument below."""
        return self.argument.length(source_length)

    def resolve(self, context: Mapping[str, Any]) -> MappedValues:
        """Return the elements; the function is called for those that are looked at."""
        return MappedValues(elements_of(self.argument.resolve(context), repr(self.argument)), self.function)


class _JoinedXComArg(XComArg):
    """Several arguments as one."""

    joint: Literal["zip", "concat"]

    def __init__(self, arguments: tuple[XComArg, ...]) -> None:
        stranger = next((argument for argument in arguments if not isinstance(argument, XComArg)), None)
        if stranger is not None:
            raise DagError(f"{self.joint}() got {stranger!r}; it takes the outputs of tasks only.")
        self.arguments = arguments

    def __repr__(self) -> str:
        first, *others = self.arguments
        return f"{first!r}.{self.joint}({', '.join(map(repr, others))})"

    def operators(self) -> Iterator[AbstractOperator]:
        """Yield the tasks of all arguments."""
        for argument in self.arguments:
            yield from argument.operators()

    def source_keys(self) -> Iterator[tuple[str, str]]:
        """Yield those of all arguments."""
        for argument in self.arguments:
            yield from argument.source_keys()

    def _lengths(self, source_length: SourceLength) -> list[int] | None:
        """Return the lengths of all arguments, None if one is unknown."""
        lengths = [argument.length(source_length) for argument in self.arguments]
        known = [length for length in lengths if length is not None]
        return known if len(known) == len(lengths) else None

    def _elements(self, context: Mapping[str, Any]) -> list[Sequence[Any]]:
        return [elements_of(argument.resolve(context), repr(argument)) for argument in self.arguments]


class ZipXComArg(_JoinedXComArg):
    """Several arguments side by side, as tuples."""

    joint = "zip"

    def __init__(self, arguments: tuple[XComArg, ...], fillvalue: Any = NOTSET) -> None:
        super().__init__(arguments)
        self.fillvalue = fillvalue

    def length(self, source_length: SourceLength) -> int | None:
        """Return the shortest length, with a fill value the longest."""
        lengths = self._lengths(source_length)
        return None if lengths is None else min(lengths) if self.fillvalue is NOTSET else max(lengths)

    def resolve(self, context: Mapping[str, Any]) -> ZippedValues:
        """Return the tuples."""
        return ZippedValues(self._elements(context), self.fillvalue)


class ConcatXComArg(_JoinedXComArg):
    """Several arguments one after the other."""

    joint = "concat"

    def length(self, source_length: SourceLength) -> int | None:
        """Return the sum of the lengths."""
        lengths = self._lengths(source_length)
        return None if lengths is None else sum(lengths)

    def resolve(self, context: Mapping[str, Any]) -> ConcatenatedValues:
        """Return the elements of all."""
        return ConcatenatedValues(self._elements(context))
