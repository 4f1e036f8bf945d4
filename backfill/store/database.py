"""The way to PostgreSQL: URLs, engines, which errors pass by themselves, and transactions that are repeated until they do."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar, cast

import sqlalchemy
from sqlalchemy import URL, Connection, Engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    InvalidatePoolError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from backfill.exceptions import ConfigError, ServiceUnavailable
from backfill.store.prepared import UNUSABLE, Preparing

logger = logging.getLogger(__name__)

#: What every function of the store takes first; it executes in the caller's transaction and never commits.
Tx = Session | Connection

T = TypeVar("T")

_DRIVER = "postgresql+psycopg2"
_SCHEMES = frozenset({"postgres", "postgresql", _DRIVER})

#: Pauses between two attempts at a transaction, in seconds; the last one repeats. The first is for deadlocks, the others
#: for a server that restarts.
_PAUSES = (0.05, 0.2, 0.8, 3.2, 5.0)

#: A connection used within this time counts as alive; should it not be, the transaction is repeated (`repeat`).
REST = timedelta(seconds=30)

#: Classes and codes of SQLSTATE whose cause passes by itself (S1.8).
_PASSING_CLASSES = frozenset({"08"})  # connection lost
_PASSING_CODES = frozenset(
    {
        "25006",  # a server that is not writable yet, during a failover
        "25P03",  # we idled in a transaction, and were put out
        "40001",  # serialization failure
        "40003",  # unknown whether the statement completed; every write of ours is guarded by the old state
        "40P01",  # deadlock
        "53200",  # out of memory
        "53300",  # too many connections
        "55P03",  # lock_timeout ran out
        "57P01",  # the server shuts down
        "57P02",  # another backend crashed
        "57P03",  # the server starts up
        "57P05",  # we idled, and were put out
    }
    | UNUSABLE  # a prepared statement is not there: the next try does without
)
#: A connection that fails has no SQLSTATE, only words. These will not change by waiting; any other words may.
_REFUSALS = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|does not exist|permission denied for database"
    r"|certificate|root\.crt|server does not support SSL|is not permitted to log in",
    re.IGNORECASE,
)


def normalise_url(url: str) -> str:
    """Return `url` as SQLAlchemy wants it for psycopg2, whichever of the three usual schemes it has (interface.md, section 4).

    Raises `ConfigError` for a URL that cannot be read or names another kind of database; passwords are masked in it.
    """
    scheme, separator, rest = url.strip().partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ConfigError(
            f"The database URL {mask_url(url)!r} is not of the form postgresql://user@host:5432/database; "
            "correct `database.url`: no other kind of database can be used."
        )
    normalised = f"{_DRIVER}://{rest}"
    try:
        make_url(normalised)
        readable = rest.partition("?")[0].count("@") <= 1
    except (ArgumentError, ValueError):
        readable = False
    if not readable:
        raise ConfigError(
            f"The database URL {mask_url(url)!r} cannot be read: correct `database.url`, and write special characters of "
            "user and password as %XX."
        )
    return normalised


_QUERY_SECRET = re.compile(r"\b((?:ssl)?password=)(?:'[^']*'|[^&\s]*)", re.IGNORECASE)
#: Up to the last `@`, so that a password with an unquoted `@` in it does not show either; the scheme may be missing.
_USERINFO_SECRET = re.compile(r"^((?:[^:/?#@]+://)?[^:/@]*):(?!//).*@", re.DOTALL)


def mask_url(url: str) -> str:
    """Return `url` with `***` for its password, also where it is no valid URL or has the password in its query."""
    return _USERINFO_SECRET.sub(r"\1:***@", _QUERY_SECRET.sub(r"\1***", url))


def server_name(url: str | URL) -> str:
    """Return the server of a database URL for messages: `host:port/database`, or the socket's folder; never a secret."""
    parts = make_url(url)
    asked = parts.query.get("host")
    host = parts.host or (asked if isinstance(asked, str) else ",".join(asked or ())) or "localhost"
    port = f":{parts.port}" if parts.port else ""
    return f"{host}{port}/{parts.database}" if parts.database else f"{host}{port}"


def create_engine(
    url: str,
    *,
    application_name: str,
    connect_timeout: timedelta = timedelta(seconds=10),
    pool_size: int = 5,
    pre_ping: bool = True,
) -> Engine:
    """Return an engine for `url` in any of its forms; nothing is connected yet.

    `application_name` shows in `pg_stat_activity`. With `pre_ping` a connection that has rested in the pool for `REST` is tried
    first, one round trip. Raises `ConfigError` as `normalise_url` does.
    """
    parts = make_url(normalise_url(url))
    engine = sqlalchemy.create_engine(
        parts,
        connect_args=_connect_args(parts, application_name, connect_timeout),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=connect_timeout.total_seconds(),
        pool_use_lifo=True,  # idle connections beyond those needed stay idle, and a server may put them out
    )
    Preparing(engine)
    if pre_ping:
        _try_after_rest(engine)
    # SQLAlchemy's own way back from `autocommitting` names an isolation level, for which psycopg2 sends a statement each time
    setattr(engine.dialect, "reset_isolation_level", _begin_transactions_again)  # noqa: B010  # it is a method
    return engine


def _begin_transactions_again(connection: DBAPIConnection) -> None:
    connection.autocommit = False


def _try_after_rest(engine: Engine) -> None:
    """Have connections tried before they are used again after `REST`; a dead one is replaced with all that are as old."""

    def note(_: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        record.info["rests_since"] = time.monotonic()

    def try_out(connection: DBAPIConnection, record: ConnectionPoolEntry, _: object) -> None:
        rests_since = record.info.pop("rests_since", None)
        if rests_since is None or time.monotonic() - rests_since < REST.total_seconds():
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error

    event.listen(engine, "checkin", note)
    event.listen(engine, "checkout", try_out)


def autocommitting(engine: Engine) -> Engine:
    """Return `engine`, with the same connections, so that each statement is a transaction: one round trip instead of three.

    For reads, which see no more of one moment in a transaction of ours either, and for writes of one statement.
    """
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def _connect_args(parts: URL, application_name: str, connect_timeout: timedelta) -> dict[str, object]:
    own_options = parts.query.get("options", "")
    options = [
        "-c timezone=UTC",
        "-c idle_in_transaction_session_timeout=15s",  # a frozen process must not hold the locks of S5.1
        "-c lock_timeout=10s",  # waiting longer means that somebody is stuck: give up and repeat
        "-c enable_seqscan=off",  # every statement follows an index; of a table not analysed yet the planner guesses otherwise
        "-c plan_cache_mode=force_generic_plan",  # what is prepared is planned once, not five times more before that
        "-c jit=off",  # every statement is short; to compile one costs more than it saves
        *([own_options] if isinstance(own_options, str) else own_options),
    ]
    return {
        "application_name": application_name[:63],  # longer ones the server cuts off with a notice
        "connect_timeout": max(2, round(connect_timeout.total_seconds())),  # libpq knows whole seconds, and 2 at least
        "keepalives": 1,
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,  # milliseconds until data that nobody acknowledges ends the connection
        "options": " ".join(option for option in options if option),
    }


def is_passing(error: BaseException) -> bool:
    """Return whether the cause of `error` may be gone when the whole transaction is repeated (S1.8)."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, sqlalchemy.exc.TimeoutError)  # every connection of the pool was in use
    code = _sqlstate(error)
    if code is not None:
        return code in _PASSING_CODES or code[:2] in _PASSING_CLASSES
    if error.connection_invalidated:
        return True
    return isinstance(error, OperationalError | InterfaceError) and not _REFUSALS.search(str(error.orig))


def _sqlstate(error: DBAPIError) -> str | None:
    return cast("str | None", getattr(error.orig, "pgcode", None))


def repeat(
    engine: Engine,
    work: Callable[[Connection], T],
    *,
    attempts: int = 6,
    wait: Callable[[float], object] = time.sleep,
) -> T:
    """Return what `work` returns, done in one transaction that is committed after it.

    A passing error (S1.8) rolls back and repeats the whole of `work`, `attempts` times in all, with growing pauses in which
    `wait` is called with seconds (give an event's `wait` to end them early). A commit whose answer was lost is repeated
    too: that is harmless since every write is guarded by the state that it starts from.
    Raises `ServiceUnavailable` when the attempts are used up, or at once when the server refuses us; it names the server.
    """
    for attempt in range(1, attempts + 1):
        try:
            with engine.begin() as connection:
                return work(connection)
        except (DBAPIError, sqlalchemy.exc.TimeoutError) as error:
            if not is_passing(error):
                _raise_if_refused(engine, error)
                raise
            if attempt == attempts:
                raise ServiceUnavailable(
                    f"The database at {server_name(engine.url)} gave no answer in {attempts} attempts ({_reason(error)}); "
                    "check that it runs and can be reached, then repeat the command."
                ) from error
            logger.debug("A transaction is repeated (attempt %d of %d): %s", attempt, attempts, _reason(error))
        wait(_pause(attempt))
    raise ValueError(f"attempts is {attempts}; at least one is needed")


def _pause(attempt: int) -> float:
    """Return the seconds to wait after `attempt`, spread so that two transactions that collided do not meet again."""
    longest = _PAUSES[min(attempt, len(_PAUSES)) - 1]
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  # no secret


def _raise_if_refused(engine: Engine, error: Exception) -> None:
    """Raise what to tell the operator if no connection came about; errors of a statement have an SQLSTATE."""
    if not isinstance(error, DBAPIError) or _sqlstate(error) is not None:
        return
    where = server_name(engine.url)
    if isinstance(error, OperationalError):
        raise ServiceUnavailable(
            f"The database at {where} refused the connection ({_reason(error)}); correct `database.url` or grant access."
        ) from error
    if isinstance(error, ProgrammingError):
        raise ConfigError(
            f"The URL of the database at {where} is wrong ({_reason(error)}); correct `database.url`."
        ) from error


def _reason(error: Exception) -> str:
    """Return the first line of the driver's words; further lines are hints, or the same about another address."""
    original = error.orig if isinstance(error, DBAPIError) else error
    lines = str(original).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(original).__name__


_NOW = text("select clock_timestamp()")


def database_now(tx: Tx) -> datetime:
    """Return the present time by the database's clock, by which all machines compare (S0.2)."""
    return cast("datetime", tx.execute(_NOW).scalar_one())


_READ_ONLY = text("set transaction isolation level repeatable read, read only")


def read_only(tx: Tx) -> None:
    """Let the transaction, in which nothing was asked yet, see one moment of the database and write nothing."""
    tx.execute(_READ_ONLY)
