"""Where executors leave their events for the loop, and what the loop sleeps on."""

from __future__ import annotations

import contextlib
import queue
import time
from collections import deque
from collections.abc import Sequence

from backfill.messages import ExecutorEvent
from backfill.states import TaskInstanceState

#: Seconds between two looks at what has gathered.
_SLICE = 0.005


class Mailbox:
    """Events on their way to the loop: any thread (and any signal handler) puts or wakes, one thread waits and drains.

    One mailbox serves all executors of a job, so that the loop waits in one place.
    """

    def __init__(self) -> None:
        # SimpleQueue, because its put is reentrant: a signal handler may interrupt the reader anywhere. None is a wake.
        self._arrivals: queue.SimpleQueue[Sequence[ExecutorEvent] | None] = queue.SimpleQueue()
        self._events: deque[ExecutorEvent] = deque()
        #: How many of them tell that an attempt is over.
        self._ends = 0
        self._woken = False
        self._was_woken = False

    def put(self, *events: ExecutorEvent) -> None:
        """Add `events` and wake the reader, once for all of them."""
        if events:
            self._arrivals.put(events)

    def wake(self) -> None:
        """Make the present or the next `wait` return at once though no event came; never lost, safe in a signal handler."""
        self._arrivals.put(None)

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until an event or a wake is there, at most `timeout` seconds (None: no limit); return whether one is."""
        self._take()
        if not self._woken and not self._events:
            with contextlib.suppress(queue.Empty):
                self._sort(self._arrivals.get(timeout=None if timeout is None else max(0.0, timeout)))
        woken, self._woken = self._woken, False
        self._was_woken |= woken
        return woken or bool(self._events)

    def gather(self, seconds: float, enough: int) -> None:
        """After a `wait`: let more events come for `seconds`, until `enough` attempts are over or somebody wakes the reader.

        That attempts began is no reason to look: nothing follows from it.
        """
        until = time.monotonic() + seconds
        self._take()
        while not self._woken and self._ends < enough and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _SLICE))  # to be woken by each of hundreds of events would cost more than to look
            self._take()

    def was_woken(self) -> bool:
        """Return whether a `wait` was ended by a wake since the last call."""
        was, self._was_woken = self._was_woken, False
        return was

    def drain(self, at_most: int | None = None) -> list[ExecutorEvent]:
        """Return the events that have come, oldest first, and keep none; or `at_most` so many, and keep the rest.

        A wake that came with them still counts.
        """
        self._take()
        count = len(self._events) if at_most is None else min(at_most, len(self._events))
        drained = [self._events.popleft() for _ in range(count)]
        self._ends -= _count_ends(drained)
        return drained

    def _take(self) -> None:
        """Sort in whatever has arrived, without waiting."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._sort(self._arrivals.get_nowait())

    def _sort(self, arrival: Sequence[ExecutorEvent] | None) -> None:
        if arrival is None:
            self._woken = True
        else:
            self._events.extend(arrival)
            self._ends += _count_ends(arrival)


def _count_ends(events: Sequence[ExecutorEvent]) -> int:
    return sum(event.state is not TaskInstanceState.RUNNING for event in events)
