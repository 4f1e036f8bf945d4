"""A process that a command starts for itself, starts again when it dies, and stops at its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import IO

#: Pauses before a process that ended by itself is started again, in seconds; the last one repeats.
RESTART_PAUSES = (0.0, 1.0, 5.0, 15.0)
#: A process that lived for so many seconds is started again at once, as if it were its first death.
LONG_LIFE = 60.0

#: Gives the environment to a process that waits for it, and returns that process; None where there is none.
SendOff = Callable[[Mapping[str, str]], subprocess.Popen[bytes] | None]


class OwnProcess:
    """One process at a time, in a session of its own: an interrupt of the terminal reaches only the command, which then decides.

    The process knows whose it is (`$BACKFILL_PARENT_PID`), and ends with the command however that ends.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = {**environment, "BACKFILL_PARENT_PID": str(os.getpid())}
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        #: Held while a process is started, so that none is started behind the back of `stop`.
        self._starting = threading.Lock()
        self._began = 0.0
        self._deaths = 0

    def is_told_to_stop(self) -> bool:
        """Tell if `stop` or `kill` was called: nothing is started from then on."""
        return self._stopping.is_set()

    def launch(self, output: int | IO[bytes], standby: SendOff = lambda _: None) -> subprocess.Popen[bytes] | None:
        """Start the process, which writes all that it says to `output`; None when it is told to stop.

        If `standby` returns one that waits, in a session of its own, it is taken instead.
        """
        with self._starting:
            if self._stopping.is_set():
                return None
            self._began = time.monotonic()
            self._process = standby(self._environment) or subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            return self._process

    def pause_before_restart(self) -> float:
        """Return the seconds to `rest` before the next start; more with each death, unless it had lived for long."""
        deaths = 0 if time.monotonic() - self._began >= LONG_LIFE else self._deaths
        self._deaths = deaths + 1
        return RESTART_PAUSES[min(deaths, len(RESTART_PAUSES) - 1)]

    def rest(self, seconds: float) -> None:
        """Wait for `seconds`, or until it is told to stop."""
        self._stopping.wait(seconds)

    def stop(self, within: timedelta | None, overdue: Callable[[], object] = lambda: None) -> int | None:
        """Tell the process to stop, wait for its end, and return its exit code; None if there is no process.

        When its time is over, `overdue` is called, and it is killed; also when the waiting is interrupted.
        """
        self._stopping.set()
        with self._starting:
            process = self._process
        if process is None:
            return None
        try:
            process.terminate()
            return process.wait(None if within is None else within.total_seconds())
        except subprocess.TimeoutExpired:
            overdue()
        finally:
            self.kill()
            process.wait()
        return process.returncode

    def kill(self) -> None:
        """Kill the process and its children at once. Safe in a signal handler; nothing else may follow but `stop`."""
        self._stopping.set()
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
