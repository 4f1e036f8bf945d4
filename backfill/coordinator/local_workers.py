"""Celery workers that a command starts for itself on this machine, watches, and stops at its end."""

from __future__ import annotations

import json
import logging
import os
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

#: Set for a worker that waits for the environment that it works with (`Standby`).
STANDBY = "BACKFILL_STANDBY"
#: Seconds between two looks whether the workers of others are still there.
LOOK_EVERY = 2.0
#: Seconds that a worker may need for its own end, beyond the time that its tasks have.
_LEAVING = 10.0


def _command(concurrency: int) -> list[str]:
    return [sys.executable, "-m", "backfill", "worker", "-c", str(concurrency)]


class Standby:
    """A worker process that has imported what it needs, and waits on its stdin to be told what to work with.

    To import it all takes a good part of a second, in which the command itself starts servers and creates its job. The process
    ends by itself when the command does.
    """

    def __init__(self, concurrency: int) -> None:
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            _command(concurrency),
            env={**os.environ, STANDBY: "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def send_off(self, environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes] | None:
        """Have the process work with `environment` and write to `log`; None if it was sent off before, or has ended."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return None
        try:
            with process.stdin as told:
                told.write(json.dumps({"environment": dict(environment), "log": str(log)}).encode())
        except OSError:
            process.wait()
            return None
        return process

    def dismiss(self) -> None:
        """End the process, unless it was sent off."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.kill()
            process.stdin.close()
            process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.dismiss()


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
        standby: Standby | None = None,
    ) -> None:
        self._worker = OwnProcess(_command(concurrency), environment)
        self._standby = standby
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
            self._process = self._worker.launch(log, self._sent_off)

    def _sent_off(self, environment: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
        return None if self._standby is None else self._standby.send_off(environment, self._log)

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
