"""What PostgreSQL answers to a statement on given rows, and which rows it leaves; and whether the model agrees."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from typing import Any, NamedTuple

import model_database
from mirrored_database import ENDS_IN_ORDER, TABLES
from model_database import Tables
from random_questions import Parameters, Question
from random_rows import NOW, copy_of
from sqlalchemy import Connection, Engine, text
from sqlalchemy.dialects.postgresql import insert

from backfill.models import Base

#: What no statement of the simulation reads; `in_flight` is what PostgreSQL makes of the state by itself.
_NOT_MODELLED = {
    "task_instance": {"in_flight"},
    "dag_run": {"created_at"},
    "dag": {"last_used_at"},
    "slot_pool": {"description"},
}
_IDS = {"external_executor_id", "attempt_id"}
_WRITES = re.compile(r"\b(insert into|update|delete from|delete)\b", re.IGNORECASE)
_NUMBERED = ("job", "dag_run", "task_instance")

Content = dict[str, dict[Any, dict[str, Any]]]


class Case(NamedTuple):
    """A statement that was put to PostgreSQL, and what came of it."""

    question: Question
    parameters: Parameters
    before: Tables
    answer: list[tuple[Any, ...]]
    after: Content


def content(tables: Tables) -> Content:
    """Return the model's rows as plain values."""
    return {name: {key: vars(row) for key, row in getattr(tables, name).items()} for name in TABLES}


class Beside:
    """A connection to PostgreSQL in which the rows of a model stand."""

    def __init__(self, connection: Connection, tables: Tables) -> None:
        self._connection = connection
        self._tables = tables
        connection.execute(text("set local search_path = simulated, pg_catalog, public"))
        connection.execute(text("select set_config('simulated.now', :now, true)"), {"now": NOW.isoformat()})
        self._load()
        self._loaded = self._content()

    def _load(self) -> None:
        self._connection.execute(text("delete from slot_pool"))  # those of a new database
        for name in ("dag", "pool", "job", "run", "date", "ti", "attempt", "xcom"):
            rows = [vars(row) for row in getattr(self._tables, name).values()]
            if rows:
                self._connection.execute(insert(Base.metadata.tables[TABLES[name][0]]), rows)

    def put(self, question: Question, parameters: Parameters) -> Case:
        """Carry the statement out, and leave no trace of it."""
        sql = str(question.statement)
        named = [name for name, (table, _) in TABLES.items() if re.search(rf"\b{table}\b", sql)]
        writes = _WRITES.search(sql) is not None
        with self._connection.begin_nested() as savepoint:
            if writes:
                self._number_on()
            result = self._connection.execute(question.statement, parameters)
            answer = [tuple(row) for row in result] if result.returns_rows else []
            after = {**self._loaded, **self._content(named)} if writes else self._loaded
            savepoint.rollback()
        return Case(question, parameters, self._tables, answer, after)

    def _number_on(self) -> None:
        """Let new rows have the ids after those that are there, as in the model."""
        for table in _NUMBERED:
            last = f"coalesce((select max(id) from {table}), 0) + 1"
            self._connection.execute(text(f"select setval(pg_get_serial_sequence('{table}', 'id'), {last}, false)"))

    def _content(self, names: Iterable[str] = TABLES) -> Content:
        return {name: dict(self._rows(*TABLES[name])) for name in names}

    def _rows(self, table: str, key: str) -> Iterator[tuple[Any, dict[str, Any]]]:
        columns = [column.name for column in Base.metadata.tables[table].columns]
        modelled = [column for column in columns if column not in _NOT_MODELLED.get(table, ())]
        names = ", ".join(f"{name}::text" if name in _IDS else name for name in modelled)
        key_of = itemgetter(*key.removesuffix("::text").split(", "))
        for row in self._connection.execute(text(f"select {names} from {table}")):
            values = dict(zip(modelled, row, strict=True))
            yield key_of(values), values


@contextmanager
def beside(engine: Engine, tables: Tables) -> Iterator[Beside]:
    """Give a database, whose time is frozen and which is empty, the rows of `tables`, for a while."""
    with engine.connect() as connection, connection.begin() as transaction:
        yield Beside(connection, tables)
        transaction.rollback()


def disagreement(case: Case, answer: Callable[..., Any] = model_database.answer) -> str | None:
    """Return in words where the model says or does anything else than PostgreSQL did; None: nowhere."""
    tables = copy_of(case.before)
    try:
        said = [tuple(row) for row in answer(tables, NOW, case.question.statement, case.parameters)]
    except Exception as error:  # noqa: BLE001  # PostgreSQL had an answer
        return f"{_told(case)}: the model fails with {error!r}, PostgreSQL says\n{case.answer}"
    true = case.answer
    if ENDS_IN_ORDER.search(str(case.question.statement).strip()) is None:
        said, true = sorted(map(_unordered, said), key=repr), sorted(map(_unordered, true), key=repr)
    if said != true:
        return f"{_told(case)}: the model says\n{said}\nPostgreSQL says\n{true}"
    return _other_rows(case, content(tables))


def _unordered(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a row whose lists, which an answer without an order aggregates in none either, can be compared."""
    return tuple(sorted(value, key=repr) if isinstance(value, list) else value for value in row)


def _other_rows(case: Case, left: Content) -> str | None:
    for name in TABLES:
        for key in left[name].keys() | case.after[name].keys():
            said, true = left[name].get(key), case.after[name].get(key)
            if said != true:
                columns = [
                    column
                    for column in {**(said or {}), **(true or {})}
                    if (said or {}).get(column) != (true or {}).get(column)
                ]
                return f"{_told(case)}: {name} {key} differs in {columns}: the model leaves\n{said}\nPostgreSQL leaves\n{true}"
    return None


def _told(case: Case) -> str:
    return f"{case.question.name} with {case.parameters}"
