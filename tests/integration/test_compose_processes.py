"""The services of compose.yaml as plain processes: the same commands, environment, configuration and health checks.

What a container would give is given by the test: paths and ports of this machine for those of the containers, and a database of the
test server for the image of PostgreSQL.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
import sqlalchemy as sa
import yaml
from redis import Redis

from backfill.embedded import programs
from backfill.embedded.accounts import server_account

ROOT = Path(__file__).resolve().parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
PROGRAMS = Path(sys.executable).parent
WaitUntil = Callable[..., None]

DAG_FILE = """
from datetime import datetime
from backfill import DAG, task

@task
def double(n: int) -> int:
    return 2 * n

with DAG("numbers", schedule="@daily", start_date=datetime(2024, 1, 1)):
    double(double(1))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _grace(name: str) -> float:
    """How long compose waits for a service to end, in seconds."""
    return float(SERVICES[name.rstrip("2")].get("stop_grace_period", "10s").removesuffix("s"))


class Machine:
    """Runs services as a container engine would, in folders of the test."""

    def __init__(self, folder: Path, wait_until: WaitUntil) -> None:
        self._wait_until = wait_until
        self._log = folder / "log"
        self._folders = {
            "/run/backfill": folder / "secrets",
            "/var/lib/backfill": folder / "home",
            "/srv/backfill/dags": folder / "dags",
        }
        self._ports = {port: free_port() for port in ("6379", "9100", "5555")}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        for path in self._folders.values():
            path.mkdir()
        (self.folder("/srv/backfill/dags") / "numbers.py").write_text(DAG_FILE)

    def folder(self, of_container: str) -> Path:
        return self._folders[of_container]

    def secret(self, name: str) -> Path:
        return self.folder("/run/backfill") / name

    def port(self, of_container: str) -> int:
        return self._ports[of_container]

    def here(self, text: str) -> str:
        """Return `text` with this machine's paths, ports and addresses."""
        text = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", text).replace("$$", "$")
        for of_container, here in (self._folders | self._ports).items():
            text = re.sub(rf"(?<![\w/]){re.escape(of_container)}(?!\w)", str(here), text)
        return text.replace("0.0.0.0", "127.0.0.1")

    def environment(self, service: str) -> dict[str, str]:
        of_image = dict(re.findall(r"(BACKFILL\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))
        of_service = {name: str(value) for name, value in SERVICES[service].get("environment", {}).items()}
        own = {name: self.here(value) for name, value in (of_image | of_service).items()}
        own["BACKFILL__FLOWER__PORT"] = str(self.port("5555"))  # the default, which on this machine may be taken
        path = f"{PROGRAMS}:{os.environ['PATH']}"
        return {"PATH": path, "HOME": own["BACKFILL_HOME"], "TMPDIR": str(self._log.parent), **own}

    def run(self, service: str, *arguments: str) -> str:
        """Run `backfill` in a service's environment, with its own command unless `arguments` are given; return what it prints."""
        command = ["backfill", *(arguments or SERVICES[service]["command"])]
        finished = subprocess.run(
            command,
            env=self.environment(service),
            cwd=self.folder("/srv/backfill/dags"),
            capture_output=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr.decode()
        return finished.stdout.decode()

    def start(self, service: str, *, as_name: str = "") -> None:
        self.launch(as_name or service, ["backfill", *SERVICES[service]["command"]], self.environment(service))

    def launch(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        with self._log.open("ab") as log:
            self._running[name] = subprocess.Popen(
                command, env=environment, cwd=self.folder("/srv/backfill/dags"), stdout=log, stderr=log
            )

    def wait_until_healthy(self, service: str) -> None:
        kind, *test = SERVICES[service]["healthcheck"]["test"]
        command = [self.here(part) for part in (test if kind == "CMD" else ["sh", "-c", *test])]

        def healthy() -> bool:
            check = subprocess.run(command, env=self.environment(service), capture_output=True, check=False)
            return check.returncode == 0

        self._wait_until(healthy, f"{service} is healthy; {self.log()}", timeout=60)

    def stop(self) -> dict[str, int]:
        """Stop all services as compose does, and return their exit codes."""
        services = {name: self._running.pop(name) for name in list(self._running) if name != "valkey"}
        for process in services.values():
            process.send_signal(signal.SIGTERM)
        return {name: process.wait(_grace(name)) for name, process in services.items()}

    def stop_all(self) -> None:
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()

    def log(self) -> str:
        return self._log.read_text()[-4000:] if self._log.exists() else ""


@pytest.fixture
def machine(tmp_path: Path, wait_until: WaitUntil) -> Iterator[Machine]:
    machine = Machine(tmp_path, wait_until)
    yield machine
    machine.stop_all()


@pytest.fixture
def empty_database(database_url: str, databases: servers.Databases) -> Iterator[str]:
    """What the image of PostgreSQL has at first: a database without tables."""
    url = sa.make_url(database_url)
    name = f"{url.database}_empty"
    databases._execute(f"CREATE DATABASE {name}")
    yield url.set(database=name).render_as_string(hide_password=False)
    databases.drop(name)


def make_secrets(machine: Machine) -> None:
    script = ROOT / "config" / Path(SERVICES["secrets"]["entrypoint"][0]).with_suffix(".sh")
    subprocess.run([script, machine.here(SERVICES["secrets"]["entrypoint"][1])], check=True)


def start_valkey(machine: Machine, folder: Path) -> None:
    command = [machine.here(part) for part in SERVICES["valkey"]["command"]]
    assert command[:2] == ["valkey-server", "/etc/valkey/valkey.conf"]
    assert "./config/valkey.conf:/etc/valkey/valkey.conf:ro" in SERVICES["valkey"]["volumes"]
    program = programs.valkey_program(server_account(folder))
    given = ["--port", str(machine.port("6379")), "--dir", str(folder), "--loglevel", "warning"]
    machine.launch("valkey", [str(program), str(ROOT / "config" / "valkey.conf"), *command[2:], *given], {})


def answers(machine: Machine, password: str | None) -> bool:
    with contextlib.suppress(Exception), Redis(port=machine.port("6379"), password=password) as client:
        return bool(client.ping())
    return False


def test_secrets_are_made_once_and_kept_from_others(machine: Machine) -> None:
    make_secrets(machine)
    folder = machine.folder("/run/backfill")
    before = {file.name: file.read_text() for file in folder.iterdir()}
    make_secrets(machine)
    assert {file.name: file.read_text() for file in folder.iterdir()} == before
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o640}
    passwords = [before[name] for name in ("secret_key", "database_password", "broker_password", "flower_password")]
    assert len(set(passwords)) == 4
    assert all(re.fullmatch(r"[0-9a-f]{64}", password) for password in passwords)
    assert (
        before["database_url"].strip() == f"postgresql://backfill:{before['database_password']}@postgres:5432/backfill"
    )
    postgres = SERVICES["postgres"]["environment"]
    assert postgres["POSTGRES_PASSWORD_FILE"] == "/run/backfill/database_password"
    assert (postgres["POSTGRES_USER"], postgres["POSTGRES_DB"]) == ("backfill", "backfill")


def test_all_services_together_backfill_a_dag(
    machine: Machine, empty_database: str, tmp_path: Path, wait_until: WaitUntil
) -> None:
    make_secrets(machine)
    password = machine.secret("broker_password").read_text()
    start_valkey(machine, tmp_path)
    wait_until(lambda: answers(machine, password), f"the broker answers; {machine.log()}")
    assert not answers(machine, None)
    broker_url = machine.secret("broker_url").read_text().replace("@valkey:6379", f"@127.0.0.1:{machine.port('6379')}")
    machine.secret("broker_url").write_text(broker_url)
    machine.secret("database_url").write_text(empty_database)

    machine.run("upgrade")
    machine.start("coordinator")
    machine.start("worker")
    machine.start("worker", as_name="worker2")
    machine.start("flower")
    for service in ("coordinator", "worker", "flower"):
        machine.wait_until_healthy(service)

    machine.run("coordinator", "submit", "numbers", "-s", "2024-01-01", "-e", "2024-01-05")

    def state() -> str:
        return str(json.loads(machine.run("coordinator", "status", "1", "-o", "json"))["state"])

    wait_until(lambda: state() == "success", f"the job has ended well; {machine.log()}", timeout=60)
    machine.run("coordinator", "doctor")
    assert machine.stop() == {"worker": 0, "worker2": 0, "coordinator": 0, "flower": 0}
    assert password not in machine.log()


def test_the_scripts_need_no_more_than_a_plain_shell() -> None:
    dash = shutil.which("dash")
    if dash is None:
        pytest.skip("there is no plain shell here to check with")
    subprocess.run([dash, "-n", str(ROOT / "config" / "make-secrets.sh")], check=True)
