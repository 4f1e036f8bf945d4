"""`@dag` and `@task_group`: functions whose call makes a DAG or a group."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import update_wrapper, wraps
from typing import Any, Self, Unpack, overload

from backfill.dag.calling import check_call, check_names
from backfill.dag.dag import DAG
from backfill.dag.dag_arguments import DagArguments
from backfill.dag.expand_input import ExpandInput, KwargsInput, MappedArgument, ProductInput
from backfill.dag.task_group import MappedTaskGroup, TaskGroup
from backfill.exceptions import DagError
from backfill.timetables import Schedule


@overload
def dag(function: Callable[..., Any], /) -> Callable[..., DAG]: ...
@overload
def dag(
    dag_id: str = "",
    description: str | None = None,
    schedule: Schedule = None,
    start_date: datetime | None = None,
    end_date: datetime | None = None,
    **arguments: Unpack[DagArguments],
) -> Callable[[Callable[..., Any]], Callable[..., DAG]]: ...
def dag(dag_id: str | Callable[..., Any] = "", *args: Any, **kwargs: Any) -> Any:
    """Decorate a function so that calling it makes a DAG of the tasks that it makes; arguments are those of `DAG`.

    The DAG's id is the function's name unless given. Arguments of the function become params of the DAG.
    """
    if callable(dag_id):
        return _dag_factory(dag_id, dag_id.__name__, (), {})
    return lambda function: _dag_factory(function, dag_id or function.__name__, args, kwargs)


def _dag_factory(
    function: Callable[..., Any], dag_id: str, args: tuple[Any, ...], arguments: dict[str, Any]
) -> Callable[..., DAG]:
    signature = inspect.signature(function)

    @wraps(function)
    def factory(*call_args: Any, **call_kwargs: Any) -> DAG:
        bound = signature.bind(*call_args, **call_kwargs)
        bound.apply_defaults()
        with DAG(dag_id, *args, **{"doc_md": inspect.getdoc(function), **arguments}) as made:
            params = {name: made.param(name, value) for name, value in bound.arguments.items()}
            function(**params)
        return made

    return factory


class TaskGroupFunction:
    """A function under `@task_group`: calling it makes a group of the tasks that it makes.

    `override` changes arguments of the group, `partial`, `expand` and `expand_kwargs` map the group over the function's.
    """

    def __init__(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        self.function = function
        self.arguments = {"group_id": function.__name__, "add_suffix_on_collision": True, **arguments}
        self.fixed: dict[str, Any] = {}
        update_wrapper(self, function)

    @property
    def _owner(self) -> str:
        return f"@task_group {self.function.__name__}()"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make the group; return what the function returns, else the group."""
        kwargs = {**self.fixed, **kwargs}
        check_call(self.function, args, kwargs, self._owner)
        with TaskGroup(**self._with_tooltip()) as group:
            returned = self.function(*args, **kwargs)
        return group if returned is None else returned

    def override(self, **arguments: Any) -> Self:
        """Return the same function with other arguments of the group."""
        changed = type(self)(self.function, {**self.arguments, **arguments})
        changed.fixed = self.fixed
        return changed

    def partial(self, **kwargs: Any) -> Self:
        """Return the same function with some of its arguments fixed."""
        check_names(self.function, list(kwargs), f"{self._owner}.partial()")
        changed = self.override()
        changed.fixed = {**self.fixed, **kwargs}
        return changed

    def expand(self, **mapped: Any) -> Any:
        """Make a group that runs once for every combination of the arguments' elements."""
        return self._mapped(ProductInput(mapped, self._owner), list(mapped))

    def expand_kwargs(self, mapped: Any) -> Any:
        """Make a group that runs once for each dict of arguments."""
        expand_input = KwargsInput(mapped, self._owner)
        parameters = [name for name in inspect.signature(self.function).parameters if name not in self.fixed]
        return self._mapped(expand_input, sorted(expand_input.names()) or parameters)

    def _mapped(self, expand_input: ExpandInput, names: list[str]) -> Any:
        check_names(self.function, names, f"{self._owner}.expand()")
        twice = next((name for name in names if name in self.fixed), None)
        if twice is not None:
            raise DagError(f"{self._owner}.expand() got {twice!r}, which partial() fixed already; give it once.")
        with MappedTaskGroup(expand_input=expand_input, **self._with_tooltip()) as group:
            arguments = {**self.fixed, **{name: MappedArgument(group, name) for name in names}}
            check_call(self.function, (), arguments, self._owner)
            returned = self.function(**arguments)
        return group if returned is None else returned

    def _with_tooltip(self) -> dict[str, Any]:
        return {"tooltip": inspect.getdoc(self.function) or "", **self.arguments}


@overload
def task_group(function: Callable[..., Any], /) -> TaskGroupFunction: ...
@overload
def task_group(
    group_id: str | None = None, /, **arguments: Any
) -> Callable[[Callable[..., Any]], TaskGroupFunction]: ...
def task_group(
    function: Callable[..., Any] | str | None = None, /, **arguments: Any
) -> TaskGroupFunction | Callable[[Callable[..., Any]], TaskGroupFunction]:
    """Decorate a function so that calling it makes a task group; arguments are those of `TaskGroup`."""
    if isinstance(function, str):
        arguments["group_id"] = function
    elif function is not None:
        if not callable(function):
            raise DagError(f"@task_group got {function!r}; it takes a function.")
        return TaskGroupFunction(function, arguments)
    return lambda later: TaskGroupFunction(later, arguments)
