"""The timetables that need no calendar: intervals, lists of dates, once, and none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count

from backfill.clock import as_utc
from backfill.exceptions import DagError
from backfill.timetables.base import RunDate


def _at(moment: datetime) -> RunDate:
    return RunDate(moment, moment, moment)


@dataclass(frozen=True)
class DeltaTimetable:
    """Runs every `delta`, counted from the start of the range (S2.2)."""

    delta: timedelta

    def __post_init__(self) -> None:
        if self.delta <= timedelta(0):
            raise DagError(f"The schedule {self.delta!r} does not advance; it takes a timedelta above zero.")

    @property
    def summary(self) -> str:
        """The interval."""
        return str(self.delta)

    def run_dates(self, start: datetime, end: datetime) -> Iterator[RunDate]:
        """Yield start, start + delta and so on up to `end`."""
        first = as_utc(start)
        for number in count():
            date = first + number * self.delta
            if date > end:
                return
            yield RunDate(date, date, date + self.delta)

    def following(self, run_date: RunDate) -> RunDate | None:
        """Return the run one interval later."""
        date = run_date.logical_date + self.delta
        return RunDate(date, date, date + self.delta)


@dataclass(frozen=True, init=False)
class DatesTimetable:
    """Runs at the given dates; naive ones are UTC. A run's data interval is the moment itself."""

    dates: tuple[datetime, ...]

    def __init__(self, dates: list[datetime] | tuple[datetime, ...]) -> None:
        for date in dates:
            if not isinstance(date, datetime):
                raise DagError(f"The schedule has the member {date!r}; a list of dates takes datetimes only.")
        object.__setattr__(self, "dates", tuple(sorted({as_utc(date) for date in dates})))

    @property
    def summary(self) -> str:
        """How many dates there are."""
        return f"{len(self.dates)} dates"

    def run_dates(self, start: datetime, end: datetime) -> Iterator[RunDate]:
        """Yield the members from `start` to `end`."""
        first = as_utc(start)
        return (_at(date) for date in self.dates if first <= date <= end)

    def following(self, run_date: RunDate) -> RunDate | None:
        """Return the next member."""
        return next((_at(date) for date in self.dates if date > run_date.logical_date), None)


@dataclass(frozen=True)
class OnceTimetable:
    """Runs once, at the start of the range."""

    @property
    def summary(self) -> str:
        """The preset's name."""
        return "@once"

    def run_dates(self, start: datetime, end: datetime) -> Iterator[RunDate]:
        """Yield one run at `start`."""
        if start <= end:
            yield _at(as_utc(start))

    def following(self, run_date: RunDate) -> RunDate | None:  # noqa: ARG002  # the protocol's signature
        """Return None: nothing comes after."""
        return None


@dataclass(frozen=True)
class NoScheduleTimetable:
    """Has no dates of its own: they must be given, one at a time (start = end)."""

    @property
    def summary(self) -> str:
        """The word for it."""
        return "none"

    def run_dates(self, start: datetime, end: datetime) -> Iterator[RunDate]:
        """Yield one run if both ends are the same moment, else nothing (S2.2)."""
        if start == end:
            yield _at(as_utc(start))

    def following(self, run_date: RunDate) -> RunDate | None:  # noqa: ARG002  # the protocol's signature
        """Return None: nothing can be told."""
        return None
