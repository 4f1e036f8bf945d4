"""Commands as processes of their own, with the settings of the test."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from click.testing import Result
from lifecycle_stage import QUICK, Stage
from processes import Rows, rows_of, run_here

from backfill.config import Settings
from backfill.executors.environment import settings_environment

#: Runs a command to its end; keywords are settings put over the test's, `core__parallelism` for `core.parallelism`.
Backfill = Callable[..., subprocess.CompletedProcess[str]]
#: The same within this process.
Command = Callable[..., Result]
#: Runs a command while a context lasts, then kills it; its stderr is a file of the test's folder.
Service = Callable[..., AbstractContextManager["Running"]]


#: Where no test asks for more: each process more costs a second before its first task.
ONE_PROCESS = {"worker__concurrency": 1}


class Running:
    """A command that runs, and what it has written to stderr."""

    def __init__(self, process: subprocess.Popen[str], stderr: Path) -> None:
        self.process = process
        self._stderr = stderr

    @property
    def told(self) -> str:
        return self._stderr.read_text()


def overridden(settings: Settings, others: dict[str, object]) -> Settings:
    return settings.override("the test", {name.replace("__", "."): value for name, value in others.items()})


@pytest.fixture
def backfill(settings: Settings, tmp_path: Path) -> Backfill:
    def run(*arguments: str, timeout: float = 60, **others: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "backfill", *arguments],
            env=settings_environment(overridden(settings, ONE_PROCESS | others), os.environ),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    return run


@pytest.fixture
def command(settings: Settings) -> Command:
    """Give a function that runs a command within this process, which takes a fraction of the time."""
    return lambda *arguments, **others: run_here(overridden(settings, others), *arguments)


@pytest.fixture
def service(settings: Settings, tmp_path: Path) -> Service:
    @contextmanager
    def start(*arguments: str, **others: object) -> Iterator[Running]:
        stderr = tmp_path / f"{'-'.join(arguments[:1])}.stderr"
        with (
            stderr.open("w") as file,
            subprocess.Popen(
                [sys.executable, "-m", "backfill", *arguments],
                env=settings_environment(overridden(settings, ONE_PROCESS | others), os.environ),
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                text=True,
            ) as process,
        ):
            try:
                yield Running(process, stderr)
            finally:
                process.kill()

    return start


@pytest.fixture
def port() -> int:
    """Return a port that was free just now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def stage(settings: Settings, tmp_path: Path, wait_until: Callable[..., None]) -> Iterator[Stage]:
    """Return a stage for processes with short intervals, which leaves none of them behind."""
    stage = Stage(settings.override("the test", QUICK), tmp_path, wait_until)
    yield stage
    stage.close()


@pytest.fixture
def rows(database_url: str) -> Iterator[Rows]:
    with rows_of(database_url) as rows:
        yield rows
