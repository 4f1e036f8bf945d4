"""Celery workers that a command starts for itself on this machine, watches, and stops at its end."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from backfill.coordinator.own_process import OwnProcess

logger = logging.getLogger(__name__)

#: Seconds between two looks whether the workers of others are still there.
LOOK_EVERY = 2.0
#: Seconds that a worker may need for its own end, beyond the time that its tasks have.
_LEAVING = 10.0


class LocalWorkers:
    """Sees to it that some worker listens: starts one of `concurrency` processes while `others_listen` says no.

    The workers of others may go at any time, or be dead already and seem to live on for a while. Our own is started again when
    it dies.
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
        self._worker = OwnProcess([sys.executable, "-m", "backfill", "worker", "-c", str(concurrency)], environment)
        self._log = log
        self._stop_within = stop_within
        self._others_listen = others_listen
        #: The worker that was started last, if any.
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher = threading.Thread(target=self._watch, name="local-workers", daemon=True)

    def start(self) -> None:
        """Start the worker, if none listens, and the watcher."""
        self._start_if_missed()
        self._watcher.start()

    def stop(self) -> None:
        """Stop the worker: its tasks may end within its soft shutdown time, then they are handed back."""
        self._worker.stop(self._stop_within + timedelta(seconds=_LEAVING))

    def kill(self) -> None:
        """Kill the worker and its children at once. Safe in a signal handler; nothing else may follow but `stop`."""
        self._worker.kill()

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
        with self._log.open("ab") as log:
            self._process = self._worker.launch(log)

    def _watch(self) -> None:
        while not self._worker.is_told_to_stop():
            if self._process is None:
                self._worker.rest(LOOK_EVERY)
                self._start_if_missed()
                continue
            code = self._process.wait()
            if self._worker.is_told_to_stop():
                return
            logger.warning("The local worker ended with %s; it is started again. Its log: %s", code, self._log)
            self._worker.rest(self._worker.pause_before_restart())
            self._launch()
