"""Fixtures for all tests: real PostgreSQL, real Valkey, settings that lead to them.

- `database_url`: an empty database with the schema, for this test alone. `engine` is connected to it.
- `broker_url`: a Valkey that holds nothing, for this test alone.
- `settings`: both of them, with a home and a DAGs folder of the test's own.
- `home`: a folder for embedded servers of the test's own, which are stopped after it, whatever it did to them.
- `wait_until(predicate, description, timeout=30)`: instead of sleeping.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import servers
import sqlalchemy as sa
import waiting

from backfill.config import Settings
from backfill.store.database import create_engine


def pytest_configure() -> None:
    """Keep the settings of whoever runs the tests out of them."""
    for name in [name for name in os.environ if name.startswith("BACKFILL_")]:
        del os.environ[name]


def pytest_sessionstart(session: pytest.Session) -> None:
    clear_up_once(session)


def pytest_sessionfinish(session: pytest.Session) -> None:
    clear_up_once(session)


def clear_up_once(session: pytest.Session) -> None:
    """Clear up, but in one process of a session only."""
    if not hasattr(session.config, "workerinput"):
        servers.clear_up()


@pytest.fixture(scope="session")
def databases() -> Iterator[servers.Databases]:
    with servers.running_databases() as databases:
        yield databases


@pytest.fixture
def database_url(databases: servers.Databases) -> Iterator[str]:
    name = databases.clone()
    yield databases.url(name)
    databases.drop(name)


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = create_engine(database_url, application_name="tests")
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    with servers.running_broker() as url:
        yield url


@pytest.fixture
def broker_url(broker: str) -> Iterator[str]:
    servers.flush(broker)
    yield broker
    servers.flush(broker)


@pytest.fixture
def settings(database_url: str, broker_url: str, tmp_path: Path) -> Settings:
    return Settings().override(
        "the test",
        {
            "core.home": tmp_path / "home",
            "core.dags_folder": tmp_path / "dags",
            "database.url": database_url,
            "celery.broker_url": broker_url,
        },
    )


@pytest.fixture
def home() -> Iterator[Path]:
    folder = servers.make_home()
    yield folder
    servers.abandon(folder)


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    return waiting.wait_until
