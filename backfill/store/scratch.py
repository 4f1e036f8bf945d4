"""Rows as they are given, and none at all: how a test makes its database what it wants. Nothing here asks for states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

from sqlalchemy import insert, text

from backfill.models import Base, dag_run, task_instance, xcom
from backfill.store import pools
from backfill.store.database import Tx

_EMPTY = text("; ".join(f"delete from {table.name}" for table in reversed(Base.metadata.sorted_tables)))  # noqa: S608  # our tables


def empty_database(tx: Tx, *, default_pool_slots: int) -> None:
    """Delete every row there is, and make `default_pool` again."""
    tx.execute(text("update dag_run set creating_job_id = null, job_id = null"))
    tx.execute(_EMPTY)
    pools.ensure_default(tx, default_pool_slots)


def insert_run(tx: Tx, values: Mapping[str, Any]) -> int:
    """Write a DAG run as given, by the names of its columns; return its id."""
    return cast("int", tx.execute(insert(dag_run).values(**values).returning(dag_run.c.id)).scalar_one())


class GivenTaskInstance(NamedTuple):
    """A task instance as given, with the XComs that it is to have pushed."""

    values: dict[str, Any]
    xcoms: dict[str, Any]


def insert_task_instances(tx: Tx, given: Iterable[GivenTaskInstance]) -> None:
    """Write task instances as given, by the names of their columns."""
    for each in given:
        statement = insert(task_instance).values(**each.values).returning(task_instance.c.id)
        ti_id = tx.execute(statement).scalar_one()
        for key, value in each.xcoms.items():
            tx.execute(insert(xcom).values(task_instance_id=ti_id, key=key, value=value))


class ScratchRow(NamedTuple):
    """A task instance with the logical date of its run."""

    logical_date: Any
    task_id: str
    map_index: int
    state: str
    try_number: int


_SELECT_ROWS = text("""
select run.logical_date, ti.task_id, ti.map_index, ti.state, ti.try_number
from task_instance ti join dag_run run on run.id = ti.dag_run_id
where run.dag_id = :dag_id order by run.logical_date, ti.task_id, ti.map_index
""")
_SELECT_RUNS = text("select logical_date, state from dag_run where dag_id = :dag_id order by logical_date")


def all_task_instances(tx: Tx, dag_id: str) -> list[ScratchRow]:
    """Return every task instance of a DAG, whichever run it belongs to."""
    return [ScratchRow(*row) for row in tx.execute(_SELECT_ROWS, {"dag_id": dag_id})]


def all_runs(tx: Tx, dag_id: str) -> list[tuple[Any, str]]:
    """Return logical date and state of every run of a DAG."""
    return [(row.logical_date, row.state) for row in tx.execute(_SELECT_RUNS, {"dag_id": dag_id})]
