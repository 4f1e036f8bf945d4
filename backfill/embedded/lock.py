"""File locks: the kernel gives them back when the holder ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backfill.embedded.processes import wait_until
from backfill.exceptions import ServiceUnavailable


def try_lock(file: Path) -> int | None:
    """Return a file descriptor that holds the lock of `file` until it is closed; None when another holds it.

    A child that inherits the descriptor keeps the lock after the parent has closed its own.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_locked(file: Path) -> bool:
    """Whether a living process holds the lock of `file`."""
    descriptor = try_lock(file)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


@contextmanager
def locked(file: Path, seconds: float) -> Iterator[None]:
    """Hold the lock of `file`; `ServiceUnavailable` when another process holds it for longer than `seconds`."""
    held: list[int] = []

    def attempt() -> bool:
        descriptor = try_lock(file)
        held.extend([] if descriptor is None else [descriptor])
        return bool(held)

    if not wait_until(attempt, seconds):
        raise ServiceUnavailable(
            f"Another command has been starting or stopping the embedded servers for more than {seconds:.0f} seconds"
            f" (it holds the lock {file}); wait for it or end it, then try again."
        )
    try:
        yield
    finally:
        os.close(held[0])
