"""Databases without a schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from sqlalchemy import URL, Engine, NullPool, create_engine, make_url, text


def _execute(url: URL, *statements: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.fixture
def new_database(database_url: str) -> Iterator[Callable[[], Engine]]:
    """Returns a function that makes an empty database beside the test's own and returns an engine to it."""
    home = make_url(database_url)
    engines: list[Engine] = []

    def make() -> Engine:
        name = f"empty_{uuid4().hex}"
        _execute(home, f"create database {name} template template0")
        engines.append(create_engine(home.set(database=name)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()
        _execute(home, f"drop database {engine.url.database} with (force)")


@pytest.fixture
def empty(new_database: Callable[[], Engine]) -> Engine:
    """An engine to a database without a schema."""
    return new_database()


@pytest.fixture
def restricted(empty: Engine) -> Engine:
    """An engine to an empty database whose user may not make tables there."""
    _execute(empty.url, "revoke create on schema public from public, pg_database_owner")
    return empty
