"""From what a DAG writer says to a timetable."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

from backfill.exceptions import DagError
from backfill.timetables.base import Timetable
from backfill.timetables.cron import CRON_PRESETS, CronTimetable
from backfill.timetables.plain import DatesTimetable, DeltaTimetable, NoScheduleTimetable, OnceTimetable

#: What `DAG(schedule=…)` takes.
Schedule = str | timedelta | list[datetime] | tuple[datetime, ...] | Timetable | None


def timetable_of(schedule: object, timezone: tzinfo = UTC) -> Timetable:
    """Return the timetable that `schedule` stands for; cron follows `timezone`.

    Raises `DagError` naming the schedule if it is none.
    """
    match schedule:
        case None:
            return NoScheduleTimetable()
        case str():
            return _from_text(schedule, timezone)
        case timedelta():
            return DeltaTimetable(schedule)
        case list() | tuple():
            return DatesTimetable(schedule)
        case Timetable():
            return schedule
        case _:
            raise DagError(
                f"The schedule {schedule!r} is of no known kind; it takes a cron expression, a preset, a timedelta, "
                "a list of datetimes, a timetable or None."
            )


def _from_text(schedule: str, timezone: tzinfo) -> Timetable:
    if schedule == "@once":
        return OnceTimetable()
    if schedule.startswith("@") and schedule not in CRON_PRESETS:
        raise DagError(f"The schedule {schedule!r} is no preset; there are @once {' '.join(CRON_PRESETS)}.")
    return CronTimetable(schedule, timezone)
