"""PostgreSQL and the model side by side: every statement goes to both, and both must say the same.

PostgreSQL's clock is frozen too: the functions that tell the time are hidden by others that tell the simulated one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import model_database
from model_database import Answer, Database, Tables
from sqlalchemy import Connection, Engine, text

_FROZEN = """
create schema simulated;
create function simulated.statement_timestamp() returns timestamptz language sql stable
    as $$ select current_setting('simulated.now')::timestamptz $$;
create function simulated.clock_timestamp() returns timestamptz language sql stable
    as $$ select current_setting('simulated.now')::timestamptz $$;
alter table job alter column created_at set default simulated.clock_timestamp();
"""
TABLES = {
    "job": ("job", "id"),
    "date": ("job_run_date", "job_id, dag_id, ordinal"),
    "run": ("dag_run", "id"),
    "ti": ("task_instance", "id"),
    "attempt": ("task_attempt", "attempt_id::text"),
    "xcom": ("xcom", "task_instance_id, key"),
    "dag": ("dag", "dag_id"),
    "pool": ("slot_pool", "pool"),
}
#: The tables are compared after so many commits, and at the end.
_LOOK_EVERY = 20
ENDS_IN_ORDER = re.compile(r"\border by [^()]*$")


def freeze_time(engine: Engine) -> None:
    """Prepare a database, once."""
    with engine.begin() as connection:
        connection.execute(text(_FROZEN))


class Mirrored:
    """A transaction in both."""

    def __init__(self, tables: Tables, now: datetime, connection: Connection) -> None:
        self._tables = tables
        self._now = now
        self._connection = connection

    def execute(self, statement: Any, parameters: Mapping[str, Any] | None = None) -> Answer:
        real = self._connection.execute(statement, parameters or {})
        true = [tuple(row) for row in real] if real.returns_rows else []
        said = model_database.answer(self._tables, self._now, statement, parameters or {})
        found = [tuple(row) for row in said]
        if ENDS_IN_ORDER.search(str(statement).strip()) is None:
            true, found = sorted(true, key=repr), sorted(found, key=repr)
        assert found == true, f"the model says\n{found}\nPostgreSQL says\n{true}\nto\n{statement}\nwith {parameters}"
        return said


class MirroredDatabase(Database):
    """Begins empty, whatever the real database had."""

    def __init__(self, now: Callable[[], datetime], engine: Engine) -> None:
        super().__init__(now)
        self._engine = engine
        self._commits = 0
        names = ", ".join(name for name, _ in TABLES.values())
        with engine.begin() as connection:
            connection.execute(text(f"truncate {names} restart identity cascade"))

    def add_pools(self, pools: Mapping[str, int]) -> None:
        super().add_pools(pools)
        with self._engine.begin() as connection:
            for name, slots in pools.items():
                insert = text("insert into slot_pool (pool, slots) values (:pool, :slots)")
                connection.execute(insert, {"pool": name, "slots": slots})

    def set_state(self, writer: str, ti_id: int, state: str) -> None:
        with self._engine.begin() as connection:
            update = text("update task_instance set state = :state where id = :id")
            connection.execute(update, {"id": ti_id, "state": state})
        super().set_state(writer, ti_id, state)

    @contextmanager
    def transaction(self, writer: str) -> Iterator[Any]:
        with super().transaction(writer), self._engine.begin() as connection:
            connection.execute(text("set local search_path = simulated, pg_catalog, public"))
            now = self.now()
            connection.execute(text("select set_config('simulated.now', :now, true)"), {"now": now.isoformat()})
            yield Mirrored(self.tables, now, connection)
        self._commits += 1
        if self._commits % _LOOK_EVERY == 0:
            self.compare()

    def compare(self) -> None:
        """Hold all rows of the model against those of PostgreSQL."""
        with self._engine.connect() as connection:
            for name, (table, key) in TABLES.items():
                true = [row._asdict() for row in connection.execute(text(f"select * from {table} order by {key}"))]
                rows = getattr(self.tables, name)
                assert len(rows) == len(true), f"{len(rows)} rows in the model's {table}, {len(true)} in PostgreSQL"
                for (_, row), real in zip(sorted(rows.items()), true, strict=True):
                    self._compare_row(table, vars(row), real)

    def _compare_row(self, table: str, said: dict[str, Any], true: dict[str, Any]) -> None:
        for column, value in said.items():
            real = (
                str(true[column]) if column in {"external_executor_id", "attempt_id"} and true[column] else true[column]
            )
            assert value == real, f"{table}.{column} is {value!r} in the model, {real!r} in PostgreSQL: {true}"
