"""A child process in a group of its own that cannot outlive the process that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Self

#: Seconds that a group has between SIGTERM and SIGKILL.
GRACE = 5.0
#: Seconds between two looks at whether a group that was told to end has ended.
_LOOK = 0.01

#: Starts the command once a line says that it is watched; without the line, because its parent died, never.
_GATE = 'read -r _ && exec "$@" </dev/null'
#: Reads from a pipe that the parent holds open. The pipe closes when the parent dies, however it dies, and then the whole
#: group is killed; a line says that the command has ended and nothing is to be done.
_WATCH = 'trap "" TERM; read -r _ || kill -s KILL -- "-$1"'


class ProcessGroup:
    """Runs `command` in a group of its own; `output` is its standard output and error.

    Leaving the `with` ends the group if the command has not ended by itself.
    """

    def __init__(self, command: Sequence[str], *, cwd: str, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _GATE, "sh", *command],
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "sh", str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        self._say(self._process)

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
        self._say(self._watcher)
        self._watcher.wait()

    @property
    def output(self) -> IO[bytes]:
        """Lines of standard output and error."""
        assert self._process.stdout is not None
        return self._process.stdout

    def wait(self) -> int:
        """Wait for the command and return its exit code, negative for the signal that ended it."""
        return self._process.wait()

    def end(self) -> None:
        """Send SIGTERM to the group, and SIGKILL after `GRACE` to what is left of it."""
        deadline = time.monotonic() + GRACE
        present = self._signal(signal.SIGTERM)
        while present and time.monotonic() < deadline:
            time.sleep(_LOOK)
            self._process.poll()  # a process that nobody has waited for still counts as one of its group
            present = self._signal(0)
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> bool:
        """Send a signal to the group; return whether there was anyone in it."""
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    @staticmethod
    def _say(process: subprocess.Popen[bytes]) -> None:
        """Write the line that a script waits for."""
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"\n")
            process.stdin.close()
