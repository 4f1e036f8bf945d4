"""Time as the system sees it: aware UTC for stamps, a monotonic clock for waiting; and how people read it.

Times that are compared between machines come from the database (S0.2); this clock serves waiting and display.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


class Clock(Protocol):
    """Source of time that tests replace by a frozen one."""

    def now(self) -> datetime:
        """Return the present time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go backwards; only differences mean anything."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """Return the present time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never go backwards; only differences mean anything."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        time.sleep(seconds)


def as_utc(moment: datetime) -> datetime:
    """Return `moment` in UTC; a naive one is taken as UTC (S2.1)."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def moment_text(moment: datetime) -> str:
    """Return a UTC time for people: seconds are enough, and midnight goes without saying."""
    form = "%Y-%m-%d" if (moment.hour, moment.minute, moment.second) == (0, 0, 0) else "%Y-%m-%d %H:%M:%S"
    return moment.strftime(form)


def duration_text(duration: timedelta) -> str:
    """Return a duration for people, two units at most: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 05 min`, `3 d 4 h`."""
    seconds = max(duration.total_seconds(), 0.0)
    if seconds < 9.95:  # noqa: PLR2004  # below ten seconds a tenth tells something
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02d} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02d} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"
