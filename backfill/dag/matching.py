"""Names that match a regular expression of the operator, found within bounds: some expressions take longer than anybody lives."""

from __future__ import annotations

import re
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from backfill.exceptions import UsageError

#: Seconds that the names of one DAG, or of one folder, may take.
LONGEST = 5.0


class _TooLongError(Exception):
    """Raised in the midst of a search."""


def compiled(regex: str) -> re.Pattern[str]:
    """Return `regex`, compiled; raises `UsageError` with what is wrong with it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # what may mean something else one day means the same now
            return re.compile(regex)
    except (re.error, OverflowError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise UsageError(
            f"{regex[:200]!r} is no regular expression: {why}; correct it, or quote it for the shell."
        ) from None


def matching(regex: str, names: Iterable[str]) -> list[str]:
    """Return those of `names` in which there is a match of `regex`.

    Raises `UsageError` where `regex` cannot be read, or takes too long: threads other than the main one cannot find out, and wait.
    """
    pattern = compiled(regex)
    try:
        with _bounded(LONGEST):
            return [name for name in names if pattern.search(name)]
    except _TooLongError:
        raise UsageError(
            f"The regular expression {regex[:200]!r} takes too long; leave out repetitions of repetitions such as (a+)+."
        ) from None


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    """Raise `_TooLongError` in the block after `seconds`: a search looks for signals while it goes on."""
    is_main = threading.current_thread() is threading.main_thread()
    if not (is_main and hasattr(signal, "setitimer")):
        yield
        return

    def on_alarm(_number: int, _frame: FrameType | None) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGALRM, on_alarm)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, interval)
        signal.signal(signal.SIGALRM, before)
