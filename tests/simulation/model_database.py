"""A database in memory, for the real functions of `backfill.store`: each of their statements is answered by a function here.

The seam is the statement. `Transaction.execute` looks up who answers it, so that all Python code between the loop and SQL is the real
one, and a statement that the model does not know is an error. Rows never change: a changed one takes the place of the old, so that a
transaction is rolled back by putting the old tables in place, and what it changed is told by identity.

Transactions run one at a time: what locks are for is tested against PostgreSQL (tests/store/test_races.py). That the answers are those of
PostgreSQL is a test too (test_model_and_postgres.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple

from sqlalchemy import URL
from sqlalchemy.exc import OperationalError

Answerer = Callable[..., Sequence[Any]]

_ANSWERERS: dict[int, tuple[Any, Answerer]] = {}


def answers(*statements: Any) -> Callable[[Answerer], Answerer]:
    """Register a function of tables, present time and the statement's parameters as what answers `statements`."""

    def register(answerer: Answerer) -> Answerer:
        for statement in statements:
            _ANSWERERS[id(statement)] = (statement, answerer)
        return answerer

    return register


def answer(tables: Tables, now: datetime, statement: Any, parameters: Mapping[str, Any]) -> Answer:
    """Carry `statement` out; `LookupError` if it is none of those that are known."""
    known = _ANSWERERS.get(id(statement))
    if known is None:
        raise LookupError(f"the model of the database does not know the statement:\n{statement}")
    return Answer(known[1](tables, now, **parameters) or [])


class Row:
    """One row of a table; `but` gives a changed one."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def but(self, **values: Any) -> Row:
        changed = Row.__new__(Row)
        changed.__dict__.update(self.__dict__)
        changed.__dict__.update(values)
        return changed

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def __repr__(self) -> str:
        return f"Row({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items() if value is not None)})"


@lru_cache(maxsize=100)
def _record_type(names: tuple[str, ...]) -> Any:
    return NamedTuple("Record", [(name, Any) for name in names])  # type: ignore[misc]  # as many types as statements


def record(**values: Any) -> Any:
    """Return a row of an answer, whose columns have names."""
    return _record_type(tuple(values))(*values.values())


class Answer:
    """What a statement returned, as SQLAlchemy's results are read."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self.rows = list(rows)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)

    def all(self) -> list[Any]:
        return self.rows

    @property
    def cursor(self) -> Answer:
        return self

    def fetchall(self) -> list[Any]:
        return [tuple(row) for row in self.rows]

    def close(self) -> None:
        pass

    def one(self) -> Any:
        (row,) = self.rows
        return row

    def one_or_none(self) -> Any:
        assert len(self.rows) <= 1
        return self.rows[0] if self.rows else None

    def scalars(self) -> list[Any]:
        return [row[0] for row in self.rows]

    def scalar_one(self) -> Any:
        (row,) = self.rows
        return row[0]


_TABLES = ("job", "date", "run", "ti", "attempt", "xcom", "dag", "pool")


class Tables:
    """All rows by their keys."""

    def __init__(self) -> None:
        self.job: dict[int, Row] = {}
        self.date: dict[tuple[int, str, int], Row] = {}
        self.run: dict[int, Row] = {}
        self.ti: dict[int, Row] = {}
        self.attempt: dict[str, Row] = {}
        self.xcom: dict[tuple[int, str], Row] = {}
        self.dag: dict[str, Row] = {}
        self.pool: dict[str, Row] = {}
        #: Like PostgreSQL's, these count on whatever becomes of the transaction.
        self.job_ids, self.run_ids, self.ti_ids = count(1), count(1), count(1)

    def snapshot(self) -> dict[str, dict[Any, Row]]:
        return {name: dict(getattr(self, name)) for name in _TABLES}

    def restore(self, snapshot: Mapping[str, dict[Any, Row]]) -> None:
        for name in _TABLES:
            setattr(self, name, snapshot[name])

    def tis_of(self, run_ids: Sequence[int]) -> list[Row]:
        """Return the task instances of runs in the order of id."""
        wanted = set(run_ids)
        return [ti for _, ti in sorted(self.ti.items()) if ti.dag_run_id in wanted]

    def change(self, table: str, key: Any, **values: Any) -> Row:
        rows = getattr(self, table)
        rows[key] = changed = rows[key].but(**values)
        return changed


class Change(NamedTuple):
    """A row that a transaction wrote: None stands for no row."""

    table: str
    key: Any
    before: Row | None
    after: Row | None


class Transaction:
    """What functions of the store take for a connection."""

    def __init__(self, tables: Tables, now: datetime) -> None:
        self._tables = tables
        self._now = now

    def execute(self, statement: Any, parameters: Mapping[str, Any] | None = None) -> Answer:
        return answer(self._tables, self._now, statement, parameters or {})


class Database:
    """The tables, the time, and who wants to know of each commit: it is told who wrote what, and may raise."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.tables = Tables()
        self.now = now
        self.on_commit: Callable[[str, list[Change]], None] = lambda writer, changes: None

    def engine(self, writer: str, before: Callable[[], None] = lambda: None) -> ModelEngine:
        """Return the way of one process to the database; `before` is called before each of its transactions."""
        return ModelEngine(self, writer, before)

    def add_pools(self, pools: Mapping[str, int]) -> None:
        """Add pools by name, with their slots."""
        for name, slots in pools.items():
            self.tables.pool[name] = Row(pool=name, slots=slots)

    def set_state(self, writer: str, ti_id: int, state: str) -> None:
        """Set a task instance's state by hand (S3.25)."""
        before = self.tables.ti[ti_id]
        after = self.tables.change("ti", ti_id, state=state)
        self.on_commit(writer, [Change("ti", ti_id, before, after)])

    @contextmanager
    def transaction(self, writer: str) -> Iterator[Any]:
        snapshot = self.tables.snapshot()
        try:
            yield Transaction(self.tables, self.now())
        except BaseException:
            self.tables.restore(snapshot)
            raise
        changes = [
            Change(name, key, before.get(key), after.get(key))
            for name, before in snapshot.items()
            if (after := getattr(self.tables, name)) is not before
            for key in before.keys() | after.keys()
            if before.get(key) is not after.get(key)
        ]
        if changes:
            self.on_commit(writer, changes)


class ModelEngine:
    """Stands for SQLAlchemy's engine: `begin` is all that the store's callers use of it, with options that change nothing here."""

    url = URL.create("postgresql+psycopg2", host="model", database="model")

    def __init__(self, database: Database, writer: str, before: Callable[[], None]) -> None:
        self._database = database
        self._writer = writer
        self._before = before
        #: What befalls the next transactions: "refused", or "answer lost" after the commit.
        self.faults: deque[str] = deque()

    def execution_options(self, **_: Any) -> ModelEngine:
        return self

    @contextmanager
    def begin(self) -> Iterator[Any]:
        self._before()
        fault = self.faults.popleft() if self.faults else None
        if fault == "refused":
            raise _connection_lost()
        with self._database.transaction(self._writer) as tx:
            yield tx
        if fault == "answer lost":
            raise _connection_lost()


def _connection_lost() -> OperationalError:
    return OperationalError("a statement", {}, Exception("the connection was cut"), connection_invalidated=True)
