"""Commands of ours as processes of their own, and what the database says meanwhile."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from click.testing import CliRunner, Result
from waiting import wait_until

from backfill.cli.main import cli
from backfill.config import Settings
from backfill.executors.environment import settings_environment
from backfill.store.database import create_engine, repeat


@dataclass(frozen=True)
class Command:
    """A command of ours that runs, in a session of its own."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    @property
    def told(self) -> str:
        return self.err.read_text()

    @property
    def printed(self) -> str:
        return self.out.read_text()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        self.process.send_signal(number)

    def kill_all(self) -> None:
        """SIGKILL to the process and its children, which is as if its machine went away."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self, timeout: float = 60) -> int:
        """Wait for the end and return the exit code."""
        return self.process.wait(timeout)


@dataclass(frozen=True)
class Ended:
    """A command that ran within this process, which takes a fraction of the time, and what it wrote."""

    code: int
    printed: str
    told: str

    def end(self) -> int:
        """Return the exit code."""
        return self.code


def run_here(settings: Settings, *arguments: str) -> Result:
    """Run `backfill` with `arguments` within this process, whose logging stays as it is."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        return CliRunner().invoke(cli, arguments, prog_name="backfill", env=settings_environment(settings, {}))
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(capture=False)


class Processes:
    """What a test starts in its folder, each in a session of its own; nothing of it is left behind."""

    def __init__(self, settings: Settings, here: Path) -> None:
        self.settings = settings
        self.here = here
        self._mark = f"STARTED_BY_TEST={uuid.uuid4()}"
        self._commands: list[Command] = []

    def start(self, *arguments: str, **settings: object) -> Command:
        """Start `backfill` with `arguments`; keywords are settings, `core__parallelism` for `core.parallelism`."""
        return self.start_program([sys.executable, "-m", "backfill", *arguments], arguments[0], **settings)

    def start_program(self, command: list[str], name: str, **settings: object) -> Command:
        own = self._with(settings)
        files = [self.here / f"{name}-{len(self._commands)}.{kind}" for kind in ("out", "err")]
        with files[0].open("wb") as out, files[1].open("wb") as err:
            variable, _, value = self._mark.partition("=")
            process = subprocess.Popen(
                command,
                env=settings_environment(own, os.environ) | {variable: value},
                cwd=self.here,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self._commands.append(Command(process, *files))
        return self._commands[-1]

    def do(self, *arguments: str, **settings: object) -> Ended:
        """Run a command to its end that needs no process of its own."""
        ended = run_here(self._with(settings), *arguments)
        return Ended(ended.exit_code, ended.stdout, ended.stderr)

    def _with(self, settings: Mapping[str, object]) -> Settings:
        return self.settings.override("the test", {key.replace("__", "."): value for key, value in settings.items()})

    def worker(self, processes: int = 1, **settings: object) -> Command:
        """Start a worker and wait until it listens."""
        worker = self.start("worker", "-c", str(processes), **settings)
        wait_until(lambda: "Ctrl-C stops it" in worker.told or worker.process.poll() is not None, "the worker listens")
        assert worker.process.poll() is None, worker.told
        return worker

    def left(self) -> dict[int, str]:
        """Return pid and command line of all processes that began with one of this test's, however deep."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self._mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return {pid: line for pid, line in found.items() if line}  # a zombie has none

    def close(self) -> None:
        for pid in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for command in self._commands:
            command.process.wait()


class Rows:
    """What the database says."""

    def __init__(self, url: str) -> None:
        self.engine = create_engine(url, application_name="tests")

    def ask(self, sql: str, **parameters: Any) -> list[Any]:
        """Return what a query finds, on a new connection where the old one was cut."""
        return repeat(self.engine, lambda tx: list(tx.execute(sa.text(sql), parameters)))

    def write(self, sql: str, **parameters: Any) -> None:
        repeat(self.engine, lambda tx: tx.execute(sa.text(sql), parameters))

    @property
    def job(self) -> Any:
        """The only job, or None."""
        found = self.ask("select * from job")
        return found[0] if found else None

    def states(self) -> Counter[str]:
        return Counter(row.state for row in self.ask("select state from task_instance"))

    def outcomes(self) -> Counter[str]:
        """How attempts ended."""
        return Counter(row.outcome for row in self.ask("select outcome from task_attempt"))

    def tries(self) -> set[int]:
        return {row.try_number for row in self.ask("select try_number from task_instance")}

    def hostnames(self) -> set[str]:
        return {row.hostname for row in self.ask("select hostname from task_instance where hostname is not null")}


@contextlib.contextmanager
def rows_of(url: str) -> Iterator[Rows]:
    rows = Rows(url)
    yield rows
    rows.engine.dispose()
