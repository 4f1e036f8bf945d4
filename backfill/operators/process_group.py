"""A child process in a group of its own that cannot outlive the process that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Self

#: Seconds that a group has between SIGTERM and SIGKILL.
GRACE = 5.0

#: Leads the group and reads from a pipe that this process holds open. The pipe closes when this process dies, however it
#: dies, and then the whole group is killed; a line says that the command has ended and nothing is to be done.
_WATCH = "trap '' TERM; read -r _ || kill -s KILL -- -$$"


class ProcessGroup:
    """Runs `command` in a group of its own; `output` is its standard output and error.

    Leaving the `with` ends the group if the command has not ended by itself.
    """

    def __init__(self, command: Sequence[str], *, cwd: str, env: Mapping[str, str]) -> None:
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        try:
            self._process = subprocess.Popen(
                command,
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=self._watcher.pid,
            )
        except BaseException:
            self._dismiss_watcher()
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, _error: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End what still runs and let the watcher go."""
        if self._process.poll() is None:
            self.end()
        self.output.close()
        self._dismiss_watcher()

    def _dismiss_watcher(self) -> None:
        self._watcher.communicate(b"\n")  # a closed pipe is no error here: the watcher may be gone already

    @property
    def output(self) -> IO[bytes]:
        """Lines of standard output and error."""
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def pid(self) -> int:
        """The command's process id."""
        return self._process.pid

    def wait(self) -> int:
        """Wait for the command and return its exit code, negative for the signal that ended it."""
        return self._process.wait()

    def end(self) -> None:
        """Send SIGTERM to the group, and SIGKILL after `GRACE` to what is left of it."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._watcher.pid, number)
