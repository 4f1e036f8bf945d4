"""A task instance as operators see it, without database or worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from backfill.dag import DAG, AbstractOperator, BaseOperator

DAY = datetime(2024, 1, 1, tzinfo=UTC)


class FakeTaskInstance:
    """Pulls from a dict: (task id, key) to a value, or to a list of values for a task of several instances."""

    def __init__(self, task: AbstractOperator, map_index: int, xcoms: Mapping[tuple[str, str], Any]) -> None:
        self.dag_id = task.dag_id
        self.task_id = task.task_id
        self.run_id = "backfill__2024-01-01T00:00:00+00:00"
        self.map_index = map_index
        self.try_number = 1
        self.first_start_date: datetime | None = datetime.now(UTC)
        self.xcoms = xcoms

    def xcom_pull(self, task_ids: str, key: str = "return_value", map_indexes: Any = None) -> Any:
        value: Any = self.xcoms.get((task_ids, key))
        if isinstance(map_indexes, int):
            return value[map_indexes]
        if map_indexes is not None:
            return [value[index] for index in map_indexes]
        return value


@pytest.fixture
def dag() -> DAG:
    return DAG("d", schedule="@daily", start_date=DAY)


def context_of(
    task: AbstractOperator, map_index: int = -1, xcoms: Mapping[tuple[str, str], Any] | None = None, **names: Any
) -> dict[str, Any]:
    ti = FakeTaskInstance(task, map_index, xcoms or {})
    return {"dag": task.dag, "task": task, "ti": ti, "ds": "2024-01-01", "params": {}, **names}


@pytest.fixture
def context() -> Callable[..., dict[str, Any]]:
    """Return the context of a task instance, as far as operators look at it."""
    return context_of


@pytest.fixture
def prepare() -> Callable[..., tuple[BaseOperator, dict[str, Any]]]:
    """Return the operator as a worker makes it, unmapped and rendered, and its context."""

    def prepare(
        task: AbstractOperator, map_index: int = -1, xcoms: Mapping[tuple[str, str], Any] | None = None, **names: Any
    ) -> tuple[BaseOperator, dict[str, Any]]:
        context = context_of(task, map_index, xcoms, **names)
        operator = task.unmap(map_index, context)
        context["task"] = operator
        operator.render_template_fields(context)
        return operator, context

    return prepare


@pytest.fixture
def run(prepare: Callable[..., Any]) -> Callable[..., Any]:
    """Run a task as a worker does and return what it returns."""

    def run(task: AbstractOperator, map_index: int = -1, xcoms: Any = None, **names: Any) -> Any:
        operator, context = prepare(task, map_index, xcoms, **names)
        return operator.execute(context)

    return run
