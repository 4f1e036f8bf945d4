"""What a task returned, as the XComs that are pushed with its final state (S12.5)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from backfill.exceptions import BackfillError
from backfill.store.values import Json, encode
from backfill.store.xcoms import RETURN_VALUE

if TYPE_CHECKING:
    from backfill.dag.base_operator import BaseOperator
    from backfill.dag.dag import DAG

#: More indexes than this no task may be mapped over.
MOST_INDEXES = 1024


def xcoms_of(task: BaseOperator, result: Any, mapped_keys: frozenset[str]) -> dict[str, Json]:
    """Return the encoded XComs of a task that returned `result`; some task is mapped over those named in `mapped_keys`.

    Raises `BackfillError` where the value cannot be kept, has the wrong shape, or cannot be mapped over.
    """
    values = _values(task, result)
    for key in mapped_keys:
        if key == RETURN_VALUE or task.multiple_outputs:  # others may have been pushed by the task itself
            _check_mapping(task.task_id, key, values.get(key))
    return {key: encode(f"{task.task_id}'s {key!r}", value) for key, value in values.items()}


def _values(task: BaseOperator, result: Any) -> dict[str, Any]:
    if result is None or not task.do_xcom_push:
        return {}
    values: dict[str, Any] = {RETURN_VALUE: result}
    if task.multiple_outputs:
        if not isinstance(result, Mapping) or not all(isinstance(key, str) for key in result):
            raise BackfillError(
                f"The task {task.task_id!r} has multiple_outputs and returned {_kind(result)}; it takes a dict with text keys."
            )
        values |= result
    return values


def _check_mapping(task_id: str, key: str, value: Any) -> None:
    what = f"The task {task_id!r} feeds a mapping with its {key!r}"
    if value is None:
        raise BackfillError(f"{what} and returned nothing; return a list or a dict.")
    if not isinstance(value, Mapping | Sequence) or isinstance(value, str | bytes):
        raise BackfillError(
            f"{what} and returned {_kind(value)}, which cannot be mapped over; return a list or a dict."
        )
    if len(value) > MOST_INDEXES:
        raise BackfillError(f"{what} and returned {len(value)} values; at most {MOST_INDEXES} can be mapped over.")


def _kind(value: Any) -> str:
    return f"a value of type {type(value).__name__}"


def mapped_keys(dag: DAG) -> dict[str, frozenset[str]]:
    """Return for each task of one instance the XCom keys that other tasks are mapped over."""
    found: dict[str, set[str]] = defaultdict(set)

    def note(task_id: str, key: str) -> int:
        if not dag.task_dict[task_id].has_many_instances:  # the values of all instances together are mapped over
            found[task_id].add(key)
        return 1

    for task in dag.task_dict.values():
        inputs = [group.expand_input for group in task.mapped_groups]
        for expand_input in [*inputs, task.expand_input] if task.expand_input else inputs:
            expand_input.length(note)
    return {task_id: frozenset(keys) for task_id, keys in found.items()}
