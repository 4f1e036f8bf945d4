"""A PostgreSQL and a Valkey that may be killed."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
from pathlib import Path

import psycopg2
import redis
import servers as tests_servers
import sqlalchemy as sa
from waiting import wait_until

from backfill.embedded import Servers
from backfill.embedded.processes import processes_in
from backfill.migrations import upgrade
from backfill.store.database import create_engine


class FragileServers:
    """Servers of these tests alone. Database names are told apart by numbers; each is a clone of the one that has the schema."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._servers = Servers(home, durable=False)
        tests_servers.put_data_in_memory(home)
        self._endpoints = self._servers.acquire()
        self._numbers = itertools.count(1)
        engine = create_engine(self._url, application_name="tests")
        upgrade(engine)
        engine.dispose()

    @property
    def _url(self) -> str:
        assert self._endpoints.database_url
        return self._endpoints.database_url

    @property
    def broker_url(self) -> str:
        assert self._endpoints.broker_url
        return self._endpoints.broker_url

    @property
    def database_socket(self) -> Path:
        return Path(str(sa.make_url(self._url).query["host"])) / ".s.PGSQL.5432"

    @property
    def broker_socket(self) -> Path:
        return Path(self.broker_url.removeprefix("redis+socket://"))

    def redis(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.broker_socket))

    @contextlib.contextmanager
    def database(self) -> contextlib.AbstractContextManager[str]:
        """Give a new database with the schema, as an URL, and drop it afterwards; the broker is empty then, too."""
        name = f"chaos_{next(self._numbers)}"
        with self.redis() as client:
            client.flushall()
        self._execute(f"create database {name} template backfill strategy file_copy")
        try:
            yield sa.make_url(self._url).set(database=name).render_as_string(hide_password=False)
        finally:
            self.start_again()
            self._execute(f"drop database {name} with (force)")

    def _execute(self, statement: str) -> None:
        url = sa.make_url(self._url)
        connection = psycopg2.connect(host=url.query["host"], user=url.username, dbname="postgres")
        connection.autocommit = True
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(statement)

    def stop_database(self, how: signal.Signals) -> None:
        """Stop PostgreSQL: SIGINT is its fast shutdown, SIGQUIT its immediate one; SIGKILL is for all of its processes."""
        folder = self._folder("postgres")
        pids = processes_in(folder)
        if how is not signal.SIGKILL and pids:
            pids = [int((folder / "postmaster.pid").read_text().split("\n")[0])]
        self._end(folder, pids, how)

    def kill_broker(self) -> None:
        folder = self._folder("valkey")
        self._end(folder, processes_in(folder), signal.SIGKILL)

    def forget_messages(self) -> None:
        """Remove what a killed broker would find when it starts again."""
        shutil.rmtree(self._folder("valkey"), ignore_errors=True)

    def start_again(self) -> None:
        assert self._servers.acquire() == self._endpoints

    def close(self) -> None:
        self._servers.release()

    def _folder(self, name: str) -> Path:
        return (self._home / "embedded" / "data").resolve() / name

    def _end(self, folder: Path, pids: list[int], how: signal.Signals) -> None:
        _signal_all(pids, how)

        def is_gone() -> bool:
            left = processes_in(folder)
            if how is signal.SIGKILL:  # one that was killed may have made another at its very end
                _signal_all(left, how)
            return not left and not processes_in(folder)

        wait_until(is_gone, f"{folder.name} is gone")


def _signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
