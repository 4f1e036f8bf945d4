"""The arguments of a DAG beside its id, schedule and dates: default, check, and what each takes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any, NoReturn, TypedDict

from backfill.dag.arguments import Argument, Callback, callbacks
from backfill.dag.params import Params
from backfill.exceptions import DagError


class DagArguments(TypedDict, total=False):
    """Keyword arguments that `DAG` and `@dag` take beside the first five."""

    default_args: dict[str, Any] | None
    max_active_runs: int
    max_active_tasks: int
    dagrun_timeout: timedelta | None
    catchup: bool
    params: Mapping[str, Any] | None
    user_defined_macros: dict[str, Any] | None
    user_defined_filters: dict[str, Callable[..., Any]] | None
    template_searchpath: str | Collection[str] | None
    render_template_as_native_obj: bool
    fail_stop: bool
    on_success_callback: Callback | list[Callback] | None
    on_failure_callback: Callback | list[Callback] | None
    tags: Collection[str] | None
    doc_md: str | None


def _refuse() -> NoReturn:
    raise ValueError


def _from_one(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 1 else _refuse()


def _flag(value: object) -> bool:
    return value if isinstance(value, bool) else _refuse()


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else _refuse()


def _named(value: object) -> dict[str, Any]:
    return {} if value is None else dict(value) if isinstance(value, Mapping) else _refuse()


def _callables(value: object) -> dict[str, Any]:
    named = _named(value)
    return named if all(callable(member) for member in named.values()) else _refuse()


def _texts(value: object) -> tuple[str, ...]:
    members = (
        ()
        if value is None
        else (value,)
        if isinstance(value, str)
        else tuple(value)
        if isinstance(value, Collection)
        else _refuse()
    )
    return tuple(str(member) for member in members)


def _sorted_texts(value: object) -> tuple[str, ...]:
    return tuple(sorted(_texts(value)))


def _timeout(value: object) -> timedelta | None:
    return value if value is None or (isinstance(value, timedelta) and value > timedelta(0)) else _refuse()


_COUNT = (_from_one, "a whole number from 1")
_FLAG = (_flag, "True or False")
_MAPPING = "a mapping of names to values or None"

DAG_ARGUMENTS: Mapping[str, Argument] = MappingProxyType(
    {
        "description": Argument(None, _text, "a text or None"),
        "default_args": Argument(None, _named, _MAPPING),
        "max_active_runs": Argument(16, *_COUNT),
        "max_active_tasks": Argument(16, *_COUNT),
        "dagrun_timeout": Argument(None, _timeout, "a timedelta above zero or None"),
        "catchup": Argument(True, *_FLAG),
        "params": Argument(None, Params.of, "a mapping of names to values or Param objects"),
        "user_defined_macros": Argument(None, _named, _MAPPING),
        "user_defined_filters": Argument(None, _callables, "a mapping of names to callables or None"),
        "template_searchpath": Argument(None, _texts, "a folder or a list of folders"),
        "render_template_as_native_obj": Argument(False, *_FLAG),
        "fail_stop": Argument(False, *_FLAG),
        "on_success_callback": Argument(None, callbacks, "a callable, a list of callables or None"),
        "on_failure_callback": Argument(None, callbacks, "a callable, a list of callables or None"),
        "tags": Argument(None, _sorted_texts, "a list of texts"),
        "doc_md": Argument(None, _text, "a text or None"),
    }
)


def check_dag_argument(name: str, given: Mapping[str, Any], owner: str) -> Any:
    """Return argument `name` of `given` in its final type; `DagError` names `owner`, the value and what it takes."""
    argument = DAG_ARGUMENTS[name]
    value = given.get(name, argument.default)
    try:
        return argument.check(value)
    except (TypeError, ValueError):
        raise DagError(f"{owner} has {name}={value!r}; it takes {argument.takes}.") from None
