"""One worker process of this machine, `python -m workers.local`, and the pipes to it.

What travels, a line each: down, a `Bundle` as JSON; up, the `ExecutorEvent`s of its attempts and then an empty line, which says
that the bundle is done with, whatever became of it (a lost claim reports nothing, S7.4). The end of its input is the order to
leave: it hands back what runs (S3.15) and goes, so it never outlives its parent. SIGTERM ends the task that runs (S3.11), after
which the child leaves too.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import IO, cast

from backfill.exceptions import MessageError
from backfill.messages import Bundle, ExecutorEvent

logger = logging.getLogger(__name__)

#: `-P`: a folder `workers` below the current one must not take the place of ours.
_COMMAND = (sys.executable, "-P", "-m", "workers.local")


class ChildGone(Exception):
    """Raised when the process ended in the middle of a bundle; its text says how."""


class Child:
    """A worker process. One thread runs and closes; any thread may call the other methods."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C in the terminal is for the coordinator, which then says what to do
        )
        self._input, self._output = cast("IO[bytes]", self._process.stdin), cast("IO[bytes]", self._process.stdout)
        self._signalling = threading.Lock()
        self._killers: list[threading.Timer] = []

    @property
    def pid(self) -> int:
        """Its process id, and that of its process group."""
        return self._process.pid

    @property
    def usable(self) -> bool:
        """Whether it has neither ended nor been told to."""
        with self._signalling:
            return not self._killers and self._process.poll() is None

    def run(self, bundle: Bundle) -> Iterator[ExecutorEvent]:
        """Send `bundle` and yield its events until it is done with; raises `ChildGone`."""
        self._send(bundle)
        for line in self._output:
            if not line.strip():
                return
            event = self._decode(line)
            if event is not None:
                yield event
        raise ChildGone(self._reap())

    def stop(self, patience: timedelta) -> None:
        """Stop what it runs (SIGTERM), and kill it after `patience`; returns at once. No other bundle may follow."""
        with self._signalling:
            if self._process.poll() is None:
                self._process.terminate()
                self._kill_after(patience)

    def dismiss(self, patience: timedelta) -> None:
        """Have it hand back what it runs and leave, and kill it after `patience`; returns at once."""
        self._end_input()
        with self._signalling:
            if self._process.poll() is None:
                self._kill_after(patience)

    def kill(self) -> None:
        """End it and its process group at once (SIGKILL)."""
        with self._signalling:
            self._kill_group()

    def kill_at_once(self) -> None:
        """Do the same in a signal handler: without the lock, which the interrupted thread may hold."""
        self._kill_group()

    def close(self) -> None:
        """Have it leave and wait until it has, which may take as long as what it runs; `stop` and `dismiss` limit that."""
        self._end_input()
        if not self._output.closed:
            for _ in self._output:
                pass
            self._output.close()
        self._reap()

    def _send(self, bundle: Bundle) -> None:
        try:
            self._input.write(json.dumps(bundle.encode(), separators=(",", ":")).encode() + b"\n")
            self._input.flush()
        except (BrokenPipeError, ValueError):  # it is dead, or was dismissed
            raise ChildGone(self._reap()) from None

    def _end_input(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._input.close()

    def _decode(self, line: bytes) -> ExecutorEvent | None:
        try:
            return ExecutorEvent.decode(line)
        except MessageError as error:
            logger.warning("Process %d wrote %r: %s", self.pid, line[:200], error)
            return None

    def _reap(self) -> str:
        """Wait for the end of a process that has closed its output, and return how it ended."""
        with self._signalling:
            self._kill_group()  # what it started ends with it; before the wait, while the group's id is still its own
            code = self._process.wait()
        for killer in self._killers:
            killer.cancel()
            killer.join()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"its process {self.pid} {how}"

    def _kill_after(self, patience: timedelta) -> None:
        killer = threading.Timer(patience.total_seconds(), self.kill)
        killer.daemon = True
        killer.start()
        self._killers.append(killer)

    def _kill_group(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: a zombie's group is not permitted
                os.killpg(self.pid, signal.SIGKILL)
