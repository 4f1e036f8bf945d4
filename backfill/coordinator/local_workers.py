"""Celery workers that a command starts for itself on this machine, watches, and stops at its end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

logger = logging.getLogger(__name__)

#: Pauses before a worker that ended by itself is started again, in seconds; the last one repeats.
RESTART_PAUSES = (0.0, 1.0, 5.0, 15.0)


class LocalWorkers:
    """One Celery worker process with `concurrency` children, started again when it dies.

    It runs in a session of its own, so that an interrupt of the terminal reaches only the command, which then decides.
    """

    def __init__(self, *, concurrency: int, environment: Mapping[str, str], log: Path, stop_within: timedelta) -> None:
        self._command = [sys.executable, "-m", "backfill", "worker", "-c", str(concurrency)]
        self._environment = {**environment, "BACKFILL_PARENT_PID": str(os.getpid())}
        self._log = log
        self._stop_within = stop_within
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher = threading.Thread(target=self._watch, name="local-workers", daemon=True)

    def start(self) -> None:
        """Start the worker and its watcher."""
        self._process = self._launch()
        self._watcher.start()

    def stop(self) -> None:
        """Stop the worker: its tasks may end within its soft shutdown time, then they are handed back."""
        self._stopping.set()
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(self._stop_within.total_seconds() + 10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self) -> subprocess.Popen[bytes]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _watch(self) -> None:
        deaths = 0
        while not self._stopping.is_set() and self._process is not None:
            code = self._process.wait()
            if self._stopping.is_set():
                return
            pause = RESTART_PAUSES[min(deaths, len(RESTART_PAUSES) - 1)]
            logger.warning("The local worker ended with %s; it is started again. Its log: %s", code, self._log)
            deaths += 1
            if self._stopping.wait(pause):
                return
            self._process = self._launch()
