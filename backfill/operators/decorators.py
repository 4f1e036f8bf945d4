"""`@task` and its flavours: functions whose call makes a task (TaskFlow)."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from functools import update_wrapper
from typing import Any, Self, overload

from backfill.dag.arguments import PLACE, refuse_unknown
from backfill.dag.base_operator import BaseOperator
from backfill.dag.calling import check_call, check_names
from backfill.dag.construction import accepted_names, place_of
from backfill.dag.expand_input import ExpandInput, KwargsInput, ProductInput
from backfill.dag.mapped_operator import MappedOperator
from backfill.dag.xcom_arg import PlainXComArg
from backfill.exceptions import DagError
from backfill.operators.bash import BashCommandOperator
from backfill.operators.python import BranchPythonOperator, PythonOperator, ShortCircuitOperator
from backfill.sensors.python import PythonSensor


class TaskFunction:
    """A function under `@task`: calling it makes a task in the open DAG and returns its output.

    `override` changes operator arguments, `partial` fixes arguments of the function, `expand` and `expand_kwargs` map over them.
    """

    def __init__(
        self, function: Callable[..., Any], operator_class: type[BaseOperator], arguments: Mapping[str, Any]
    ) -> None:
        if not callable(function) or isinstance(function, type):
            raise DagError(f"@task got {function!r}; it takes a function.")
        self.function = function
        self.operator_class = operator_class
        self.arguments = {"task_id": function.__name__, **arguments}
        self.fixed: dict[str, Any] = {}
        self.is_setup = False
        self.is_teardown = False
        self.on_failure_fail_dagrun = False
        refuse_unknown(
            arguments, {*accepted_names(operator_class), *PLACE} - _MADE_BY_CALL, f"@task of {function.__name__}()"
        )
        update_wrapper(self, function)

    def __repr__(self) -> str:
        return f"<@task {self.function.__name__}>"

    def __call__(self, *args: Any, **kwargs: Any) -> PlainXComArg:
        """Make a task that calls the function with these arguments; return its output."""
        check_call(self.function, args, {**self.fixed, **kwargs}, self._owner)
        arguments = {
            **self._arguments(),
            "python_callable": self.function,
            "op_args": args,
            "op_kwargs": {**self.fixed, **kwargs},
        }
        return self._marked(self.operator_class(**arguments).output)

    def override(self, **arguments: Any) -> Self:
        """Return the same function with other operator arguments."""
        return self._changed(arguments={**self.arguments, **arguments}, given=arguments)

    def partial(self, **kwargs: Any) -> Self:
        """Return the same function with some of its arguments fixed."""
        check_names(self.function, list(kwargs), f"{self._owner}.partial()")
        twice = next((name for name in kwargs if name in self.fixed), None)
        if twice is not None:
            raise DagError(f"{self._owner}.partial() got {twice!r} twice; give it once.")
        changed = self._changed(arguments=self.arguments, given={})
        changed.fixed = {**self.fixed, **kwargs}
        return changed

    def expand(self, **mapped: Any) -> PlainXComArg:
        """Make a task with one instance for every combination of the arguments' elements; return its output."""
        return self._mapped(ProductInput(mapped, self._owner))

    def expand_kwargs(self, mapped: Any, *, strict: bool = True) -> PlainXComArg:
        """Make a task with one instance for each dict of arguments; return its output."""
        return self._mapped(KwargsInput(mapped, self._owner), strict=strict)

    @property
    def _owner(self) -> str:
        return f"@task {self.function.__name__}()"

    def _changed(self, *, arguments: Mapping[str, Any], given: Mapping[str, Any]) -> Self:
        refuse_unknown(
            given, {*accepted_names(self.operator_class), *PLACE} - _MADE_BY_CALL, f"{self._owner}.override()"
        )
        changed = type(self)(self.function, self.operator_class, arguments)
        changed.fixed = self.fixed
        changed.is_setup = self.is_setup
        changed.is_teardown = self.is_teardown
        changed.on_failure_fail_dagrun = self.on_failure_fail_dagrun
        return changed

    def _arguments(self) -> dict[str, Any]:
        """Return the operator arguments with a task id that is still free in its DAG and group."""
        arguments = dict(self.arguments)
        dag, group = place_of(arguments)
        if dag is not None:
            own = arguments["task_id"] if group is None else group.child_id(arguments["task_id"])
            arguments["task_id"] += dag.free_id(own).removeprefix(own)
        arguments.setdefault("multiple_outputs", returns_mapping(self.function))
        return arguments

    def _mapped(self, expand_input: ExpandInput, *, strict: bool = True) -> PlainXComArg:
        names = sorted(expand_input.names())
        if strict:
            check_names(self.function, names, f"{self._owner}.expand()")
        twice = next((name for name in names if name in self.fixed), None)
        if twice is not None:
            raise DagError(f"{self._owner}.expand() got {twice!r}, which partial() fixed already; give it once.")
        if isinstance(expand_input, ProductInput):
            check_call(self.function, (), {**self.fixed, **expand_input.arguments}, self._owner)
        arguments = {**self._arguments(), "python_callable": self.function, "op_kwargs": self.fixed}
        return self._marked(MappedOperator(self.operator_class, arguments, expand_input, taskflow=True).output)

    def _marked(self, output: PlainXComArg) -> PlainXComArg:
        if self.is_setup:
            output.as_setup()
        if self.is_teardown:
            output.as_teardown(on_failure_fail_dagrun=self.on_failure_fail_dagrun)
        return output


#: Operator arguments that the call of the function gives.
_MADE_BY_CALL = {"python_callable", "op_args", "op_kwargs", "bash_command"}


def returns_mapping(function: Callable[..., Any]) -> bool:
    """Tell if the function's annotation says that it returns a dict with text keys: then each entry is pushed too."""
    try:
        annotation = typing.get_type_hints(function).get("return")
    except (NameError, TypeError, AttributeError):  # names that exist for the type checker only
        return False
    if typing.is_typeddict(annotation):
        return True
    origin = typing.get_origin(annotation) or annotation
    if not (inspect.isclass(origin) and issubclass(origin, Mapping)):
        return False
    return (typing.get_args(annotation) or (str,))[0] is str


class TaskDecorator:
    """`@task`, bare or with operator arguments; `@task.branch` and the like make other operators."""

    def __init__(self, operator_class: type[BaseOperator]) -> None:
        self._operator_class = operator_class

    @overload
    def __call__(self, function: Callable[..., Any], /) -> TaskFunction: ...
    @overload
    def __call__(self, function: None = None, /, **arguments: Any) -> Callable[[Callable[..., Any]], TaskFunction]: ...
    def __call__(
        self, function: Callable[..., Any] | None = None, /, **arguments: Any
    ) -> TaskFunction | Callable[[Callable[..., Any]], TaskFunction]:
        """Return the decorated function, or with arguments the decorator."""
        if function is not None:
            return TaskFunction(function, self._operator_class, arguments)
        return lambda later: TaskFunction(later, self._operator_class, arguments)


class Task(TaskDecorator):
    """`@task` with its flavours as attributes."""

    def __init__(self) -> None:
        super().__init__(PythonOperator)
        self.python = TaskDecorator(PythonOperator)
        self.branch = TaskDecorator(BranchPythonOperator)
        self.short_circuit = TaskDecorator(ShortCircuitOperator)
        self.bash = TaskDecorator(BashCommandOperator)
        self.sensor = TaskDecorator(PythonSensor)


task = Task()


def setup(function: Callable[..., Any] | TaskFunction) -> TaskFunction:
    """Decorate a function (or one under `@task`) so that its tasks are setups."""
    decorated = _as_task(function, "setup")
    decorated.is_setup = True
    return decorated


@overload
def teardown(function: Callable[..., Any] | TaskFunction, /) -> TaskFunction: ...
@overload
def teardown(
    *, on_failure_fail_dagrun: bool = False
) -> Callable[[Callable[..., Any] | TaskFunction], TaskFunction]: ...
def teardown(
    function: Callable[..., Any] | TaskFunction | None = None, /, *, on_failure_fail_dagrun: bool = False
) -> TaskFunction | Callable[[Callable[..., Any] | TaskFunction], TaskFunction]:
    """Decorate a function (or one under `@task`) so that its tasks are teardowns."""
    if function is None:
        return lambda later: _teardown(later, on_failure_fail_dagrun)
    return _teardown(function, on_failure_fail_dagrun)


def _teardown(function: Callable[..., Any] | TaskFunction, on_failure_fail_dagrun: bool) -> TaskFunction:
    decorated = _as_task(function, "teardown")
    decorated.is_teardown = True
    decorated.on_failure_fail_dagrun = on_failure_fail_dagrun
    return decorated


def _as_task(function: Callable[..., Any] | TaskFunction, mark: str) -> TaskFunction:
    if isinstance(function, TaskFunction):
        return function
    if inspect.isfunction(function):
        return task(function)
    raise DagError(f"@{mark} got {function!r}; it takes a function or one under @task.")
