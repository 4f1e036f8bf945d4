"""Timetables: which run dates a schedule gives, and the data interval of each (S2.2)."""

from __future__ import annotations

from backfill.timetables.base import RunDate, Timetable
from backfill.timetables.cron import CRON_PRESETS, CronTimetable
from backfill.timetables.plain import DatesTimetable, DeltaTimetable, NoScheduleTimetable, OnceTimetable
from backfill.timetables.schedule import Schedule, timetable_of

__all__ = [
    "CRON_PRESETS",
    "CronTimetable",
    "DatesTimetable",
    "DeltaTimetable",
    "NoScheduleTimetable",
    "OnceTimetable",
    "RunDate",
    "Schedule",
    "Timetable",
    "timetable_of",
]
