"""What a timetable is: the protocol that a schedule of one's own has to follow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class RunDate:
    """One run date: its logical date and its data interval, all aware and in UTC."""

    logical_date: datetime
    data_interval_start: datetime
    data_interval_end: datetime


@runtime_checkable
class Timetable(Protocol):
    """Tells the run dates of a range. Implementations are immutable and can be pickled."""

    @property
    def summary(self) -> str:
        """The schedule in one word or two, for people."""
        ...

    def run_dates(self, start: datetime, end: datetime) -> Iterator[RunDate]:
        """Yield the run dates with start ≤ logical date ≤ end in ascending order; both ends are aware (S2.2)."""
        ...

    def following(self, run_date: RunDate) -> RunDate | None:
        """Return the run date after `run_date`; None if there is none, or none that can be told."""
        ...
