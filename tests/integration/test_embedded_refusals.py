"""What stands in the way of the embedded servers is said in one sentence, with the remedy."""

import importlib.util
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from backfill.embedded import Servers, accounts, programs
from backfill.embedded.lock import is_locked, locked
from backfill.embedded.server import fault_in
from backfill.exceptions import BackfillError, ConfigError, ServiceUnavailable

WaitUntil = Callable[..., None]


def refusal(home: Path, kind: type[BackfillError]) -> str:
    """The sentence with which `acquire` refuses."""
    with pytest.raises(kind) as caught:
        Servers(home, durable=False).acquire()
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    for server in ("postgres", "valkey"):
        lock = home / "embedded" / f"{server}.lock"
        assert not lock.parent.is_dir() or not is_locked(lock)
    return text


def make_cluster(home: Path) -> Path:
    """Leave a complete data folder of PostgreSQL, and nothing that runs."""
    with Servers(home, durable=False) as servers:
        servers.acquire(broker=False)
    return home / "embedded" / "data" / "postgres"


def test_servers_that_are_not_installed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'backfill[embedded]'" in refusal(home, ConfigError)


def test_a_program_that_is_missing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_package", lambda name, account: home)
    text = refusal(home, ConfigError)
    assert str(home) in text
    assert "--force-reinstall" in text


def test_a_program_for_another_machine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home / f"pginstall{programs.POSTGRES_MAJOR}" / "bin"
    folder.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (folder / name).write_bytes(b"\x7fELF of another machine")
        (folder / name).chmod(0o755)
    monkeypatch.setattr(programs, "postgres_folder", lambda account: folder)
    text = refusal(home, ServiceUnavailable)
    assert f"{folder / 'initdb'} cannot be run as user" in text
    assert text.endswith(": Exec format error.")


def test_a_server_that_cannot_be_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = home / "valkey-server"
    broken.write_bytes(b"\x7fELF of another machine")
    broken.chmod(0o755)
    monkeypatch.setattr(programs, "valkey_program", lambda account: broken)
    text = refusal(home, ServiceUnavailable)
    assert text.startswith("The embedded Valkey did not start: ")
    assert str(broken) in text


def test_a_home_that_is_a_file(home: Path) -> None:
    file = home / "file"
    file.write_text("")
    text = refusal(file, ConfigError)
    assert str(file) in text
    assert "core.home" in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_home_that_is_not_writable(home: Path) -> None:
    home.chmod(0o500)
    text = refusal(home, ConfigError)
    assert f"cannot use {home}/embedded: Permission denied" in text
    home.chmod(0o700)


def test_data_of_another_version_of_postgresql(home: Path) -> None:
    data = make_cluster(home)
    (data / "PG_VERSION").write_text("15\n")
    text = refusal(home, ConfigError)
    assert f"{data.resolve()} was made by PostgreSQL 15, and the embedded one is 18" in text


def test_a_data_folder_that_is_none(home: Path) -> None:
    (home / "embedded" / "data" / "postgres").mkdir(parents=True)
    assert "is no PostgreSQL data folder" in refusal(home, ConfigError)


def test_data_that_postgresql_refuses(home: Path) -> None:
    data = make_cluster(home)
    (data / "global" / "pg_control").unlink()
    text = refusal(home, ServiceUnavailable)
    assert text.startswith("The embedded PostgreSQL did not start: ")
    assert "pg_control" in text
    assert str(home / "embedded" / "postgres.log") in text


def test_data_that_somebody_else_s_server_holds(home: Path, wait_until: WaitUntil) -> None:
    data = make_cluster(home).resolve()
    account = accounts.server_account(data.parent)
    stranger = subprocess.Popen(
        [programs.postgres_folder(account) / "postgres", "-D", data, "-c", "listen_addresses=", "-k", data],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        **account.popen_options(),
    )
    with stranger:
        try:
            pid_file = data / "postmaster.pid"
            wait_until(lambda: pid_file.exists() and "ready" in pid_file.read_text(), "the other server is ready")
            assert f"{data} of the embedded PostgreSQL is held by process {stranger.pid}" in refusal(
                home, ServiceUnavailable
            )
            assert stranger.poll() is None
        finally:
            stranger.terminate()


def test_another_command_that_holds_the_home_for_ever(home: Path) -> None:
    with (
        locked(home / "lock", 5),
        pytest.raises(ServiceUnavailable, match="Another command has been starting"),
        locked(home / "lock", 0.05),
    ):
        pass


def test_a_user_without_a_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody_of_that_number(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody_of_that_number)
    assert f"user id {os.geteuid()} has none; add it to /etc/passwd" in refusal(home, ConfigError)


def test_a_folder_for_temporary_files_that_is_too_long(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/" + "x" * 200)
    monkeypatch.setattr("backfill.embedded.places._SOCKET_PATH_LIMIT", 20)
    assert "set TMPDIR to a short path" in refusal(home, ConfigError)


def test_a_register_of_users_that_was_cut_short_counts_as_empty(home: Path) -> None:
    make_cluster(home)
    (home / "embedded" / "users.json").write_text('[{"pid": 1')
    with Servers(home, durable=False) as servers:
        assert servers.acquire(broker=False).database_url


def test_a_cluster_that_was_never_completed_is_made_again(home: Path) -> None:
    data = make_cluster(home)
    unfinished = data.with_name("postgres.new-abc")
    unfinished.mkdir()
    shutil.rmtree(data)
    make_cluster(home)
    assert (data / "PG_VERSION").is_file()
    assert not unfinished.exists()


@pytest.mark.parametrize(
    ("output", "fault"),
    [
        ("12:00 UTC [7] FATAL:  no shared memory\n12:00 UTC [7] LOG:  system is shut down\n", "no shared memory"),
        ("initdb: error: no space left\ninitdb: removing data directory\n", "no space left"),
        ("sh: 1: /x/valkey-server: Exec format error\n", "sh: 1: /x/valkey-server: Exec format error"),
        ("going down.\n", "going down"),
        ("", "it said nothing"),
    ],
)
def test_the_reason_is_found_in_what_a_program_says(output: str, fault: str) -> None:
    assert fault_in(output) == fault
