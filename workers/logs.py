"""The log of one attempt: everything that the task prints or logs, stamped and masked, in the file of its try (S7.8).

While an attempt runs, standard output and error of the whole process lead to its file: what Python code prints or logs comes with a
time, what a subprocess or a C library writes to the bare file descriptors comes as it is. Lines are handed to the operating
system one by one, so a log is complete up to the moment of a `kill -9`, and can be followed while it grows.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Self, TextIO

from backfill.exceptions import BackfillError
from workers.masking import Masker

_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_STDOUT, _STDERR = 1, 2
_ROOT = logging.getLogger()


class LogUnwritable(BackfillError):
    """Raised when the log of an attempt cannot be begun; its task is not started then."""

    def __init__(self, path: str, error: OSError) -> None:
        super().__init__(f"The log {path} cannot be written: {error.strerror or error}.")


class TaskLog:
    """The open log of one attempt. Opening it writes the header; a `Capture` leads the process's output into it."""

    def __init__(self, path: str, *, attempt_id: str, hostname: str, try_number: int, mask: Masker) -> None:
        self.path = path
        self._mask = mask
        #: The first error while writing. The task is not told: its work is worth more than its log.
        self.broken: OSError | None = None
        try:
            self._fd = _open(path, is_first=try_number == 1)
            self._begin(f"attempt {attempt_id} on {hostname}, pid {os.getpid()}, try {try_number}")
        except OSError as error:
            raise LogUnwritable(path, error) from error

    def line(self, level: str, text: str) -> None:
        """Write `text` under the present time; each of its lines but the first is indented."""
        stamped = f"{_now()} {level:<7} {self._mask(text)}".replace("\n", "\n    ")
        self._write(f"{stamped}\n".encode("utf-8", "backslashreplace"))

    def exception(self, text: str, error: BaseException) -> None:
        """Write `text` with the traceback of `error`, from the frame at which user code was entered."""
        trace = "".join(traceback.format_exception(error)).rstrip("\n")
        self.line("ERROR", f"{text}\n{trace}")

    @property
    def fd(self) -> int:
        """Descriptor of the file."""
        return self._fd

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, header: str) -> None:
        data = f"{_now()} ******* {header}\n".encode("utf-8", "backslashreplace")
        try:
            os.write(self._fd, data)
        except OSError:
            os.close(self._fd)
            raise

    def _write(self, data: bytes) -> None:
        try:
            os.write(self._fd, data)
        except OSError as error:
            self.broken = self.broken or error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _open(path: str, *, is_first: bool) -> int:
    if is_first:  # there is no folder yet: to find that out takes as long as to open a file
        _make_folder(path.rpartition("/")[0])
    try:
        return os.open(path, _APPEND, 0o640)
    except FileNotFoundError:
        _make_folder(path.rpartition("/")[0])
        return os.open(path, _APPEND, 0o640)


def _make_folder(folder: str) -> None:
    try:
        os.mkdir(folder)  # noqa: PTH102  # as text, in a tenth of the time; mostly only the last is missing
    except OSError:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103  # as above


class _Lines(io.TextIOBase):
    """A text stream that hands on whole lines."""

    def __init__(self, level: str, write_line: Callable[[str, str], None], fd: int) -> None:
        super().__init__()
        self._level = level
        self._write_line = write_line
        self._fd = fd
        self._rest = ""

    def write(self, text: str) -> int:
        """Take `text`; what follows its last line break waits for more."""
        *lines, self._rest = f"{self._rest}{text}".split("\n")
        for line in lines:
            self._write_line(self._level, line)
        return len(text)

    def finish(self) -> None:
        """Hand on what has no line break."""
        if self._rest:
            self.write("\n")

    def fileno(self) -> int:
        """Return the descriptor below, which leads to the same file: programs that are started with it write there."""
        return self._fd

    def writable(self) -> bool:
        """Say yes."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute in typeshed, read-only here
        """What `print` would encode with."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]  # as above
        """How what cannot be encoded is written."""
        return "backslashreplace"


class _Records(logging.Handler):
    """Hands log records on as lines."""

    def __init__(self, write_line: Callable[[str, str], None]) -> None:
        super().__init__()
        self._write_line = write_line

    def forget(self) -> None:
        """Be as it was made, whatever a task has done to it."""
        self.formatter = None
        self.filters.clear()
        self.level = logging.NOTSET

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; one that cannot be formatted is reported by `logging` itself, on stderr."""
        try:
            self._write_line(record.levelname, self.format(record))
        except Exception:  # noqa: BLE001  # a user's record may fail in any way, and must not fail the task
            self.handleError(record)


class Capture:
    """Leads stdout, stderr and logging of this process into one log after the other, and back again after each.

    Open for the length of a `with` block, so that what all of them need is made once.
    """

    def __init__(self) -> None:
        self._log: TaskLog | None = None
        self._records = _Records(self._write_line)
        self._streams = self._new_streams()
        self._kept: tuple[tuple[int, int], ...] = ()

    def __enter__(self) -> Self:
        self._kept = tuple((target, os.dup(target)) for target in (_STDOUT, _STDERR))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, original in self._kept:
            os.close(original)

    @contextlib.contextmanager
    def to(self, log: TaskLog) -> Iterator[None]:
        """Lead all of it to `log` for the length of the block."""
        # one block for all three: what enters and leaves a block of its own takes longer than what is done here
        streams, handlers, level = (sys.stdout, sys.stderr), _ROOT.handlers[:], _ROOT.level
        self._log = log
        _flush(sys.__stdout__, sys.__stderr__)
        try:
            self._lead_descriptors_to(log.fd)
            self._lead_streams()
            self._lead_logging(level)
            yield
        finally:
            self._lead_logging_back(handlers, level)
            self._lead_streams_back(streams)
            _flush(sys.__stdout__, sys.__stderr__)
            self._lead_descriptors_back()

    def _write_line(self, level: str, text: str) -> None:
        if self._log is not None:
            self._log.line(level, text)

    def _new_streams(self) -> tuple[_Lines, _Lines]:
        return _Lines("STDOUT", self._write_line, _STDOUT), _Lines("STDERR", self._write_line, _STDERR)

    def _lead_descriptors_to(self, fd: int) -> None:
        """Let the bare descriptors 1 and 2 write to `fd`; what Python holds back for them has to be written before."""
        for target, _ in self._kept:
            os.dup2(fd, target)

    def _lead_descriptors_back(self) -> None:
        for target, original in self._kept:
            os.dup2(original, target)

    def _lead_streams(self) -> None:
        out, err = self._streams
        if out.closed or err.closed:  # a task may close what it writes to
            self._streams = out, err = self._new_streams()
        sys.stdout, sys.stderr = out, err

    def _lead_streams_back(self, streams: tuple[TextIO, TextIO]) -> None:
        sys.stdout, sys.stderr = streams
        for stream in self._streams:
            stream.finish()

    def _lead_logging(self, level: int) -> None:
        """Give the root logger this one handler."""
        self._records.forget()
        _ROOT.handlers[:] = [self._records]
        if level > logging.INFO or level == logging.NOTSET:
            _ROOT.setLevel(logging.INFO)

    def _lead_logging_back(self, handlers: list[logging.Handler], level: int) -> None:
        """Give the root logger what it had. Handlers that the task has added there go with the attempt."""
        _ROOT.handlers[:] = handlers
        if _ROOT.level != level:  # setting it makes all loggers forget what they have worked out
            _ROOT.setLevel(level)


def _flush(*streams: TextIO | None) -> None:
    for stream in streams:
        try:
            stream.flush()  # type: ignore[union-attr]  # None is covered by AttributeError
        except (OSError, ValueError, AttributeError):  # closed, broken or absent: nothing is held back
            continue
