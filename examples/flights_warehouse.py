"""The warehouse of the flights: a PostgreSQL database, made with its tables when it is first used.

It is where $WAREHOUSE_URL says, else a database `warehouse` on the server that backfill itself uses.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import psycopg2.extensions
import psycopg2.extras
from psycopg2 import errors, sql

from backfill.config import Settings, load_settings
from backfill.embedded import Servers

#: A row of a result, or of a table without its day.
Row = Sequence[Any]

TABLES = """
CREATE TABLE IF NOT EXISTS departure (
    day date, carrier text, flight text, tail_number text, origin text, destination text, hour int, delay int);
CREATE INDEX IF NOT EXISTS departure_day ON departure (day);
CREATE TABLE IF NOT EXISTS weather (
    day date, origin text, hour int, temperature float, wind float, rain float, visibility float);
CREATE INDEX IF NOT EXISTS weather_day_origin_hour ON weather (day, origin, hour);
CREATE TABLE IF NOT EXISTS carrier_day (
    day date, carrier text, departures int, flown int, mean_delay float, PRIMARY KEY (day, carrier));
CREATE TABLE IF NOT EXISTS origin_day (
    day date, origin text, departures int, flown int, mean_delay float, PRIMARY KEY (day, origin));
CREATE TABLE IF NOT EXISTS weather_day (
    day date, condition text, departures int, flown int, mean_delay float, PRIMARY KEY (day, condition));
CREATE TABLE IF NOT EXISTS running_total (
    day date PRIMARY KEY, departures int, total int);
"""
#: The table that is made last: where it is, all are.
LAST_TABLE = "running_total"


class Transaction:
    """Reads and writes that take effect together."""

    def __init__(self, cursor: psycopg2.extensions.cursor) -> None:
        self._cursor = cursor

    def select(self, query: str, **values: object) -> list[Row]:
        """Return the rows that `query` finds; `%(name)s` in it stands for the value of that name."""
        self._cursor.execute(query, values)
        return [list(row) for row in self._cursor.fetchall()]

    def replace(self, table: str, day: str, rows: Sequence[Row]) -> None:
        """Make `rows` the only ones of `day` in `table`, so that doing it twice changes nothing."""
        name = sql.Identifier(table)
        self._cursor.execute(sql.SQL("DELETE FROM {} WHERE day = %s").format(name), (day,))
        insert = sql.SQL("INSERT INTO {} VALUES %s").format(name)
        psycopg2.extras.execute_values(self._cursor, insert, [(day, *row) for row in rows], page_size=1000)


@contextmanager
def transaction(url: str | None = None) -> Iterator[Transaction]:
    """Yield a transaction in the warehouse, committed at the end of the block, rolled back when that raises."""
    with closing(_connect(url or warehouse_url())) as connection, connection, connection.cursor() as cursor:
        yield Transaction(cursor)


def warehouse_url(database_url: str = "") -> str:
    """Return where the warehouse is, given where backfill's own database is, by default that of the settings."""
    if os.environ.get("WAREHOUSE_URL"):
        return _plain(os.environ["WAREHOUSE_URL"])
    return _on_the_same_server(database_url or _database_url(load_settings()), "warehouse")


def _database_url(settings: Settings) -> str:
    if settings.database.url:
        return settings.database.url
    with Servers(settings.core.home) as servers:  # embedded: the worker keeps it running, this only asks where
        return str(servers.acquire(broker=False).database_url)


def _connect(url: str) -> psycopg2.extensions.connection:
    try:
        connection = psycopg2.connect(url)
    except psycopg2.OperationalError:
        _create_database(url)
        connection = psycopg2.connect(url)
    _create_tables(connection)
    return connection


def _create_database(url: str) -> None:
    """Create the database that `url` names if the server answers and has none of that name."""
    name = urlsplit(url).path.removeprefix("/")
    with closing(psycopg2.connect(_on_the_same_server(url, "postgres"))) as connection:
        connection.autocommit = True
        another_was_faster = errors.DuplicateDatabase, errors.UniqueViolation
        with connection.cursor() as cursor, suppress(*another_was_faster):
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def _create_tables(connection: psycopg2.extensions.connection) -> None:
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s)", (LAST_TABLE,))
        if cursor.fetchone() == (None,):
            cursor.execute("SELECT pg_advisory_xact_lock(2013)")  # of two tasks one makes them, the other finds them
            cursor.execute(TABLES)


def _on_the_same_server(url: str, database: str) -> str:
    parts = urlsplit(_plain(url))
    return f"postgresql://{parts.netloc}/{database}" + (f"?{parts.query}" if parts.query else "")


def _plain(url: str) -> str:
    """Return `url` without the name of a driver, which psycopg2 does not understand."""
    return f"postgresql://{url.partition('://')[2]}"
