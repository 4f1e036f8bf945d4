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

from backfill.store.prepared import preparing

#: Statements, each with its text as the driver wants it: they are constants of their modules.
_TEXTS: dict[int, tuple[Executable, str]] = {}


class Rows(list[tuple[Any, ...]]):
    """What a statement returned."""

    def scalars(self) -> list[Any]:
        """Return the first column."""
        return [row[0] for row in self]


class DirectEngine:
    """Begins transactions on connections of `engine`. `autocommit`: each statement is one, which saves two round trips of three."""

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
            raise self._translated(error, None, None) from error
        direct = _Direct(self._engine, connection)
        driver = cast("Any", connection.dbapi_connection)
        try:
            if self._autocommit:
                driver.autocommit = True
            try:
                yield cast("Connection", direct)
            except BaseException:
                with suppress(psycopg2.Error):  # what went wrong is told by the first error
                    driver.rollback()
                raise
            direct.commit()
        finally:
            with suppress(psycopg2.Error):  # it is gone
                driver.autocommit = False
            connection.close()

    def _translated(self, error: psycopg2.Error, sql: str | None, parameters: Any) -> BaseException:
        return DBAPIError.instance(sql, parameters, error, psycopg2.Error, dialect=self._engine.dialect)


class _Direct:
    """One connection for the length of a transaction."""

    def __init__(self, engine: Engine, connection: PoolProxiedConnection) -> None:
        self._engine = engine
        self._connection = connection
        self._driver = cast("Any", connection.dbapi_connection)

    def execute(self, statement: Executable, parameters: Mapping[str, Any]) -> Rows:
        sql = preparing(self._engine).replace(_text(self._engine, statement), self._connection.info, self._send)
        cursor = self._driver.cursor()
        self._call(cursor.execute, sql, parameters)
        return Rows(cursor.fetchall() if cursor.description else ())

    def commit(self) -> None:
        self._call(self._driver.commit)

    def _send(self, sql: str) -> None:
        self._call(self._driver.cursor().execute, sql, {})

    def _call(self, function: Any, sql: str | None = None, parameters: Mapping[str, Any] | None = None) -> None:
        try:
            function(*() if sql is None else (sql, parameters))
        except psycopg2.Error as error:
            preparing(self._engine).note(error, sql)
            is_gone = self._engine.dialect.is_disconnect(cast("Any", error), self._driver, None)
            if is_gone:
                self._connection.invalidate(error)
            raise DBAPIError.instance(
                sql, parameters, error, psycopg2.Error, connection_invalidated=is_gone, dialect=self._engine.dialect
            ) from error


def _text(engine: Engine, statement: Executable) -> str:
    known = _TEXTS.get(id(statement))
    if known is None:
        known = _TEXTS[id(statement)] = statement, str(cast("Any", statement).compile(dialect=engine.dialect))
    return known[1]
