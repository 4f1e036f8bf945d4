"""`backfill logs`: the log of one try of a task instance, where it was written."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from backfill.bootstrap import Runtime, open_runtime
from backfill.cli.command import Command
from backfill.cli.output import Format, output_option, show_data
from backfill.cli.parameters import COUNT, DATE, JOB, MAP_INDEX
from backfill.config import load_settings
from backfill.coordinator.orders import read_row
from backfill.exceptions import RefusedError, UsageError
from backfill.jobs.why import FoundTaskInstance, Question
from backfill.keys import TaskInstanceKey
from backfill.states import FINISHED, FINISHED_JOB, TaskInstanceState
from backfill.store.inspection import AttemptRow
from workers.log_paths import log_path

#: Seconds between two looks at a log that is followed, and at its task instance.
LOOK_EVERY = 0.3
_CHUNK = 1 << 16


@click.command(cls=Command)
@click.argument("job_id", metavar="JOB", type=JOB)
@click.argument("task_id", metavar="TASK")
@click.argument("logical_date", metavar="DATE", type=DATE)
@click.option("--try", "try_number", metavar="N", type=COUNT, help="Which try.  [default: the latest]")
@click.option("--map-index", metavar="I", type=MAP_INDEX, help="Index of a mapped task instance.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task instance has ended, from try to try.")
@output_option
def logs(
    job_id: int,
    task_id: str,
    logical_date: datetime,
    try_number: int | None,
    map_index: int | None,
    follow: bool,
    form: Format,
) -> None:
    """Show the log of a task instance.

    Of its latest try, or of try N. A task of a subdag is named with the one that stands for it: part.load. Logs are kept by the machine on which the task ran (worker.log_folder): where that is another one,
    the command names it and the path there. Secrets are masked in the file already.
    """
    if follow and form is not Format.TABLE:
        raise UsageError(f"--follow shows a log as it grows, which has no form {form}; leave out one of the two.")
    question = Question(task_id, logical_date, map_index)
    with open_runtime(load_settings(), broker=False) as runtime:
        source = LogSource(runtime, job_id, question, try_number)
        if follow:
            for chunk in source.follow():
                _write(chunk)
        else:
            _show(source, form)


def _show(source: LogSource, form: Format) -> None:
    tried = source.look()
    path = tried.path_here()
    if form in {Format.JSON, Format.YAML}:
        show_data(tried.to_json() | {"log": path.read_text(encoding="utf-8", errors="replace")}, form)
        return
    with path.open("rb") as log:
        while chunk := log.read(_CHUNK):
            _write(chunk)


def _write(chunk: bytes) -> None:
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


@dataclass(frozen=True, slots=True)
class Tried:
    """One try of a task instance, as its rows are now."""

    found: FoundTaskInstance
    folder: Path
    try_number: int

    @property
    def path(self) -> Path:
        """Where its log is, on the machine that it ran on."""
        ti = self.found.ti
        key = TaskInstanceKey(self.found.task.dag_id, ti.task_id, ti.run_id, ti.map_index)
        return log_path(self.folder, key, self.try_number)

    @property
    def worker(self) -> str | None:
        """The worker that had it last."""
        of_try = [each.hostname for each in self.found.attempts if each.try_number == self.try_number]
        return of_try[-1] if of_try else None

    @property
    def is_over(self) -> bool:
        """Whether nothing more of this try will come."""
        ti = self.found.ti
        if ti.try_number != self.try_number or ti.state in FINISHED:
            return True
        return ti.state == TaskInstanceState.UP_FOR_RETRY

    @property
    def host(self) -> str:
        """The host of that worker; empty if there was none."""
        return (self.worker or "").rpartition("@")[2]

    @property
    def is_here(self) -> bool:
        """Whether it ran on this machine."""
        return self.host == socket.gethostname()

    def path_here(self) -> Path:
        """Return the path of its log; raise `RefusedError` saying where it is instead, if it is not here."""
        if self.path.is_file():
            return self.path
        raise RefusedError(self._why_missing())

    def _why_missing(self) -> str:
        name = f"{self.found.label}, try {self.try_number}"
        if self.worker is None:
            return f"There is no log of {name}: no worker has begun it."
        if not self.is_here:
            return f"The log of {name}, is on host {self.host}, where worker {self.worker} ran it: {self.path}; read it there."
        return f"The log of {name}, which worker {self.worker} ran on this host, is not at {self.path}; was it removed?"

    def to_json(self) -> dict[str, Any]:
        """Return what is known of the try, for programs."""
        ti = self.found.ti
        return {
            "dag_id": self.found.task.dag_id,
            "task_id": ti.task_id,
            "run_id": ti.run_id,
            "logical_date": self.found.logical_date,
            "map_index": ti.map_index,
            "state": ti.state,
            "try_number": self.try_number,
            "tries": tries_of(self.found.attempts),
            "hostname": self.worker,
            "path": self.path,
        }


def tries_of(attempts: Sequence[AttemptRow]) -> list[int]:
    """Return the tries that a worker has begun."""
    return sorted({each.try_number for each in attempts})


class LogSource:
    """Looks for the log that was asked for, as often as needed."""

    def __init__(self, runtime: Runtime, job_id: int, question: Question, try_number: int | None) -> None:
        self._find = runtime.inquirer().finder(job_id, question)
        self._engine = runtime.engine
        self._folder = runtime.settings.log_folder
        self._job_id = job_id
        self._try_number = try_number

    def look(self) -> Tried:
        """Return the try that is asked about, by the rows as they are now.

        Raises `UsageError` for a task instance or a try that does not exist, `RefusedError` if none was begun.
        """
        found = self._find()
        tries = tries_of(found.attempts)
        if found.below and not tries:
            raise UsageError(
                f"{found.label} stands for a subdag and has no log; its tasks have: {', '.join(found.below)}."
            )
        if self._try_number is not None and self._try_number not in tries:
            there = f"it has {', '.join(map(str, tries))}" if tries else "no worker has begun one yet"
            raise UsageError(f"{found.label} has no try {self._try_number}; {there}.")
        if not tries:
            raise RefusedError(self._not_begun(found))
        return Tried(found, self._folder, self._try_number or tries[-1])

    def follow(self) -> Iterator[bytes]:
        """Yield what is written until the task instance, or the try that was asked for, is over."""
        tried: Tried | None = self._first()
        while tried is not None:
            yield from self._rest(tried)
            tried = self._following(tried) if self._try_number is None else None

    def _first(self) -> Tried:
        """Wait until there is a try; raise if there will be none."""
        while True:
            try:
                return self.look()
            except RefusedError:
                if self._is_settled():
                    raise
            time.sleep(LOOK_EVERY)

    def _following(self, tried: Tried) -> Tried | None:
        """Wait for the try that follows; None if there will be none."""
        while (latest := self.look()).try_number == tried.try_number:
            if self._is_settled():
                return None
            time.sleep(LOOK_EVERY)
        return latest

    def _is_settled(self) -> bool:
        """Return whether no further try will come: the task instance, or its job, has ended."""
        if read_row(self._engine, self._job_id).state in FINISHED_JOB:
            return True
        try:
            return self._find().ti.state in FINISHED
        except RefusedError:
            return False

    def _rest(self, tried: Tried) -> Iterator[bytes]:
        """Yield the log of one try until that is over; what was written before the last look is in the file by then."""
        with self._begun(tried).open("rb") as log:
            is_over = False
            while True:
                while chunk := log.read(_CHUNK):
                    yield chunk
                if is_over:
                    return
                is_over = self._again(tried).is_over
                if not is_over:
                    time.sleep(LOOK_EVERY)

    def _begun(self, tried: Tried) -> Path:
        """Wait until the worker, which has claimed the try, begins its log here."""
        while not tried.path.is_file() and tried.is_here and not tried.is_over:
            time.sleep(LOOK_EVERY)
            tried = self._again(tried)
        return tried.path_here()

    def _again(self, tried: Tried) -> Tried:
        return Tried(self._find(), tried.folder, tried.try_number)

    def _not_begun(self, found: FoundTaskInstance) -> str:
        date = found.logical_date.isoformat().removesuffix("T00:00:00+00:00")
        return (
            f"There is no log of {found.label}, which is {found.ti.state}: no worker has begun it; "
            f"`backfill why {self._job_id} {found.task.name} {date}` says more."
        )
