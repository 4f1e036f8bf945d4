"""Real processes for the tests of the life cycle, and the journal by which these judge.

The tasks of `DAG_FILE` append a line to the journal, outside of the system, when they start and when they end.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from backfill.config import Settings
from backfill.executors.environment import settings_environment
from backfill.store.database import create_engine

WaitUntil = Callable[..., None]

#: `first` of each day waits while there is a file `hold`; `second` follows. With a file `deadly`, `first` of 1 January ends its
#: process; with a file `stubborn` it goes on waiting when it is told to stop.
DAG_FILE = """
import json
import os
import time
from datetime import datetime
from pathlib import Path

from backfill import DAG, task

HERE = Path({here!r})


def note(event, task_id, day):
    with open(HERE / "journal", "ab", buffering=0) as journal:
        journal.write(json.dumps([event, task_id, day, os.getpid()]).encode() + b"\\n")
        os.fsync(journal.fileno())


with DAG("sales", schedule="@daily", start_date=datetime(2024, 1, 1)) as dag:

    @task
    def first(day):
        note("start", "first", day)
        if day == "2024-01-01" and (HERE / "deadly").exists():
            os._exit(3)
        while True:
            try:
                if not (HERE / "hold").exists():
                    break
                time.sleep(0.02)
            except BaseException:
                if not (HERE / "stubborn").exists():
                    raise
        note("end", "first", day)
        return day

    @task
    def second(day):
        note("start", "second", day)
        note("end", "second", day)

    second(first("{{{{ ds }}}}"))
"""

#: Short, but long enough for two busy cores.
QUICK = {
    "task.heartbeat_interval": "0.5",
    "task.heartbeat_timeout": "6",
    "task.queued_timeout": "5",
    "coordinator.heartbeat_interval": "0.5",
    "worker.soft_shutdown_timeout": "1",
}


class Entry(NamedTuple):
    event: str
    task_id: str
    day: str
    pid: int


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


class Stage:
    """A folder with a DAG and its journal, and the processes that a test starts in it."""

    def __init__(self, settings: Settings, here: Path, wait_until: WaitUntil) -> None:
        self.settings = settings
        self.here = here
        self.wait_until = wait_until
        self._mark = f"LIFECYCLE_TEST={uuid.uuid4()}"
        self._commands: list[Command] = []
        settings.core.dags_folder.mkdir(parents=True, exist_ok=True)
        (settings.core.dags_folder / "sales.py").write_text(DAG_FILE.format(here=str(here)))

    # -- processes ------------------------------------------------------------------------------------------------------

    def start(self, *arguments: str, **settings: object) -> Command:
        """Start `backfill` with `arguments`; keywords are settings, `core__parallelism` for `core.parallelism`."""
        return self.start_program([sys.executable, "-m", "backfill", *arguments], arguments[0], **settings)

    def start_program(self, command: list[str], name: str, **settings: object) -> Command:
        own = self.settings.override("the test", {key.replace("__", "."): value for key, value in settings.items()})
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

    def run(self, days: int, *arguments: str, **settings: object) -> Command:
        """Start `backfill run` over the first `days` of January."""
        return self.start("run", "sales", "-s", "2024-01-01", "-e", f"2024-01-{days:02}", *arguments, **settings)

    def submit(self, days: int) -> int:
        submitted = self.start("submit", "sales", "-s", "2024-01-01", "-e", f"2024-01-{days:02}")
        assert submitted.end() == 0, submitted.told
        return int(submitted.printed)

    def worker(self, processes: int = 1, **settings: object) -> Command:
        """Start a worker and wait until it listens."""
        worker = self.start("worker", "-c", str(processes), **settings)
        self.wait_until(
            lambda: "Ctrl-C stops it" in worker.told or worker.process.poll() is not None, "the worker listens"
        )
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

    # -- tasks ----------------------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Let each `first` wait once it has started."""
        (self.here / "hold").touch()

    def let_go(self) -> None:
        (self.here / "hold").unlink()

    def journal(self) -> list[Entry]:
        with contextlib.suppress(FileNotFoundError):
            return [Entry(*json.loads(line)) for line in (self.here / "journal").read_text().splitlines()]
        return []

    def count(self, event: str) -> Counter[tuple[str, str]]:
        return Counter((entry.task_id, entry.day) for entry in self.journal() if entry.event == event)

    def wait_for_starts(self, number: int) -> None:
        self.wait_until(lambda: self.count("start").total() >= number, f"{number} tasks have started")

    def assert_each_ended_once(self, days: int) -> None:
        """No finished task instance ran again, and none was forgotten."""
        expected = Counter((task, f"2024-01-{day:02}") for task in ("first", "second") for day in range(1, days + 1))
        assert self.count("end") == expected

    def assert_each_started_once(self, days: int) -> None:
        self.assert_each_ended_once(days)
        assert self.count("start") == self.count("end")


class Rows:
    """What the database says."""

    def __init__(self, url: str) -> None:
        self.engine = create_engine(url, application_name="tests")

    def ask(self, sql: str, **parameters: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(sa.text(sql), parameters))

    def write(self, sql: str, **parameters: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text(sql), parameters)

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
