"""Real processes for the tests of the life cycle, and the journal by which these judge.

The tasks of `DAG_FILE` append a line to the journal, outside of the system, when they start and when they end.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from processes import Command, Processes

from backfill.config import Settings

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


class Stage(Processes):
    """A folder with a DAG and its journal, and the processes that a test starts in it."""

    def __init__(self, settings: Settings, here: Path, wait_until: WaitUntil) -> None:
        super().__init__(settings, here)
        self.wait_until = wait_until
        settings.core.dags_folder.mkdir(parents=True, exist_ok=True)
        (settings.core.dags_folder / "sales.py").write_text(DAG_FILE.format(here=str(here)))

    def run(self, days: int, *arguments: str, **settings: object) -> Command:
        """Start `backfill run` over the first `days` of January."""
        return self.start("run", "sales", "-s", "2024-01-01", "-e", f"2024-01-{days:02}", *arguments, **settings)

    def submit(self, days: int) -> int:
        submitted = self.do("submit", "sales", "-s", "2024-01-01", "-e", f"2024-01-{days:02}")
        assert submitted.end() == 0, submitted.told
        return int(submitted.printed)

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
