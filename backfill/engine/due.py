"""Task instances that wait for a date, soonest first (S4.1 line 7, S6.4)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from heapq import heappop, heappush


class Due:
    """Places by the date from which they may go."""

    __slots__ = ("_dates", "_heap")

    def __init__(self) -> None:
        self._dates: dict[int, datetime] = {}
        self._heap: list[tuple[datetime, int]] = []

    def __contains__(self, place: int) -> bool:
        return place in self._dates

    def __len__(self) -> int:
        return len(self._dates)

    def add(self, place: int, date: datetime) -> None:
        """Let `place` wait until `date`."""
        if self._dates.get(place) != date:
            self._dates[place] = date
            heappush(self._heap, (date, place))

    def discard(self, place: int) -> None:
        """Let `place` wait no more; nothing happens if it did not."""
        self._dates.pop(place, None)

    def soonest(self) -> datetime | None:
        """Return the first date that somebody waits for."""
        while self._heap and self._dates.get(self._heap[0][1]) != self._heap[0][0]:
            heappop(self._heap)  # left behind by a discard
        return self._heap[0][0] if self._heap else None

    def pop_until(self, now: datetime) -> Iterator[int]:
        """Yield the places whose date is reached, and let them wait no more."""
        while (date := self.soonest()) is not None and date <= now:
            place = heappop(self._heap)[1]
            del self._dates[place]
            yield place
