"""When the loop has to look at what no event announces: the sweep, limits that others occupy, a broker that is away."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Pauses after each fruitless attempt to reach the broker, in seconds; the last one repeats (S7.3).
BROKER_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)


class Rhythm:
    """Deadlines of one loop, on the monotonic clock, in seconds."""

    def __init__(self, *, sweep_every: float, look_every: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sweep_every = sweep_every
        self._look_every = look_every
        self._sweep_at = clock() + sweep_every
        self._look_at: float | None = None
        self._publish_at = 0.0
        self._failures = 0

    def sweep_due(self) -> bool:
        """Return whether the sweep is due, and if so set the next one."""
        if self._clock() < self._sweep_at:
            return False
        self._sweep_at = self._clock() + self._sweep_every
        return True

    def look_again(self) -> None:
        """Note that something was held back by what others may free: look after `delay_on_limit_secs` (S1.7)."""
        if self._look_at is None or self._look_at <= self._clock():
            self._look_at = self._clock() + self._look_every

    def look_due(self) -> bool:
        """Return whether it is time to look at limits again; also when nothing held anything back."""
        return self._look_at is None or self._clock() >= self._look_at

    def looked(self) -> None:
        """Note that limits were looked at just now."""
        self._look_at = None

    def broker_failed(self) -> float:
        """Note that publishing failed; return the pause before the next attempt."""
        pause = BROKER_PAUSES[min(self._failures, len(BROKER_PAUSES) - 1)]
        self._failures += 1
        self._publish_at = self._clock() + pause
        return pause

    def broker_answered(self) -> None:
        """Note that publishing worked."""
        self._failures = 0
        self._publish_at = 0.0

    def may_publish(self) -> bool:
        """Return whether the pause after a broker failure is over."""
        return self._clock() >= self._publish_at

    def due_in(self) -> float:
        """Return the seconds until the next deadline."""
        deadlines = [self._sweep_at]
        if self._look_at is not None and self._look_at > self._clock():  # a look that is due takes place in this round
            deadlines.append(self._look_at)
        if not self.may_publish():
            deadlines.append(self._publish_at)
        return max(0.0, min(deadlines) - self._clock())
