"""Rows that tests of the worker's side start from, and a look at what became of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Engine, event, insert, select

from backfill.keys import TaskInstanceKey, backfill_run_id
from backfill.messages import Attempt
from backfill.models import dag_pickle, dag_run, job, job_run_date, task_attempt, task_instance, xcom

FIRST_DATE = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Planted:
    """A task instance and its attempt."""

    id: int
    attempt_id: str


def plant_job(tx: Connection, dag_id: str = "sales", **values: Any) -> int:
    row = {"job_type": "BackfillJob", "dag_id": dag_id, "state": "running", "start_date": FIRST_DATE, **values}
    return tx.execute(insert(job).values(row).returning(job.c.id)).scalar_one()


def plant_pickle(tx: Connection, content_hash: str = "cafe") -> str:
    row = {"hash": content_hash, "dag_id": "sales", "payload": b"p", "signature": "s", "python_version": "3.11"}
    tx.execute(insert(dag_pickle).values(row))
    return content_hash


def plant_run(tx: Connection, day: int = 0, dag_id: str = "sales", **values: Any) -> int:
    date = FIRST_DATE + day * DAY
    row = {
        "dag_id": dag_id,
        "run_id": backfill_run_id(date),
        "logical_date": date,
        "data_interval_start": date,
        "data_interval_end": date + DAY,
        "run_type": "backfill",
        "state": "running",
        "start_date": date + timedelta(hours=30),
        **values,
    }
    return tx.execute(insert(dag_run).values(row).returning(dag_run.c.id)).scalar_one()


def plant_date(tx: Connection, job_id: int, ordinal: int, dag_run_id: int | None, **values: Any) -> None:
    """A date of a job; by default it is admitted if it has a run."""
    date = FIRST_DATE + ordinal * DAY
    row = {
        "job_id": job_id,
        "dag_id": "sales",
        "ordinal": ordinal,
        "logical_date": date,
        "data_interval_start": date,
        "data_interval_end": date + DAY,
        "action": "create",
        "dag_run_id": dag_run_id,
        "progress": "pending" if dag_run_id is None else "admitted",
        "active": False,
        **values,
    }
    tx.execute(insert(job_run_date).values(row))


def plant_task_instance(tx: Connection, dag_run_id: int, task_id: str = "load", **values: Any) -> Planted:
    """A task instance as it is after dispatch, `queued`; a running one also has its entry in the history."""
    run = tx.execute(select(dag_run).where(dag_run.c.id == dag_run_id)).one()
    row = {
        "dag_run_id": dag_run_id,
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "task_id": task_id,
        "state": "queued",
        "try_number": 1,
        "try_open": True,
        "external_executor_id": str(uuid4()),
        "pool": "default_pool",
        "queue": "backfill",
        **values,
    }
    found = tx.execute(insert(task_instance).values(row).returning(task_instance)).one()
    return Planted(found.id, found.external_executor_id)


def plant_attempt(tx: Connection, planted: Planted, **values: Any) -> None:
    row = {
        "attempt_id": planted.attempt_id,
        "task_instance_id": planted.id,
        "try_number": 1,
        "start_date": FIRST_DATE,
        **values,
    }
    tx.execute(insert(task_attempt).values(row))


def plant_running(tx: Connection, dag_run_id: int, task_id: str = "load", **values: Any) -> Planted:
    """A task instance whose attempt has been claimed."""
    start = datetime.now(UTC) - timedelta(minutes=5)
    defaults = {"state": "running", "start_date": start, "first_start_date": start, "heartbeat_at": start}
    planted = plant_task_instance(tx, dag_run_id, task_id, **{**defaults, **values})
    plant_attempt(tx, planted, start_date=start)
    return planted


def attempt_of(planted: Planted, *, try_number: int = 1, **values: Any) -> Attempt:
    """The attempt of a planted task instance as a message carries it; only ids and try count for a claim."""
    given = {"task_instance_id": planted.id, "attempt_id": planted.attempt_id, "try_number": try_number} | values
    return Attempt(key=TaskInstanceKey("sales", "load", "run"), **given)


def plant_xcom(tx: Connection, planted: Planted, key: str, value: Any) -> None:
    tx.execute(insert(xcom).values(task_instance_id=planted.id, key=key, value=value))


def look(tx: Connection, planted: Planted) -> dict[str, Any]:
    """Everything that hangs on a task instance: its row, its history, its XComs."""
    row = tx.execute(select(task_instance).where(task_instance.c.id == planted.id)).one()
    attempts = tx.execute(select(task_attempt).where(task_attempt.c.task_instance_id == planted.id)).all()
    xcoms = tx.execute(select(xcom.c.key, xcom.c.value).where(xcom.c.task_instance_id == planted.id)).all()
    return {
        **row._asdict(),
        "attempts": {attempt.attempt_id: attempt._asdict() for attempt in attempts},
        "xcoms": dict(xcoms),
    }


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """The statements that are executed within the block, in full; what prepares them for the next time is not among them."""
    seen: list[str] = []

    def note(_: Any, __: Any, statement: str, ___: Any, context: Any, *____: Any) -> None:
        if not statement.startswith("prepare backfill_"):
            seen.append(statement if context.compiled is None else str(context.compiled))

    event.listen(engine, "before_cursor_execute", note)
    yield seen
    event.remove(engine, "before_cursor_execute", note)


def waits_for_a_lock(engine: Engine) -> bool:
    """Whether a statement of this database waits for a row that another transaction holds."""
    with engine.connect() as watcher:
        query = (
            "select exists (select from pg_stat_activity "
            "where datname = current_database() and wait_event_type = 'Lock')"
        )
        return bool(watcher.exec_driver_sql(query).scalar_one())
