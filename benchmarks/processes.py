"""Processes that a measure starts: watched while they run, and gone when it ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

#: Seconds that a process has for its own end before it is killed.
_LEAVING = 15.0


class MeasureFailed(Exception):
    """Raised when something that is needed for a figure did not happen; its text says what."""


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], log: Path, *, cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process in a group of its own while the block lasts; what it says goes to `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            env=dict(environment),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to stop; kill its group if it does not."""
    process.terminate()
    try:
        process.wait(_LEAVING)
    except BaseException as error:
        kill_group(process)
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads its group, with what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def call(command: Sequence[str], environment: Mapping[str, str], log: Path, *, cwd: Path | None = None) -> float:
    """Run a command to its end and return how many seconds that took; `MeasureFailed` with its last words if it fails."""
    began = time.monotonic()
    with running(command, environment, log, cwd=cwd) as process:
        code = process.wait()
        seconds = time.monotonic() - began
    if code != 0:
        raise MeasureFailed(f"`{' '.join(command[-6:])}` ended with {code}: {last_words(log)}")
    return seconds


def last_words(log: Path) -> str:
    """Return the last lines of a log in one."""
    return " / ".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:])


def wait_until(condition: Callable[[], bool], what: str, *, within: float, every: float = 0.02) -> None:
    """Return when `condition` holds; `MeasureFailed` naming `what` if it does not `within` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise MeasureFailed(f"waited {within:g} s in vain: {what}")
        time.sleep(every)


def wait_for(process: subprocess.Popen[bytes], log: Path, word: str, *, within: float) -> None:
    """Return when `process` has written `word`; `MeasureFailed` with its last words if it ends, or does not `within` seconds."""

    def said() -> bool:
        return word in log.read_text(encoding="utf-8", errors="replace")

    try:
        wait_until(lambda: said() or process.poll() is not None, f"a process that says {word.strip()!r}", within=within)
    except MeasureFailed as error:
        raise MeasureFailed(f"{error}; it said: {last_words(log)}") from None
    if not said():
        raise MeasureFailed(f"a process ended that should say {word.strip()!r}; it said: {last_words(log)}")
