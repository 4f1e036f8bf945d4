"""How long task instances take, by task, as far as is known: what decides which of them may wait behind one another."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

#: Tasks that are remembered; the one heard of longest ago goes first.
KEPT = 10_000
#: Share of a new duration in the expected one. Upwards it is taken for more: to expect too little makes others wait, to expect
#: too much costs a message.
_UPWARDS, _DOWNWARDS = 0.5, 0.25


class Durations:
    """Expected durations in seconds: an exponential average that rises faster than it sinks.

    One thread may note while others ask.
    """

    def __init__(self) -> None:
        self._expected: OrderedDict[Hashable, float] = OrderedDict()

    def __bool__(self) -> bool:
        """Return whether anything is known."""
        return bool(self._expected)

    def expected(self, task: Hashable) -> float | None:
        """Return how long the next task instance of `task` will probably take; None if none has been heard of."""
        return self._expected.get(task)

    def note(self, task: Hashable, seconds: float) -> None:
        """Learn that one took `seconds`."""
        known = self._expected.get(task, seconds)
        weight = _UPWARDS if seconds > known else _DOWNWARDS
        self._expected[task] = known + weight * (seconds - known)
        self._expected.move_to_end(task)
        if len(self._expected) > KEPT:
            self._expected.popitem(last=False)
