"""A process that another command started for itself ends with that command, however it ends."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time

from backfill.coordinator.local_workers import STANDBY

#: Names the process that this one belongs to; set by whoever starts it.
PARENT_PID = "BACKFILL_PARENT_PID"


def wait_for_environment() -> None:
    """If `$BACKFILL_STANDBY` is set, take from stdin the environment to work with, and the file that takes all output.

    The command that started this process writes them when its servers serve (`backfill.coordinator.local_workers`). Where that
    ends without a word, so does this process.
    """
    if not os.environ.get(STANDBY):
        return
    told = sys.stdin.buffer.read()
    if not told:
        sys.exit(0)
    given = json.loads(told)
    os.environ.clear()
    os.environ.update(given["environment"])
    _direct(os.devnull, os.O_RDONLY, 0)
    _direct(given["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 1, 2)


def _direct(file: str, how: int, *descriptors: int) -> None:
    opened = os.open(file, how)
    for descriptor in descriptors:
        os.dup2(opened, descriptor)
    os.close(opened)


def stop_with_parent() -> None:
    """If `$BACKFILL_PARENT_PID` is set, send this process a SIGTERM when that process has gone."""
    parent = os.environ.pop(PARENT_PID, "")
    if parent.isdecimal():
        threading.Thread(target=_stop_after, args=(int(parent),), name="parent-watch", daemon=True).start()


def _stop_after(parent: int) -> None:
    _wait_for_end(parent)
    os.kill(os.getpid(), signal.SIGTERM)


def _wait_for_end(parent: int) -> None:
    handle = _handle_of(parent)
    if handle is None:
        while os.getppid() == parent:  # there is no way to wait for a process that is no child of ours
            time.sleep(1)
        return
    if os.getppid() == parent:  # else it died before we could look, and its number may be another's by now
        select.select([handle], [], [])
    os.close(handle)


def _handle_of(process: int) -> int | None:
    """Return a file descriptor that becomes readable when `process` ends; None where the system has no such thing."""
    try:
        return os.pidfd_open(process)
    except (AttributeError, OSError):
        return None
