from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from backfill.exceptions import DagError
from backfill.timetables import CronTimetable, RunDate, Timetable, timetable_of


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def dates(schedule: Any, start: str, end: str, zone: str = "UTC") -> list[str]:
    timetable = timetable_of(schedule, ZoneInfo(zone))
    return [f"{run.logical_date:%m-%dT%H:%M}" for run in timetable.run_dates(utc(start), utc(end))]


def intervals(schedule: Any, start: str, end: str, zone: str = "UTC") -> list[str]:
    runs = timetable_of(schedule, ZoneInfo(zone)).run_dates(utc(start), utc(end))
    assert all(run.logical_date.tzinfo is UTC for run in runs)
    runs = timetable_of(schedule, ZoneInfo(zone)).run_dates(utc(start), utc(end))
    return [f"{run.data_interval_start:%m-%dT%H:%M}/{run.data_interval_end:%m-%dT%H:%M}" for run in runs]


@pytest.mark.parametrize(
    ("schedule", "start", "end", "expected"),
    [
        ("@daily", "2024-01-01", "2024-01-03", ["01-01T00:00", "01-02T00:00", "01-03T00:00"]),
        ("@daily", "2024-01-01T00:00:01", "2024-01-03T23:59", ["01-02T00:00", "01-03T00:00"]),
        ("@hourly", "2024-01-01T00:30", "2024-01-01T02:30", ["01-01T01:00", "01-01T02:00"]),
        ("@weekly", "2024-01-01", "2024-01-15", ["01-07T00:00", "01-14T00:00"]),
        ("@monthly", "2023-11-15", "2024-01-01", ["12-01T00:00", "01-01T00:00"]),
        ("@quarterly", "2024-01-02", "2024-10-01", ["04-01T00:00", "07-01T00:00", "10-01T00:00"]),
        ("@yearly", "2022-01-01", "2024-01-01", ["01-01T00:00"] * 3),
        ("@once", "2024-01-01T05:00", "2024-01-03", ["01-01T05:00"]),
        (None, "2024-01-01", "2024-01-01", ["01-01T00:00"]),
        (None, "2024-01-01", "2024-01-02", []),
        ("0 0 29 2 *", "2020-01-01", "2024-12-31", ["02-29T00:00"] * 2),
        ("0 0 30 2 *", "2024-01-01", "2024-12-31", None),
        (timedelta(hours=10), "2024-01-01T05:00", "2024-01-02T01:00", ["01-01T05:00", "01-01T15:00", "01-02T01:00"]),
        (
            [utc("2024-01-03"), utc("2024-01-01"), utc("2024-02-01")],
            "2024-01-01",
            "2024-01-31",
            ["01-01T00:00", "01-03T00:00"],
        ),
        ("@daily", "2024-01-03", "2024-01-01", []),
    ],
)
def test_both_ends_of_the_range_are_included(schedule: Any, start: str, end: str, expected: list[str] | None) -> None:
    if expected is None:
        with pytest.raises(DagError):
            dates(schedule, start, end)
    else:
        assert dates(schedule, start, end) == expected


def test_a_wall_time_that_daylight_saving_leaves_out_has_a_run_all_the_same() -> None:
    expected = ["03-30T01:30", "03-31T01:30", "04-01T00:30"]
    assert dates("30 2 * * *", "2024-03-30", "2024-04-01T12:00", "Europe/Berlin") == expected


def test_a_wall_time_that_comes_twice_has_one_run() -> None:
    expected = ["10-26T00:30", "10-27T00:30", "10-28T01:30"]
    assert dates("30 2 * * *", "2024-10-26", "2024-10-28T12:00", "Europe/Berlin") == expected


def test_hours_go_on_evenly_over_both_changes_of_the_clocks() -> None:
    assert dates("@hourly", "2024-10-26T23:00", "2024-10-27T03:00", "Europe/Berlin") == [
        f"{hour}:00" for hour in ("10-26T23", "10-27T00", "10-27T01", "10-27T02", "10-27T03")
    ]
    assert len(dates("@hourly", "2024-03-31", "2024-03-31T23:00", "Europe/Berlin")) == 24


def test_a_day_is_a_local_day() -> None:
    assert dates("0 6 * * *", "2024-01-01", "2024-01-02T12:00", "Asia/Kolkata") == ["01-01T00:30", "01-02T00:30"]
    assert intervals("@daily", "2024-03-30T12:00", "2024-03-31T23:00", "Europe/Berlin") == [
        "03-30T23:00/03-31T22:00",
        "03-31T22:00/04-01T22:00",
    ]


def test_data_intervals_reach_to_the_next_tick_or_are_a_moment() -> None:
    assert intervals("@monthly", "2024-01-01", "2024-02-01") == ["01-01T00:00/02-01T00:00", "02-01T00:00/03-01T00:00"]
    assert intervals(timedelta(days=2), "2024-01-01", "2024-01-01") == ["01-01T00:00/01-03T00:00"]
    assert intervals("@once", "2024-01-01", "2024-01-09") == ["01-01T00:00/01-01T00:00"]
    assert intervals([utc("2024-01-01")], "2024-01-01", "2024-01-09") == ["01-01T00:00/01-01T00:00"]


def test_a_naive_date_in_a_list_is_utc() -> None:
    naive = datetime(2024, 1, 1)  # noqa: DTZ001  # naive on purpose
    assert dates([naive], "2024-01-01", "2024-01-01") == ["01-01T00:00"]


@pytest.mark.parametrize(
    ("schedule", "following"),
    [
        ("@daily", "2024-01-02"),
        (timedelta(days=3), "2024-01-04"),
        ([utc("2024-01-01"), utc("2024-05-01")], "2024-05-01"),
        ([utc("2024-01-01")], None),
        ("@once", None),
        (None, None),
    ],
)
def test_the_run_after_a_run_is_told_where_there_is_one(schedule: Any, following: str | None) -> None:
    start = utc("2024-01-01")
    found = timetable_of(schedule).following(RunDate(start, start, start))
    assert (found.logical_date if found else None) == (utc(following) if following else None)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("@fortnightly", "'@fortnightly' is no preset"),
        ("0 0 * *", "it has 4 fields, not 5"),
        ("0 0 * * * *", "it has 6 fields, not 5"),
        ("61 * * * *", "is no cron expression \\(bad minute\\)"),
        (timedelta(0), "does not advance"),
        (5, "is of no known kind"),
        (["2024-01-01"], "has the member '2024-01-01'"),
    ],
)
def test_a_schedule_that_is_none_is_named(schedule: Any, message: str) -> None:
    with pytest.raises(DagError, match=message):
        timetable_of(schedule)


def test_a_timetable_of_ones_own_is_taken_as_it_is() -> None:
    class Mine:
        summary = "mine"

        def run_dates(self, start: datetime, end: datetime) -> Any:
            yield RunDate(start, start, end)

        def following(self, run_date: RunDate) -> RunDate | None:
            return None

    mine = Mine()
    assert timetable_of(mine) is mine
    assert isinstance(mine, Timetable)


def test_timetables_can_be_pickled_and_compared() -> None:
    timetable = CronTimetable("@daily", ZoneInfo("Europe/Berlin"))
    assert pickle.loads(pickle.dumps(timetable)) == timetable
    assert timetable.summary == "@daily"
