"""Tasks that end in every way an executor has to report; the run's conf names a folder for what they leave behind."""

import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

from backfill import DAG, get_current_context, task
from backfill.exceptions import RescheduleTask, SkipTask


def folder() -> Path:
    return Path(get_current_context()["dag_run"].conf["folder"])


def note(text: str) -> None:
    """Append a line, durably and whole."""
    with (folder() / "journal").open("a") as journal:
        journal.write(f"{text}\n")


@task
def succeed() -> int:
    note("succeed")
    return 1


@task
def fail() -> None:
    raise ValueError("as ordered")


@task
def skip() -> None:
    raise SkipTask


@task
def reschedule() -> None:
    raise RescheduleTask(datetime(2100, 1, 1, tzinfo=UTC))


@task
def kill_itself() -> None:
    note("kill_itself")
    os.kill(os.getpid(), signal.SIGKILL)


@task
def wait_for_file() -> None:
    """Run until the file `go` is there."""
    note("started")
    while not (folder() / "go").exists():
        time.sleep(0.02)
    note("went on")


with DAG("conformance", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=UTC)):
    succeed()
    fail()
    skip()
    reschedule()
    kill_itself()
    wait_for_file()
