"""How a worker stops (S7.8): it takes no more work and lets its tasks end; when its time is over, or told twice, it hands them back.

Celery's own soft shutdown would sleep for all of `worker.soft_shutdown_timeout` even when the tasks end at once. So the first
signal begins Celery's warm shutdown here, which ends with the last task, and a timer turns it into a cold one.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import Any

from celery import signals
from celery.worker import state

logger = logging.getLogger(__name__)

_ASKED = (signal.SIGTERM, signal.SIGINT)


class StopFlag:
    """Says to the children of a worker that it stops; shared by them because they are forked from the process that made it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def set(self) -> None:
        """Raise the flag. Safe in a signal handler."""
        self._memory[0] = 1

    def is_set(self) -> bool:
        """Return whether it was raised."""
        return self._memory[0] == 1


class Shutdown:
    """Takes the signals of a worker's main process over from Celery, once its handlers stand."""

    def __init__(self, flag: StopFlag, timeout: timedelta) -> None:
        self._flag = flag
        self._timeout = timeout
        self._hostname = ""
        self._cold: Callable[[int, FrameType | None], Any] | None = None

    def take_over(self, hostname: str) -> None:
        """Handle SIGTERM, SIGINT and SIGQUIT from now on; a second call changes nothing."""
        handler = signal.getsignal(signal.SIGQUIT)
        if self._cold is not None or not callable(handler):
            return
        self._hostname, self._cold = hostname, handler
        for number in (*_ASKED, signal.SIGQUIT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        first = not self._flag.is_set()
        self._flag.set()
        if first and number in _ASKED:
            self._let_tasks_end(number)
        elif self._cold is not None:
            self._cold(number, frame)

    def _let_tasks_end(self, number: int) -> None:
        _say(f"Worker {self._hostname} stops: its tasks have {self._timeout} to end, then they are handed back")
        state.should_stop = os.EX_OK
        signals.worker_shutting_down.send(
            sender=self._hostname, sig=signal.Signals(number).name, how="Warm", exitcode=os.EX_OK
        )
        timer = threading.Timer(self._timeout.total_seconds(), os.kill, (os.getpid(), signal.SIGQUIT))
        timer.daemon = True
        timer.start()


def _say(text: str) -> None:
    # logging takes locks, and the signal may have come while one of them was held
    with contextlib.suppress(OSError):  # whoever read it has gone, perhaps that is why the worker stops
        os.write(2, f"{text}\n".encode())
