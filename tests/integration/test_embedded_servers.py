"""The embedded servers' life: who starts them, who stops them, and what a kill leaves."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from kombu import Connection
from redis import Redis
from waiting import wait_until

from backfill.embedded import Endpoints, Servers
from backfill.embedded.accounts import server_account
from backfill.embedded.lock import is_locked
from backfill.embedded.processes import find_process, processes_in

#: A command that uses the servers until its input ends.
USE = """
    import sys
    from pathlib import Path
    from backfill.embedded import Servers
    servers = Servers(Path(sys.argv[1]), durable=False)
    print(servers.acquire(), flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def command(home: Path, script: str = USE) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def user(home: Path) -> Iterator[subprocess.Popen[str]]:
    """Another command that uses the servers of `home`."""
    with command(home) as process:
        line = process.stdout.readline()
        assert line.startswith("Endpoints"), line + process.stdout.read()
        yield process


def main_pid(home: Path, server: str) -> int | None:
    """The process id of a running server."""
    if not is_locked(home / "embedded" / f"{server}.lock"):
        return None
    name = {"postgres": "postmaster.pid", "valkey": "valkey.pid"}[server]
    return int((home / "embedded" / "data" / server / name).read_text().split()[0])


def main_pids(home: Path) -> tuple[int | None, int | None]:
    return main_pid(home, "postgres"), main_pid(home, "valkey")


def kill(*pids: int) -> None:
    """Kill processes, and return when they are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(find_process(pid) for pid in pids), "the killed processes are gone")


@pytest.fixture
def statement(home: Path) -> Iterator[Callable[[str, str], object]]:
    """Runs a statement in the database of a URL."""
    with contextlib.ExitStack() as stack:

        def run(url: str, sql: str) -> object:
            engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
            stack.callback(engine.dispose)
            with engine.connect() as connection:
                result = connection.execute(sa.text(sql))
                return result.scalar() if result.returns_rows else None

        yield run


def redis_of(endpoints: Endpoints) -> Redis:
    return Redis(unix_socket_path=endpoints.broker_url.removeprefix("redis+socket://"), decode_responses=True)


def test_the_first_user_starts_the_servers_and_the_last_stops_them(home: Path) -> None:
    first, second = Servers(home, durable=False), Servers(home, durable=False)
    assert first.acquire() == second.acquire()
    started = main_pids(home)
    assert None not in started
    first.release()
    assert main_pids(home) == started
    second.release()
    assert main_pids(home) == (None, None)


def test_users_in_other_processes_count(home: Path) -> None:
    with Servers(home, durable=False) as mine:
        mine.acquire()
        started = main_pids(home)
        with user(home) as other:
            mine.release()
            assert main_pids(home) == started
            other.communicate()
    assert main_pids(home) == (None, None)


def test_the_urls_are_ready_for_sqlalchemy_and_celery(home: Path, statement: Callable[..., object]) -> None:
    with Servers(home, durable=False) as servers:
        endpoints = servers.acquire()
        assert endpoints.database_url.startswith("postgresql+psycopg2://backfill@/backfill?host=/")
        assert statement(endpoints.database_url, "SELECT current_user") == "backfill"
        with Connection(endpoints.broker_url) as connection:
            connection.ensure_connection(max_retries=1)


def test_only_what_is_asked_for_is_started(home: Path) -> None:
    with Servers(home, durable=False) as servers:
        assert servers.acquire(database=False).database_url is None
        assert main_pid(home, "postgres") is None
        assert servers.acquire(broker=False).broker_url is None
        assert None not in main_pids(home)
    assert main_pids(home) == (None, None)


def test_the_data_stays_for_the_next_command(home: Path, statement: Callable[..., object]) -> None:
    with Servers(home) as servers:
        endpoints = servers.acquire()
        statement(endpoints.database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        with redis_of(endpoints) as redis:
            redis.set("kept", "42")
    with Servers(home) as servers:
        endpoints = servers.acquire()
        assert statement(endpoints.database_url, "SELECT answer FROM kept") == 42
        with redis_of(endpoints) as redis:
            assert redis.get("kept") == "42"


def test_the_servers_are_durable_and_off_the_network(home: Path, statement: Callable[..., object]) -> None:
    with Servers(home) as servers:
        endpoints = servers.acquire()
        settings = {
            name: statement(endpoints.database_url, f"SHOW {name}")
            for name in ("fsync", "listen_addresses", "max_connections", "full_page_writes", "synchronous_commit")
        }
        assert settings == {
            "fsync": "on",
            "listen_addresses": "",
            "max_connections": "200",
            "full_page_writes": "on",
            "synchronous_commit": "on",
        }
        with redis_of(endpoints) as redis:
            assert redis.config_get("appendonly", "maxmemory-policy", "port", "unixsocketperm") == {
                "appendonly": "yes",
                "maxmemory-policy": "noeviction",
                "port": "0",
                "unixsocketperm": "700",
            }


def test_the_role_owns_its_databases_and_is_no_superuser(home: Path, statement: Callable[..., object]) -> None:
    with Servers(home, durable=False) as servers:
        url = servers.acquire(broker=False).database_url
        statement(url, "CREATE DATABASE warehouse")
        assert statement(url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False


def test_a_killed_user_is_forgotten_and_its_servers_are_used_again(home: Path) -> None:
    with user(home) as other:
        started = main_pids(home)
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert main_pids(home) == started
    with Servers(home, durable=False) as servers:
        servers.acquire()
        assert main_pids(home) == started
    assert main_pids(home) == (None, None)


def test_a_killed_user_that_nobody_reaped_is_forgotten(home: Path) -> None:
    with Servers(home, durable=False) as servers, user(home) as other:
        servers.acquire()
        other.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        servers.release()
        assert main_pids(home) == (None, None)


def test_killed_servers_are_started_again_where_their_users_look_for_them(
    home: Path, statement: Callable[..., object]
) -> None:
    with user(home) as other, Servers(home, durable=False) as servers:
        endpoints = servers.acquire()
        statement(endpoints.database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        killed = main_pids(home)
        kill(*killed)
        with Servers(home, durable=False) as later:
            assert later.acquire() == endpoints
            assert set(main_pids(home)).isdisjoint({*killed, None})
            assert statement(endpoints.database_url, "SELECT answer FROM kept") == 42
        other.communicate()


def test_everything_may_be_killed_at_once(home: Path, statement: Callable[..., object]) -> None:
    with user(home) as other:
        pids = [pid for name in ("postgres", "valkey") for pid in processes_in(home / "embedded" / "data" / name)]
        kill(*(pids or main_pids(home)), other.pid)
    with Servers(home, durable=False) as servers:
        assert statement(servers.acquire().database_url, "SELECT 1") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found by their folder on Linux only")
def test_a_busy_process_of_a_killed_database_does_not_hold_up_the_next(
    home: Path, statement: Callable[..., object]
) -> None:
    script = """
        import sys
        import psycopg2
        from pathlib import Path
        connection = psycopg2.connect(host=Path(sys.argv[1], "embedded", "run").resolve(), user="backfill")
        print(connection.info.backend_pid, flush=True)
        sys.stdin.read()
    """
    with Servers(home, durable=False) as servers:
        url = servers.acquire(broker=False).database_url
        with command(home, script) as client:
            busy = int(client.stdout.readline())
            os.kill(busy, signal.SIGSTOP)
            kill(main_pid(home, "postgres"))
            servers.acquire(broker=False)
            wait_until(lambda: find_process(busy) is None, "the busy process is gone")
            assert statement(url, "SELECT 1") == 1


def test_pid_files_that_name_other_processes_do_not_deceive(home: Path) -> None:
    with user(home):
        kill(*main_pids(home))
    data = home / "embedded" / "data"
    for file in (data / "postgres" / "postmaster.pid", data / "valkey" / "valkey.pid"):
        lines = file.read_text().splitlines()
        file.write_text("\n".join([str(os.getppid()), *lines[1:]]) + "\n")
    with Servers(home, durable=False) as servers:
        servers.acquire()
        assert os.getppid() not in main_pids(home)


def test_servers_whose_sockets_were_removed_are_started_anew(home: Path, statement: Callable[..., object]) -> None:
    with Servers(home, durable=False) as servers:
        endpoints = servers.acquire()
        started = main_pids(home)
        for socket in Path(endpoints.broker_url.removeprefix("redis+socket://")).parent.iterdir():
            socket.unlink()
        assert statement(servers.acquire().database_url, "SELECT 1") == 1
        assert set(main_pids(home)).isdisjoint({*started, None})


def test_commands_that_come_at_once_share_one_pair_of_servers(home: Path) -> None:
    with contextlib.ExitStack() as stack:
        commands = [stack.enter_context(command(home)) for _ in range(4)]
        answers = {process.stdout.readline() for process in commands}
        assert len(answers) == 1
        assert answers.pop().startswith("Endpoints")
        for process in commands:
            assert process.communicate()[0] == ""
    assert main_pids(home) == (None, None)


def test_the_servers_are_out_of_reach_of_the_terminal(home: Path) -> None:
    with user(home) as other:
        sessions = {os.getsid(pid) for pid in main_pids(home)}
        assert sessions.isdisjoint({os.getsid(0), os.getsid(other.pid)})


def test_the_servers_do_not_hold_the_pipes_of_the_command_that_started_them(home: Path) -> None:
    with user(home) as other:
        other.send_signal(signal.SIGKILL)
        assert other.communicate(timeout=30)[0] == ""
        assert None not in main_pids(home)


def test_a_command_that_ends_without_a_word_stops_the_servers(home: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        from backfill.embedded import Servers
        Servers(Path(sys.argv[1]), durable=False).acquire()
        sys.exit("something went wrong")
    """
    with command(home, script) as process:
        assert process.communicate()[0] == "something went wrong\n"
    assert main_pids(home) == (None, None)


def test_a_fork_is_no_user_of_its_own(home: Path) -> None:
    script = """
        import os, sys
        from pathlib import Path
        from backfill.embedded import Servers
        servers = Servers(Path(sys.argv[1]), durable=False)
        servers.acquire()
        child = os.fork()
        servers.release() if not child else os.waitpid(child, 0)
        print(len(list(Path(sys.argv[1], "embedded", "run").glob("valkey.sock"))), flush=True)
        if not child:
            os._exit(0)
    """
    with command(home, script) as process:
        assert process.communicate()[0] == "1\n1\n"
    assert main_pids(home) == (None, None)


def test_an_interrupt_while_starting_leaves_nothing_running(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("backfill.embedded.server.Server.wait_until_ready", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Servers(home, durable=False).acquire()
    assert main_pids(home) == (None, None)


def test_a_home_with_a_long_path_will_do(home: Path, statement: Callable[..., object]) -> None:
    deep = home / ("a rather long name, with blanks; 'quotes' & umläuts " * 3) / ("x" * 200)
    with Servers(deep, durable=False) as servers:
        endpoints = servers.acquire()
        assert statement(endpoints.database_url, "SELECT 1") == 1
        assert len(endpoints.broker_url) < 103


def test_a_long_folder_for_temporary_files_is_passed_over(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = home / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with Servers(home, durable=False) as servers:
        assert servers.acquire(database=False).broker_url.startswith("redis+socket:///tmp/backfill-")


def test_only_the_owner_may_enter_the_folder_of_the_sockets(home: Path) -> None:
    with Servers(home, durable=False) as servers:
        socket = Path(servers.acquire().broker_url.removeprefix("redis+socket://"))
        status = socket.parent.stat()
        assert status.st_mode & 0o777 == 0o700
        assert status.st_uid == server_account(home / "embedded" / "data").uid
        assert {path.stat().st_mode & 0o077 for path in socket.parent.iterdir()} == {0}
    assert not socket.parent.exists()
