"""Values that are known only when a task runs, and how to find them inside an argument."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from backfill.exceptions import BackfillError

if TYPE_CHECKING:
    from backfill.dag.abstract_operator import AbstractOperator


class Reference(ABC):
    """Stands in an argument for a value that `resolve` returns when the task runs; that value is never rendered."""

    @abstractmethod
    def resolve(self, context: Mapping[str, Any]) -> Any:
        """Return the value for the task instance of `context`."""

    def operators(self) -> Iterator[AbstractOperator]:
        """Yield the tasks that the value comes from; they become upstream of the task that holds the reference."""
        yield from ()

    def __iter__(self) -> Iterator[Any]:
        """Refuse: without this, `*reference` would go through `__getitem__` for ever."""
        raise TypeError(f"{self!r} is known only when the task runs and cannot be iterated over here; use .expand().")


class Value(Reference):
    """A value that is known already but came from outside the DAG's source, so that it must not be rendered."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def resolve(self, context: Mapping[str, Any]) -> Any:  # noqa: ARG002  # the value needs no context
        """Return the value."""
        return self.value


class DagParam(Reference):
    """A param of the DAG by name, as `@dag` hands it to the function that builds the DAG."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"DagParam({self.name!r})"

    def resolve(self, context: Mapping[str, Any]) -> Any:
        """Return the param's value in this run; `BackfillError` if the run's params lack it."""
        try:
            return context["params"][self.name]
        except KeyError:
            raise BackfillError(f"The run has no param {self.name!r}; give it with conf (--conf).") from None


def references_in(value: object) -> Iterator[Reference]:
    """Yield the references in `value`, also inside of lists, tuples, sets, mappings and templated objects."""
    match value:
        case Reference():
            yield value
        case str() | bytes() | None:
            pass
        case Mapping():
            for key, member in value.items():
                yield from references_in(key)
                yield from references_in(member)
        case list() | tuple() | set() | frozenset():
            for member in value:
                yield from references_in(member)
        case _:
            for field in _template_fields(value):
                yield from references_in(getattr(value, field, None))


def _template_fields(value: object) -> tuple[str, ...]:
    fields = getattr(value, "template_fields", ())
    return tuple(fields) if isinstance(fields, list | tuple) else ()


def operators_in(value: object) -> Iterator[AbstractOperator]:
    """Yield the tasks that the references in `value` come from."""
    for reference in references_in(value):
        yield from reference.operators()
