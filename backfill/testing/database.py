"""The scratch database of this process: beside the one of the settings, made when first asked for, dropped at exit at the latest."""

from __future__ import annotations

import atexit
import os
import secrets
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path

from sqlalchemy import Engine, make_url, text

from backfill import migrations
from backfill.config import Settings
from backfill.embedded import Servers
from backfill.store.database import create_engine, normalise_url

_at_the_end = ExitStack()


def scratch_engine(settings: Settings) -> Engine:
    """Return an engine for this process's scratch database on the server that `settings` name, or on the embedded one."""
    url = settings.database.url
    return _made(url, "" if url else str(settings.core.home), settings.core.default_pool_slots)


def drop_scratch_databases() -> None:
    """Drop the scratch databases of this process now, and let go of the servers that they are on; later ones are made anew."""
    _made.cache_clear()
    _at_the_end.close()


@lru_cache(maxsize=4)
def _made(url: str, home: str, default_pool_slots: int) -> Engine:
    if not url:
        servers = Servers(Path(home))
        url = servers.acquire(database=True, broker=False).database_url or ""
        _at_the_end.callback(servers.release)
    name = f"backfill_scratch_{os.getpid()}_{secrets.token_hex(3)}"
    server = create_engine(url, application_name="backfill scenario", pool_size=1)
    _outside_transaction(server, f"create database {name}")
    scratch = make_url(normalise_url(url)).set(database=name)
    engine = create_engine(scratch.render_as_string(hide_password=False), application_name="backfill scenario")
    migrations.upgrade(engine, default_pool_slots=default_pool_slots)

    def drop() -> None:
        engine.dispose()
        _outside_transaction(server, f"drop database if exists {name} with (force)")
        server.dispose()

    _at_the_end.callback(drop)
    # after the servers were acquired, so that it comes before their own end; twice is harmless
    atexit.register(_at_the_end.close)
    return engine


def _outside_transaction(engine: Engine, statement: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(statement))
