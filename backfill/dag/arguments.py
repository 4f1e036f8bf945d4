"""The arguments that every operator takes: default, check, and what to say if a value does not fit.

Names and meaning are Airflow's (interface.md, section 1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, Required, TypedDict

from backfill.clock import as_utc
from backfill.dag.params import Params
from backfill.exceptions import DagError
from backfill.states import TRIGGER_RULE_ALIASES, TriggerRule, WeightRule

if TYPE_CHECKING:
    from backfill.dag.dag import DAG
    from backfill.dag.task_group import TaskGroup

Context = Mapping[str, Any]
Callback = Callable[[Any], Any]


class OperatorArguments(TypedDict, total=False):
    """Keyword arguments that every operator takes."""

    task_id: Required[str]
    dag: DAG | None
    task_group: TaskGroup | None
    default_args: dict[str, Any] | None
    owner: str
    start_date: datetime | None
    end_date: datetime | None
    trigger_rule: TriggerRule | str
    depends_on_past: bool
    wait_for_downstream: bool
    ignore_first_depends_on_past: bool
    retries: int | None
    #: A number is seconds, as in the three below.
    retry_delay: timedelta | float
    retry_exponential_backoff: bool
    max_retry_delay: timedelta | float | None
    execution_timeout: timedelta | None
    pool: str | None
    pool_slots: int
    priority_weight: int
    weight_rule: WeightRule | str
    max_active_tis_per_dag: int | None
    max_active_tis_per_dagrun: int | None
    queue: str | None
    executor: str | None
    params: Mapping[str, Any] | None
    do_xcom_push: bool
    multiple_outputs: bool
    on_execute_callback: Callback | list[Callback] | None
    on_success_callback: Callback | list[Callback] | None
    on_failure_callback: Callback | list[Callback] | None
    on_retry_callback: Callback | list[Callback] | None
    on_skipped_callback: Callback | list[Callback] | None
    pre_execute: Callable[[Any], Any] | None
    post_execute: Callable[[Any, Any], Any] | None
    map_index_template: str | None
    inlets: Any
    outlets: Any
    doc: str | None
    doc_md: str | None
    doc_rst: str | None
    doc_json: str | None
    doc_yaml: str | None


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: `check` returns the value in its final type or raises `ValueError`; `takes` says what it takes."""

    default: Any
    check: Callable[[Any], Any]
    takes: str


def _refuse() -> NoReturn:
    raise ValueError


def _bool(value: object) -> bool:
    return value if isinstance(value, bool) else _refuse()


def _optional_text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else _refuse()


def _whole(least: int, *, none: object = _refuse) -> Callable[[object], Any]:
    def check(value: object) -> Any:
        if value is None and none is not _refuse:
            return none
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= least else _refuse()

    return check


def _duration(value: object) -> timedelta:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = timedelta(seconds=value)
    return value if isinstance(value, timedelta) and value >= timedelta(0) else _refuse()


def _optional_duration(value: object) -> timedelta | None:
    return None if value is None else _duration(value)


def _timeout(value: object) -> timedelta | None:
    return value if value is None or (isinstance(value, timedelta) and value > timedelta(0)) else _refuse()


def _optional_date(value: object) -> datetime | None:
    return None if value is None else as_utc(value) if isinstance(value, datetime) else _refuse()


def _trigger_rule(value: object) -> TriggerRule:
    return TRIGGER_RULE_ALIASES.get(str(value)) or TriggerRule(str(value))


def callbacks(value: object) -> tuple[Callback, ...]:
    """Return one callback, a list of them, or None as a tuple; `ValueError` if a member cannot be called."""
    members = () if value is None else tuple(value) if isinstance(value, list | tuple) else (value,)
    return members if all(callable(member) for member in members) else _refuse()


def _hook(value: object) -> object:
    return value if value is None or callable(value) else _refuse()


def _members(value: object) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]


_BOOL = (_bool, "True or False")
_TEXT = (_optional_text, "a text or None")
_WHOLE_OR_NONE = (_whole(1, none=None), "a whole number from 1 or None")
_CALLBACK = (callbacks, "a callable, a list of callables or None")
_DATE = (_optional_date, "a datetime or None")
_HOOK = (_hook, "a callable or None")
_LIST = (_members, "a list")

#: Every argument but `task_id`, `dag`, `task_group` and `default_args`, which say where the task belongs.
ARGUMENTS: Mapping[str, Argument] = MappingProxyType(
    {
        "owner": Argument("backfill", lambda value: value if isinstance(value, str) else _refuse(), "a text"),
        "start_date": Argument(None, *_DATE),
        "end_date": Argument(None, *_DATE),
        "trigger_rule": Argument(TriggerRule.ALL_SUCCESS, _trigger_rule, f"one of {', '.join(TriggerRule)}"),
        "depends_on_past": Argument(False, *_BOOL),
        "wait_for_downstream": Argument(False, *_BOOL),
        "ignore_first_depends_on_past": Argument(True, *_BOOL),
        "retries": Argument(0, _whole(0, none=0), "a whole number from 0"),
        "retry_delay": Argument(timedelta(seconds=300), _duration, "a timedelta or seconds, from 0"),
        "retry_exponential_backoff": Argument(False, *_BOOL),
        "max_retry_delay": Argument(None, _optional_duration, "a timedelta, seconds from 0 or None"),
        "execution_timeout": Argument(None, _timeout, "a timedelta above zero or None"),
        "pool": Argument("default_pool", lambda value: _optional_text(value) or "default_pool", "a pool's name"),
        "pool_slots": Argument(1, _whole(1), "a whole number from 1"),
        "priority_weight": Argument(1, _whole(-(2**31)), "a whole number"),
        "weight_rule": Argument(WeightRule.DOWNSTREAM, lambda value: WeightRule(str(value)), f"one of {', '.join(WeightRule)}"),
        "max_active_tis_per_dag": Argument(None, *_WHOLE_OR_NONE),
        "max_active_tis_per_dagrun": Argument(None, *_WHOLE_OR_NONE),
        "queue": Argument(None, *_TEXT),
        "executor": Argument(None, *_TEXT),
        "params": Argument(None, Params.of, "a mapping of names to values or Param objects"),
        "do_xcom_push": Argument(True, *_BOOL),
        "multiple_outputs": Argument(False, *_BOOL),
        "on_execute_callback": Argument(None, *_CALLBACK),
        "on_success_callback": Argument(None, *_CALLBACK),
        "on_failure_callback": Argument(None, *_CALLBACK),
        "on_retry_callback": Argument(None, *_CALLBACK),
        "on_skipped_callback": Argument(None, *_CALLBACK),
        "pre_execute": Argument(None, *_HOOK),
        "post_execute": Argument(None, *_HOOK),
        "map_index_template": Argument(None, *_TEXT),
        "inlets": Argument(None, *_LIST),
        "outlets": Argument(None, *_LIST),
        "doc": Argument(None, *_TEXT),
        "doc_md": Argument(None, *_TEXT),
        "doc_rst": Argument(None, *_TEXT),
        "doc_json": Argument(None, *_TEXT),
        "doc_yaml": Argument(None, *_TEXT),
    }
)  # fmt: skip

#: Where a task belongs; not subject to `ARGUMENTS`.
PLACE = ("task_id", "dag", "task_group", "default_args")

#: Arguments of Airflow that have no effect here, with what to do instead.
WITHOUT_EFFECT = {
    "email": "no mail is sent; use on_failure_callback",
    "email_on_failure": "no mail is sent; use on_failure_callback",
    "email_on_retry": "no mail is sent; use on_retry_callback",
    "sla": "backfills keep no SLAs; use execution_timeout",
    "task_concurrency": "write max_active_tis_per_dag",
    "run_as_user": "tasks run as the worker's user",
    "resources": "use pool and queue",
    "executor_config": "use queue",
    "wait_for_past_depends_before_skipping": "skips are settled at once",
    "schedule_interval": "write schedule",
    "timetable": "write schedule",
    "concurrency": "write max_active_tasks",
}


def check_argument(name: str, value: object, owner: str) -> Any:
    """Return `value` in the final type of argument `name`; `DagError` names `owner`, the value and what it takes."""
    argument = ARGUMENTS[name]
    try:
        return argument.check(value)
    except (TypeError, ValueError):
        raise DagError(f"{owner} has {name}={value!r}; it takes {argument.takes}.") from None


def refuse_unknown(names: Iterable[str], known: Iterable[str], owner: str) -> None:
    """Raise `DagError` naming the first of `names` that is not `known`, with the remedy if there is one."""
    taken = set(known)
    unknown = next((name for name in names if name not in taken), None)
    if unknown is None:
        return
    close = get_close_matches(unknown, taken, n=1)
    remedy = WITHOUT_EFFECT.get(unknown, f"write {close[0]} if that is meant" if close else "remove it")
    raise DagError(f"{owner} got the argument {unknown!r}, which it does not take; {remedy}.")


_TASK_ID = re.compile(r"[\w.-]{1,250}")
_GROUP_ID = re.compile(r"[\w-]{1,200}")


def check_id(value: object, kind: str) -> str:
    """Return `value` if it can be the id of a `kind` ("task", "DAG"); `DagError` names it otherwise."""
    if isinstance(value, str) and _TASK_ID.fullmatch(value):
        return value
    raise DagError(f"{value!r} cannot be a {kind} id; it takes up to 250 letters, digits, '_', '-' and '.'.")


def check_group_id(value: object) -> str:
    """Return `value` if it can be the id of a task group (no dots); `DagError` names it otherwise."""
    if isinstance(value, str) and _GROUP_ID.fullmatch(value):
        return value
    raise DagError(f"{value!r} cannot be a group id; it takes up to 200 letters, digits, '_' and '-'.")
