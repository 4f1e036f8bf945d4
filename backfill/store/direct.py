"""Transactions by the driver itself, for the few statements that every task instance passes.

For a worker that takes attempts one by one, what SQLAlchemy does around a statement is more work than the statement. Connections, the
text of statements and the errors that are raised are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, cast

import psycopg2
from sqlalchemy import URL, Connection, Engine, Executable
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import PoolProxiedConnection

from backfill.store.prepared import IS_REPEATED, preparing

#: Statements, each with its text as the driver wants it, and whether it may be prepared: they are constants of their modules.
_TEXTS: dict[int, tuple[Executable, str, bool]] = {}
_NOTHING: Mapping[str, Any] = {}


class Rows(list[tuple[Any, ...]]):
    """What a statement returned."""

    def scalars(self) -> list[Any]:
        """Return the first column."""
        return [row[0] for row in self]


class DirectEngine:
    """Begins transactions on connections of `engine`, in one round trip with their first statement.

    `autocommit`: each statement is a transaction, and nothing else is sent. Whoever gets no answer to one does not know what it did.
    """

    def __init__(self, engine: Engine, *, autocommit: bool = False) -> None:
        self._engine = engine
        self._autocommit = autocommit

    @property
    def url(self) -> URL:
        """Where the server is."""
        return self._engine.url

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Yield something that executes statements as a `Connection` does; committed at the end of the block.

        What it returns can be gone through, and has `scalars`. Errors are SQLAlchemy's.
        """
        try:
            connection = self._engine.raw_connection()
        except psycopg2.Error as error:
            raise DBAPIError.instance(None, None, error, psycopg2.Error, dialect=self._engine.dialect) from error
        direct = _Direct(self._engine, connection, autocommit=self._autocommit)
        try:
            yield cast("Connection", direct)
            direct.commit()
        except BaseException:
            direct.roll_back()
            raise
        finally:
            direct.give_back()


class _Direct:
    """One connection for the length of a transaction."""

    def __init__(self, engine: Engine, connection: PoolProxiedConnection, *, autocommit: bool) -> None:
        self._engine = engine
        self._connection = connection
        self._driver = cast("Any", connection.dbapi_connection)
        self._cursor: Any = None
        self._is_to_begin = not autocommit
        self._has_begun = False

    def execute(self, statement: Executable, parameters: Mapping[str, Any]) -> Rows:
        _, sql, repeated = _TEXTS.get(id(statement)) or _compiled(self._engine, statement)
        if repeated:
            sql = preparing(self._engine).replace(sql, self._connection.info, self._send)
        if self._is_to_begin:
            self._is_to_begin, self._has_begun = False, True
            sql = f"BEGIN; {sql}"
        self._send(sql, parameters)
        return Rows(self._cursor.fetchall() if self._cursor.description else ())

    def commit(self) -> None:
        if self._has_begun:
            self._send("COMMIT")
            self._has_begun = False

    def roll_back(self) -> None:
        """Undo what was begun, if the connection is still there; what went wrong is told by the first error."""
        if self._has_begun and not self._driver.closed:
            try:
                self._cursor.execute("ROLLBACK")
            except psycopg2.Error as error:
                self._connection.invalidate(error)

    def give_back(self) -> None:
        with suppress(psycopg2.Error):  # it is gone
            self._driver.autocommit = False
        self._connection.close()

    def _send(self, sql: str, parameters: Mapping[str, Any] = _NOTHING) -> None:
        try:
            if self._cursor is None:
                self._driver.autocommit = True  # the driver would send BEGIN by itself
                self._cursor = self._driver.cursor()
            self._cursor.execute(sql, parameters)
        except psycopg2.Error as error:
            preparing(self._engine).note(error, sql)
            is_gone = self._engine.dialect.is_disconnect(cast("Any", error), self._driver, self._cursor)
            if is_gone:
                self._connection.invalidate(error)
            raise DBAPIError.instance(
                sql, parameters, error, psycopg2.Error, connection_invalidated=is_gone, dialect=self._engine.dialect
            ) from error


def _compiled(engine: Engine, statement: Executable) -> tuple[Executable, str, bool]:
    sql = str(cast("Any", statement).compile(dialect=engine.dialect))
    repeated = bool(statement.get_execution_options().get(IS_REPEATED))
    known = _TEXTS[id(statement)] = statement, sql, repeated
    return known
