"""Celery workers that a command starts for itself on this machine, watches, and stops at its end."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

logger = logging.getLogger(__name__)

#: Pauses before a worker that ended by itself is started again, in seconds; the last one repeats.
RESTART_PAUSES = (0.0, 1.0, 5.0, 15.0)
#: Seconds between two looks whether the workers of others are still there.
LOOK_EVERY = 2.0
#: Seconds that a worker may need for its own end, beyond the time that its tasks have.
_LEAVING = 10.0


class LocalWorkers:
    """Sees to it that some worker listens: starts one of `concurrency` processes while `others_listen` says no.

    The workers of others may go at any time, or be dead already and seem to live on for a while. Our own runs in a session of
    its own, so that an interrupt of the terminal reaches only the command, which then decides; it is started again when it dies.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        environment: Mapping[str, str],
        log: Path,
        stop_within: timedelta,
        others_listen: Callable[[], bool],
    ) -> None:
        self._command = [sys.executable, "-m", "backfill", "worker", "-c", str(concurrency)]
        self._environment = {**environment, "BACKFILL_PARENT_PID": str(os.getpid())}
        self._log = log
        self._stop_within = stop_within
        self._others_listen = others_listen
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        #: Held while a worker is started, so that none is started behind the back of `stop`.
        self._starting = threading.Lock()
        self._watcher = threading.Thread(target=self._watch, name="local-workers", daemon=True)

    def start(self) -> None:
        """Start the worker, if none listens, and the watcher."""
        self._start_if_missed()
        self._watcher.start()

    def stop(self) -> None:
        """Stop the worker: its tasks may end within its soft shutdown time, then they are handed back."""
        self._stopping.set()
        with self._starting:
            process = self._process
        if process is None:
            return
        try:
            process.terminate()
            process.wait(self._stop_within.total_seconds() + _LEAVING)
        except BaseException as error:
            self.kill()
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise

    def kill(self) -> None:
        """Kill the worker and its children at once. Safe in a signal handler; nothing else may follow but `stop`."""
        self._stopping.set()
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _start_if_missed(self) -> None:
        if not self._others_listen():
            self._launch()

    def _launch(self) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._starting, self._log.open("ab") as log:
            if not self._stopping.is_set():
                self._process = subprocess.Popen(
                    self._command,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

    def _watch(self) -> None:
        deaths = 0
        while not self._stopping.is_set():
            if self._process is None:
                self._stopping.wait(LOOK_EVERY)
                self._start_if_missed()
                continue
            code = self._process.wait()
            if self._stopping.is_set():
                return
            logger.warning("The local worker ended with %s; it is started again. Its log: %s", code, self._log)
            self._stopping.wait(RESTART_PAUSES[min(deaths, len(RESTART_PAUSES) - 1)])
            deaths += 1
            self._launch()
