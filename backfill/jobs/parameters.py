"""From the parameters of `BackfillJob` to its request; a value of a wrong type is one sentence (S1.2)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any, NamedTuple

from backfill.dag import DAG
from backfill.exceptions import UsageError
from backfill.executors import BaseExecutor
from backfill.jobs.request import BackfillRequest
from backfill.states import Reprocess


class _Kind(NamedTuple):
    """What a parameter takes, for people and as a test."""

    named: str
    fits: Callable[[Any], bool]


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_json_object(value: object) -> bool:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        return False
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _is_budget(value: object) -> bool:
    return isinstance(value, str) or _is_number(value)


_FLAG = _Kind("True or False", lambda value: isinstance(value, bool))
_MOMENT = _Kind("a datetime", lambda value: value is None or isinstance(value, datetime))
_TEXT = _Kind("a text", lambda value: value is None or isinstance(value, str))
_KINDS: Mapping[str, _Kind] = {
    "dag": _Kind("a DAG", lambda value: isinstance(value, DAG)),
    "executor": _Kind(
        "an executor such as LocalExecutor()", lambda value: value is None or isinstance(value, BaseExecutor)
    ),
    "start_date": _MOMENT,
    "end_date": _MOMENT,
    "mark_success": _FLAG,
    "donot_pickle": _FLAG,
    "ignore_first_depends_on_past": _FLAG,
    "ignore_task_deps": _FLAG,
    "pool": _TEXT,
    "delay_on_limit_secs": _Kind("seconds above 0", lambda value: _is_number(value) or isinstance(value, float)),
    "verbose": _FLAG,
    "conf": _Kind("a dict that JSON can hold", lambda value: value is None or _is_json_object(value)),
    "rerun_failed_tasks": _FLAG,
    "run_backwards": _FLAG,
    "run_at_least_once": _FLAG,
    "continue_on_failures": _FLAG,
    "disable_retry": _FLAG,
    "max_active_runs": _Kind("a whole number from 1", lambda value: value is None or _is_number(value)),
    "reprocess": _Kind(
        " or ".join(Reprocess), lambda value: value is None or (isinstance(value, str) and value in set(Reprocess))
    ),
    "max_failures": _Kind(
        "a whole number from 1 or a percentage such as 5%", lambda value: value is None or _is_budget(value)
    ),
    "task_regex": _TEXT,
    "ignore_dependencies": _FLAG,
}


def request_of(given: Mapping[str, Any]) -> BackfillRequest:
    """Return what the parameters `given` by name ask for; raises as `check_parameters` says."""
    check_parameters(given)
    values = {each.name: given[each.name] for each in fields(BackfillRequest)}
    values["reprocess"] = Reprocess(given["reprocess"]) if given["reprocess"] else None
    values["max_failures"] = None if given["max_failures"] is None else str(given["max_failures"])
    values["executor"] = given["executor"].name if given["executor"] else BackfillRequest().executor
    return BackfillRequest(**values)


def check_parameters(given: Mapping[str, object]) -> None:
    """Raise `UsageError` naming the first of the parameters `given` by name whose value is of no type that it takes."""
    for name, value in given.items():
        kind = _KINDS.get(name)
        if kind is not None and not kind.fits(value):
            raise UsageError(f"{name} is {value!r}; it takes {kind.named}.")
