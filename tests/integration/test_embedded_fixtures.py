"""What the tests' own servers promise to the tests."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest
import servers
import sqlalchemy as sa
from redis import Redis

from backfill.config import Settings
from backfill.embedded.lock import is_locked
from backfill.migrations import check


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_a_database_of_its_own(engine: sa.Engine, turn: int) -> None:
    check(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE own ()"))


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_an_empty_broker(broker_url: str, turn: int) -> None:
    with Redis(unix_socket_path=broker_url.removeprefix("redis+socket://")) as redis:
        assert redis.dbsize() == 0
        redis.set("own", turn)


def test_the_settings_lead_to_the_test_s_servers(settings: Settings, database_url: str, broker_url: str) -> None:
    assert (settings.database.url, settings.celery.broker_url) == (database_url, broker_url)
    assert not [name for name in os.environ if name.startswith("BACKFILL_")]


def test_a_database_goes_though_somebody_is_connected(databases: servers.Databases) -> None:
    name = databases.clone()
    engine = sa.create_engine(databases.url(name), poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        databases.drop(name)
        with pytest.raises(sa.exc.OperationalError):
            connection.execute(sa.text("SELECT 1"))
        connection.invalidate()


def test_databases_of_processes_that_were_killed_go(databases: servers.Databases) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        owner = servers.process_name(ended.pid)
    mine = databases.clone()
    databases._execute(f"CREATE DATABASE test_{owner}_1")
    databases._drop_those_of_the_dead()
    assert databases._names(f"test_{owner}_%") == []
    assert databases._names(mine) == [mine]
    databases.drop(mine)


def test_a_home_is_left_with_nothing_running(wait_until: Callable[..., None]) -> None:
    home = servers.make_home()
    script = f"""
import sys, pathlib
from backfill.embedded import Servers
held = Servers(pathlib.Path({str(home)!r}), durable=False)
print(held.acquire(broker=False).database_url, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        url = sa.make_url(user.stdout.readline().strip())
        assert is_locked(home / "embedded" / "postgres.lock")
        servers.abandon(home)
        assert user.wait() < 0
    assert not home.exists()
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(host=url.query["host"], user=url.username, dbname=url.database)
    assert not Path(url.query["host"]).exists()


def test_waiting_in_vain_says_for_what(wait_until: Callable[..., None]) -> None:
    wait_until(lambda: True, "it is so")
    with pytest.raises(pytest.fail.Exception, match="in vain until the moon is green"):
        wait_until(lambda: False, "the moon is green", timeout=0.02)
