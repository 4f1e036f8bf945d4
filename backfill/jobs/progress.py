"""Counts, rate and time left of a job while it runs (S9.5, S9.6)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

#: Seconds over which the rate is taken (S9.6).
RATE_WINDOW = 60.0
#: Least time between two progress reports, in seconds (S9.5).
REPORT_EVERY = 1.0


class Pace:
    """How many task instances this job finished of late."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._marks: deque[tuple[float, int]] = deque([(self._since, 0)])
        self._finished = 0
        self._over = False

    def finished(self, count: int) -> None:
        """Note that `count` more task instances have finished."""
        self._finished += count
        now = self._clock()
        if now - self._marks[-1][0] >= REPORT_EVERY:
            self._marks.append((now, self._finished))
        while len(self._marks) > 1 and self._marks[1][0] <= now - RATE_WINDOW:
            self._marks.popleft()

    def rate(self) -> float:
        """Return task instances finished per second, over the last minute or since the start."""
        then, before = self._marks[0]
        elapsed = self._clock() - then
        return (self._finished - before) / elapsed if elapsed > 0 else 0.0

    def time_left(self, unfinished: int) -> float | None:
        """Return the seconds that `unfinished` task instances take at this rate; None at rate 0, if none is left, and after the end."""
        rate = self.rate()
        return unfinished / rate if rate > 0 and unfinished and not self._over else None

    def end(self) -> None:
        """Note that the job is over: what is unfinished stays so."""
        self._over = True


class Throttle:
    """Lets one report through on change, and at most one each `REPORT_EVERY` seconds (S9.5)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_at = float("-inf")
        self._last: object = None
        #: Something changed since the last report, and waits for its time.
        self.news = False

    def lets_through(self, content: object) -> bool:
        """Return whether `content` differs from the last report and is not too early."""
        self.news = content != self._last
        if not self.news or self.due_in() > 0:
            return False
        self._last, self._last_at, self.news = content, self._clock(), False
        return True

    def open(self) -> None:
        """Let the next report through at once: it is the last one."""
        self._last_at = float("-inf")

    def due_in(self) -> float:
        """Return the seconds until the next report may go."""
        return max(0.0, self._last_at + REPORT_EVERY - self._clock())
