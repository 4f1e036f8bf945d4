"""The context of the task that runs now, and the names in it (S12.2)."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, cast

from backfill.exceptions import BackfillError

#: Set by the worker around `execute`.
context_of_task: ContextVar[Mapping[str, Any] | None] = ContextVar("context_of_task", default=None)

#: Every name in a task's context. A task function may take any of them as an argument.
CONTEXT_NAMES = frozenset(
    [
        "ds",
        "ds_nodash",
        "ts",
        "ts_nodash",
        "ts_nodash_with_tz",
        "logical_date",
        "execution_date",
        "data_interval_start",
        "data_interval_end",
        "run_id",
        "dag",
        "dag_run",
        "task",
        "ti",
        "task_instance",
        "task_instance_key_str",
        "params",
        "conf",
        "macros",
        "var",
        "conn",
        "test_mode",
        "map_index_template",
        "expanded_ti_count",
        "inlets",
        "outlets",
        "inlet_events",
        "outlet_events",
        "triggering_dataset_events",
        "prev_ds",
        "prev_ds_nodash",
        "next_ds",
        "next_ds_nodash",
        "yesterday_ds",
        "yesterday_ds_nodash",
        "tomorrow_ds",
        "tomorrow_ds_nodash",
        "prev_execution_date",
        "next_execution_date",
        "prev_execution_date_success",
        "prev_start_date_success",
        "prev_end_date_success",
        "prev_data_interval_start_success",
        "prev_data_interval_end_success",
        "templates_dict",
    ]
)


def with_names(context: Mapping[str, Any], **names: Any) -> Mapping[str, Any]:
    """Return `context` with `names` over it; entries that are worked out when they are asked for stay unasked."""
    return ChainMap(
        names, cast("MutableMapping[str, Any]", context)
    )  # read only: the type asks for more than that needs


def get_current_context() -> Mapping[str, Any]:
    """Return the context of the task that runs now; `BackfillError` outside of a task."""
    context = context_of_task.get()
    if context is None:
        raise BackfillError("get_current_context() was called outside of a running task; call it inside of one.")
    return context
