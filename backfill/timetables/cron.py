"""Cron expressions, in the time zone of the DAG, daylight saving included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise

from cronsim import CronSim, CronSimError

from backfill.clock import as_utc
from backfill.exceptions import DagError
from backfill.timetables.base import RunDate

#: The presets that are short for a cron expression.
CRON_PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
}
_FIELDS = 5
#: `CronSim` yields what comes after the moment it is given; a tick may be at the moment itself.
_BEFORE = timedelta(minutes=1)


@dataclass(frozen=True)
class CronTimetable:
    """Runs at the ticks of a cron expression; a run's data interval reaches to the next tick.

    `expression` has five fields or is one of `CRON_PRESETS`. Raises `DagError` for anything else.
    """

    expression: str
    timezone: tzinfo = UTC

    def __post_init__(self) -> None:
        fields = self._fields
        if len(fields) != _FIELDS:
            raise DagError(
                f"The schedule {self.expression!r} is no cron expression: it has {len(fields)} fields, not 5."
            )
        try:
            CronSim(" ".join(fields), datetime(2000, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise DagError(
                f"The schedule {self.expression!r} is no cron expression ({str(error).lower()}); "
                "it takes five fields such as '30 2 * * 1'."
            ) from None

    @property
    def summary(self) -> str:
        """The expression as it was written."""
        return self.expression

    @property
    def _fields(self) -> list[str]:
        return CRON_PRESETS.get(self.expression, self.expression).split()

    def run_dates(self, start: datetime, end: datetime) -> Iterator[RunDate]:
        """Yield a run for each tick from `start` to `end`, both included."""
        for tick, following in pairwise(self._ticks(as_utc(start))):
            if tick > end:
                return
            yield RunDate(tick, tick, following)

    def following(self, run_date: RunDate) -> RunDate | None:
        """Return the run of the next tick."""
        later = (tick for tick in self._ticks(run_date.logical_date) if tick > run_date.logical_date)
        tick, end = next(later, None), next(later, None)
        return None if tick is None or end is None else RunDate(tick, tick, end)

    def _ticks(self, start: datetime) -> Iterator[datetime]:
        """Yield the ticks at or after `start` in UTC, strictly ascending, for as long as the calendar goes."""
        last = start - timedelta.resolution
        for tick in self._raw_ticks(start):
            if tick > last:
                last = tick
                yield tick

    def _raw_ticks(self, start: datetime) -> Iterator[datetime]:
        local = start.astimezone(self.timezone) - _BEFORE
        if self._at_fixed_times:
            # A wall time that a change of the clocks leaves out is read with the offset before the change, one that comes
            # twice is taken once: the same as in Airflow, and every day has its run.
            for naive in CronSim(" ".join(self._fields), local.replace(tzinfo=None) - timedelta(days=1)):
                yield naive.replace(tzinfo=self.timezone).astimezone(UTC)
        else:
            for tick in CronSim(" ".join(self._fields), local):
                yield tick.astimezone(UTC)

    @property
    def _at_fixed_times(self) -> bool:
        minute, hour = self._fields[:2]
        return not minute.startswith("*") and not hour.startswith("*")
