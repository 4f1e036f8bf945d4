"""A process that another command started for itself ends with that command, however it ends."""

from __future__ import annotations

import os
import select
import signal
import threading
import time

#: Names the process that this one belongs to; set by whoever starts it.
PARENT_PID = "BACKFILL_PARENT_PID"


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
