"""Real servers for the tests, by the launcher that users get, and what a test leaves in them.

One PostgreSQL serves all test processes of this checkout, several sessions at once included, and the last of them removes it. Its
databases are named after the process that made them, so that another session drops what a killed one left. Each process has
a Valkey of its own, since its keys are flushed between tests.
"""

import contextlib
import hashlib
import itertools
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import sqlalchemy as sa
from redis import Redis
from waiting import wait_until

from backfill.embedded import Servers
from backfill.embedded.lock import locked
from backfill.embedded.processes import find_process
from backfill.embedded.users import User, UserRegister
from backfill.migrations import upgrade

FOLDER = Path(__file__).resolve().parent.parent / ".backfill" / "tests"
#: Home of the PostgreSQL that all share.
SHARED = FOLDER / "shared"
#: Homes of the Valkeys, named after their processes.
BROKERS = FOLDER / "brokers"
#: Begins the names of the homes that tests ask for.
HOME_PREFIX = "backfill-test-"
#: Where files are in memory, on Linux: a clone of the template takes a tenth of the time there.
MEMORY = Path("/dev/shm")
#: Bytes that must be free there; containers often have next to nothing.
MEMORY_NEEDED = 3 * 2**30


def process_name(pid: int) -> str:
    """Return a name that no other process has, and from which it can be told whether the process lives."""
    process = find_process(pid)
    birth = process.birth if process else ""
    return f"{pid}_{hashlib.sha256(birth.encode()).hexdigest()[:8]}"


def is_alive(name: str) -> bool:
    pid = int(name.partition("_")[0])
    return find_process(pid) is not None and process_name(pid) == name


class Databases:
    """Makes databases for tests as clones of one template, and drops them."""

    def __init__(self, server_url: str) -> None:
        self._url = sa.make_url(server_url)
        self._prefix = f"test_{process_name(os.getpid())}"
        self._numbers = itertools.count(1)
        self._connection = psycopg2.connect(
            host=self._url.query["host"], user=self._url.username, dbname=self._url.database
        )
        self._connection.autocommit = True
        self._drop_those_of_the_dead()
        self.template = self._make_template()

    def clone(self) -> str:
        """Return the name of a new database with the schema and no rows beyond those of a new installation."""
        name = f"{self._prefix}_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {self.template} STRATEGY FILE_COPY")
        return name

    def drop(self, name: str) -> None:
        """Drop a database, also when somebody is connected."""
        # the server's own vacuum must not be put out by us, but is done soon
        for attempts_left in reversed(range(100)):
            try:
                self._execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            except psycopg2.errors.InsufficientPrivilege:
                if not attempts_left:
                    raise
                time.sleep(0.05)
            else:
                break

    def url(self, name: str) -> str:
        return self._url.set(database=name).render_as_string(hide_password=False)

    def close(self) -> None:
        """Drop all databases of this process."""
        for name in self._names(f"{self._prefix}_%"):
            self.drop(name)
        self._connection.close()

    def _make_template(self) -> str:
        name = f"{self._prefix}_template"
        self._execute(f"CREATE DATABASE {name} STRATEGY WAL_LOG")
        engine = sa.create_engine(self.url(name), poolclass=sa.NullPool)
        upgrade(engine)
        engine.dispose()
        return name

    def _drop_those_of_the_dead(self) -> None:
        for name in self._names("test_%"):
            owner = re.fullmatch(r"test_(\d+_[0-9a-f]{8})_\w+", name)
            if owner and not is_alive(owner[1]):
                self.drop(name)

    def _names(self, pattern: str) -> list[str]:
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT datname FROM pg_database WHERE datname LIKE %s", (pattern,))
            return [name for (name,) in cursor.fetchall()]

    def _execute(self, statement: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)


@contextlib.contextmanager
def running_databases() -> Iterator[Databases]:
    with Servers(SHARED, durable=False) as servers:
        with coming_and_going():
            put_data_in_memory(SHARED)
            url = servers.acquire(broker=False).database_url
        assert url
        databases = Databases(url)
        try:
            yield databases
        finally:
            databases.close()


def coming_and_going() -> contextlib.AbstractContextManager[None]:
    """Held by whoever begins to use the shared server, or looks whether nobody does."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    return locked(FOLDER / "lock", 120)


def put_data_in_memory(home: Path) -> None:
    """Let the data of a new home be in memory, where the system has room for it."""
    data = home / "embedded" / "data"
    if data.exists() or not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < MEMORY_NEEDED:
        return
    data.unlink(missing_ok=True)  # a link that was left when the memory was lost
    data.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=HOME_PREFIX, dir=MEMORY))
    folder.chmod(0o755)
    data.symlink_to(folder)


@contextlib.contextmanager
def running_broker() -> Iterator[str]:
    """A Valkey for this process alone."""
    home = BROKERS / process_name(os.getpid())
    home.mkdir(parents=True)
    try:
        with Servers(home, durable=False) as servers:
            url = servers.acquire(database=False).broker_url
            assert url
            yield url
    finally:
        abandon(home)


def flush(broker_url: str) -> None:
    """Forget everything in the broker."""
    with Redis(unix_socket_path=broker_url.removeprefix("redis+socket://")) as client:
        client.flushall()


def make_home() -> Path:
    """Return a new folder for servers of one test.

    Not below `tmp_path`, which only its owner may enter: started by root, PostgreSQL runs as another user.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{HOME_PREFIX}{process_name(os.getpid())}-"))
    folder.chmod(0o755)
    return folder


def abandon(home: Path) -> None:
    """End the users of a home and its servers, and remove it."""
    others = [user for user in users_of(home) if user.pid != os.getpid()]
    for user in others:
        with contextlib.suppress(ProcessLookupError):
            os.kill(user.pid, signal.SIGKILL)
    wait_until(lambda: not any(user.lives for user in others), f"the users of {home} are gone")
    with Servers(home) as servers:  # the last user, now
        servers.acquire(database=False, broker=False)
    data = home / "embedded" / "data"
    if data.is_symlink():
        shutil.rmtree(data.resolve(), ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)


def users_of(home: Path) -> list[User]:
    return UserRegister(home / "embedded" / "users.json").living()


def clear_up() -> None:
    """Stop and remove what nobody uses: the shared server, and all that sessions which were killed left."""
    with coming_and_going():
        for home in BROKERS.glob("*"):
            if not is_alive(home.name):
                abandon(home)
        for home in Path(tempfile.gettempdir()).glob(f"{HOME_PREFIX}*_*-*"):
            maker = home.name.removeprefix(HOME_PREFIX).split("-")[0]
            with contextlib.suppress(FileNotFoundError):  # another checkout's session clears up, too
                if home.stat().st_uid == os.geteuid() and not is_alive(maker):
                    abandon(home)
        if SHARED.is_dir() and not users_of(SHARED):
            abandon(SHARED)
