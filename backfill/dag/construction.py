"""Making an operator: default_args, missing and unknown arguments, its place, and the tasks that its arguments come from.

Every `__init__` of an operator class is wrapped, so that `default_args` reach the arguments that each class in the
hierarchy names, and a class may still pass a value of its own up to its base.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from backfill.dag import scope
from backfill.dag.arguments import ARGUMENTS
from backfill.exceptions import DagError

if TYPE_CHECKING:
    from backfill.dag.base_operator import BaseOperator
    from backfill.dag.dag import DAG
    from backfill.dag.task_group import TaskGroup

Initialiser = Callable[..., None]


class Keywords(NamedTuple):
    """The names that an `__init__` takes, and those of them that it must be given."""

    names: tuple[str, ...]
    required: tuple[str, ...]


def constructing(init: Initialiser) -> Initialiser:
    """Return `init` wrapped for `construct`."""
    keywords = _keywords(init)

    @functools.wraps(init)
    def initialise(self: BaseOperator, *args: Any, **kwargs: Any) -> None:
        construct(self, init, keywords, args, kwargs)

    return initialise


def _keywords(init: Initialiser) -> Keywords:
    _self, *parameters = inspect.signature(init).parameters.values()
    named = [p for p in parameters if p.kind not in {p.VAR_KEYWORD, p.VAR_POSITIONAL}]
    return Keywords(tuple(p.name for p in named), tuple(p.name for p in named if p.default is p.empty))


def accepted_names(operator_class: type[BaseOperator]) -> frozenset[str]:
    """Return every argument that the class takes, with those that it passes on to its bases."""
    names: set[str] = set()
    for cls in operator_class.__mro__:
        init = cls.__dict__.get("__init__")
        if init is None:
            continue
        names.update(_keywords(init).names)
        if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(init).parameters.values()):
            break
        if cls.__dict__.get("takes_common_arguments"):
            names.update(ARGUMENTS)
    return frozenset(names)


def place_of(arguments: Mapping[str, Any]) -> tuple[DAG | None, TaskGroup | None]:
    """Return the DAG and group that a task with these arguments belongs to: those given, else those that are open."""
    dag, group = arguments.get("dag"), arguments.get("task_group")
    if group is None:
        open_group = scope.current_group()
        group = open_group if dag is None or (open_group is not None and open_group.dag is dag) else dag.task_group
    if dag is None:
        dag = group.dag if group is not None else scope.current_dag()
    return dag, group


def default_args_for(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the default_args that hold for a task with these arguments: the DAG's, its groups', its own."""
    dag, group = place_of(arguments)
    merged = dict(dag.default_args) if dag is not None else {}
    if group is not None:
        merged.update(group.inherited_default_args)
    merged.update(arguments.get("default_args") or {})
    return merged


def construct(
    operator: BaseOperator,
    init: Initialiser,
    keywords: Keywords,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Run one `__init__` of the hierarchy; around the outermost, prepare and complete the operator."""
    if args:
        raise DagError(f"{operator.operator_name} takes keyword arguments only; write the name before {args[0]!r}.")
    outermost = "_default_args" not in operator.__dict__
    if outermost:
        operator.__dict__["_default_args"] = default_args_for(kwargs)
    defaults = operator.__dict__["_default_args"]
    filled = {name: defaults[name] for name in keywords.names if name in defaults and name not in kwargs} | kwargs
    missing = next((name for name in keywords.required if name not in filled), None)
    if missing is not None:
        raise DagError(f"The task {kwargs.get('task_id')!r} ({operator.operator_name}) needs the argument {missing!r}.")
    init(operator, **filled)
    if outermost:
        del operator.__dict__["_default_args"]
        operator.complete_construction()
