"""The schema and its versions: `upgrade` brings a database up to date, `check` refuses one that is not.

The scripts in `versions` are the only way in which the schema of a database changes; what they make equals
`backfill.models` (a test compares the two by PostgreSQL's own catalog). The version stands in a table of our own name, so that
a database shared with another user of alembic is not mistaken for ours.

Alembic is imported only where there is something to do: embedded mode calls `upgrade` at each command.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import assert_never

from psycopg2.errors import InsufficientPrivilege
from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import ProgrammingError

from backfill.exceptions import SchemaMismatch, UsageError
from backfill.models import Base
from backfill.store.database import repeat

__all__ = ["HEAD", "REVISIONS", "VERSION_TABLE", "Age", "SchemaVersion", "check", "current", "upgrade"]

#: Every version of the schema, oldest first; a test holds it together with the scripts.
REVISIONS = ("0001", "0002")
#: The version that this program works with.
HEAD = REVISIONS[-1]
#: Where a database keeps the version of its schema.
VERSION_TABLE = "backfill_schema"

#: Of two upgrades at once the second waits for this lock and then finds nothing to do. Any number will do, if it stays.
_LOCK_KEY = 0x6261636B66696C6C
_TAKE_LOCK = text("select pg_advisory_xact_lock(:key)").bindparams(key=_LOCK_KEY)
#: An upgrade may wait for another one longer than an ordinary statement may wait for a row.
_WAIT_AS_LONG_AS_NEEDED = text("set local lock_timeout = 0")
# not `to_regclass`: after the wait for the lock it may still answer from what this connection saw before
_FIND_VERSION_TABLE = text(
    "select exists (select from pg_class where relname = :name and relkind = 'r' and pg_table_is_visible(oid))"
).bindparams(name=VERSION_TABLE)
_READ_VERSION = text(f"select version_num from {VERSION_TABLE}")  # noqa: S608  # a constant of ours


class Age(StrEnum):
    """How a database's schema stands to this program."""

    OLDER = "older"
    CURRENT = "current"
    NEWER = "newer"


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """Version of the schema in one database; `revision` is None where there is no schema yet."""

    database: str
    revision: str | None

    @property
    def age(self) -> Age:
        """How it stands to this program; a version that this program does not know is a newer one."""
        if self.revision == HEAD:
            return Age.CURRENT
        return Age.OLDER if self.revision is None or self.revision in REVISIONS else Age.NEWER


def current(engine: Engine) -> SchemaVersion:
    """Return the version of the schema that the database has now; raises `ServiceUnavailable` if that does not answer."""
    return repeat(engine, _read_version, attempts=2)


def check(engine: Engine) -> None:
    """Raise `SchemaMismatch`, which names the remedy, unless the schema is the one that this program works with."""
    version = current(engine)
    match version.age:
        case Age.CURRENT:
            return
        case Age.OLDER:
            found = "no schema yet" if version.revision is None else f"the older schema {version.revision}"
            raise SchemaMismatch(
                f"The database {version.database!r} has {found}, this backfill needs {HEAD}: run `backfill db upgrade`."
            )
        case Age.NEWER:
            raise _newer(version)
        case _:
            assert_never(version.age)


def upgrade(engine: Engine, *, default_pool_slots: int = 128) -> None:
    """Bring the schema up to date, in one transaction; two at once both succeed.

    `default_pool_slots` is the size of `default_pool` where the schema is made now; an existing pool keeps its size.
    Raises `SchemaMismatch` for a newer schema or a database that another program uses, `UsageError` where the database user
    may not make tables.
    """
    if current(engine).age is Age.CURRENT:
        return
    with _privileges_explained(engine), engine.begin() as connection:
        connection.execute(_WAIT_AS_LONG_AS_NEEDED)
        connection.execute(_TAKE_LOCK)
        _refuse_foreign(connection)
        _run_scripts(connection, default_pool_slots)


def _read_version(connection: Connection) -> SchemaVersion:
    database = connection.engine.url.database or ""
    if not connection.execute(_FIND_VERSION_TABLE).scalar_one():
        return SchemaVersion(database, None)
    return SchemaVersion(database, connection.execute(_READ_VERSION).scalar_one_or_none())


def _newer(version: SchemaVersion) -> SchemaMismatch:
    return SchemaMismatch(
        f"The database {version.database!r} has the schema {version.revision}, which is newer than {HEAD}, "
        "the one of this backfill: install a newer backfill."
    )


def _refuse_foreign(connection: Connection) -> None:
    """Raise unless an upgrade can start from what is there."""
    version = _read_version(connection)
    if version.age is Age.NEWER:
        raise _newer(version)
    taken = set(Base.metadata.tables) & set(inspect(connection).get_table_names())
    if version.revision is None and taken:
        raise SchemaMismatch(
            f"The database {version.database!r} has a table {min(taken)!r} that is not backfill's: "
            "give backfill a database of its own."
        )


def _run_scripts(connection: Connection, default_pool_slots: int) -> None:
    from alembic import command  # noqa: PLC0415  # takes longer than the rest of a command that has nothing to upgrade
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    # alembic reads options as a configuration file does, where a percent sign stands for something else
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes.update(connection=connection, default_pool_slots=default_pool_slots)
    command.upgrade(config, "head")


@contextmanager
def _privileges_explained(engine: Engine) -> Iterator[None]:
    try:
        yield
    except ProgrammingError as error:
        if not isinstance(error.orig, InsufficientPrivilege):
            raise
        raise UsageError(
            f"The database user {engine.url.username!r} may not make tables in {engine.url.database!r}: "
            "make it the owner of the database, or grant it CREATE on the schema."
        ) from error
