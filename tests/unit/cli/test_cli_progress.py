"""Progress for terminals and for everything else, fed with events."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from backfill.cli import progress
from backfill.cli.progress import LineProgress, LiveProgress, counts_line, run_label, task_label, watching
from backfill.keys import TaskInstanceKey, backfill_run_id
from backfill.states import TaskInstanceState
from backfill.telemetry import JobStarted, Note, Progress, RunningTask, TaskInstanceEnded, Telemetry

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)


class FrozenClock:
    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0


def key(task_id: str = "load", day: int = 1, map_index: int = -1) -> TaskInstanceKey:
    return TaskInstanceKey("sales", task_id, backfill_run_id(datetime(2024, 1, day, tzinfo=UTC)), map_index)


def counts(
    *, succeeded: int = 0, failed: int = 0, running: tuple[RunningTask, ...] = (), in_flight: int = 2
) -> Progress:
    return Progress(
        job_id=7,
        runs_finished=3,
        runs_total=31,
        waiting=80 - succeeded - failed,
        running=in_flight,
        succeeded=succeeded,
        failed=failed,
        skipped=1,
        deadlocked=0,
        rate=4.13,
        eta_seconds=19.6,
        running_now=running,
    )


def failure(
    state: TaskInstanceState = TaskInstanceState.FAILED, error: str | None = "ValueError: no rows\nat line 3"
) -> TaskInstanceEnded:
    return TaskInstanceEnded(7, key(map_index=2), state, 2, error)


@pytest.fixture
def lines() -> tuple[LineProgress, Callable[[], list[str]]]:
    written = io.StringIO()
    return LineProgress(Console(file=written, width=400, markup=False)), lambda: written.getvalue().splitlines()


Lines = tuple[LineProgress, Callable[[], list[str]]]


def test_the_line_has_all_numbers_rate_and_time_left() -> None:
    assert counts_line(counts(succeeded=10, failed=2)) == (
        "runs 3 of 31 | waiting 68, running 2, succeeded 10, failed 2, skipped 1, deadlocked 0 | 4.1/s, 20 s left"
    )


def test_a_line_is_written_for_each_change_only(lines: Lines) -> None:
    display, written = lines
    for succeeded in (1, 1, 2, 2, 2):
        display(counts(succeeded=succeeded))
    assert [line.split(", ")[2] for line in written()] == ["succeeded 1", "succeeded 2"]


def test_a_failure_is_told_as_it_happens_in_one_line(lines: Lines) -> None:
    display, written = lines
    display(failure())
    display(failure(TaskInstanceState.UP_FOR_RETRY, error=None))
    assert written() == [
        "sales.load[2] 2024-01-01 failed (try 2): ValueError: no rows",
        "sales.load[2] 2024-01-01 failed and will be retried (try 2)",
    ]


@pytest.mark.parametrize(
    "state", [TaskInstanceState.SUCCESS, TaskInstanceState.SKIPPED, TaskInstanceState.UPSTREAM_FAILED]
)
def test_what_is_no_failure_of_its_own_is_not_told(lines: Lines, state: TaskInstanceState) -> None:
    display, written = lines
    display(failure(state))
    assert written() == []


def test_a_flood_of_failures_is_told_up_to_a_number(lines: Lines) -> None:
    display, written = lines
    for _ in range(progress.TOLD_FAILURES + 20):
        display(failure())
    assert len(written()) == progress.TOLD_FAILURES + 1
    assert written()[-1] == "Further failures are not told one by one; the summary has them all."


def test_notes_are_told_with_control_characters_written_out(lines: Lines) -> None:
    display, written = lines
    display(Note(7, "3 dates left out.\x1b[2J", logging.INFO))
    assert written() == ["3 dates left out.\\x1b[2J"]


def test_going_on_with_a_job_is_said(lines: Lines) -> None:
    display, written = lines
    display(JobStarted(7, "sales", 31))
    display(JobStarted(7, "sales", 31, resumed=True))
    assert written() == ["Going on with job 7 of sales: 31 runs."]


def screen(display: LiveProgress, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    with console.capture() as captured:
        console.print(display.render())
    return captured.get()


def live(width: int = 100) -> LiveProgress:
    return LiveProgress(Console(file=io.StringIO(), width=width, force_terminal=True), FrozenClock())


def test_the_screen_shows_bars_numbers_and_what_runs_now() -> None:
    display = live()
    display(JobStarted(7, "sales", 31))
    running = RunningTask(key(), "worker-1@host", NOW - timedelta(seconds=75))
    display(counts(succeeded=10, running=(running,)))
    shown = screen(display)
    assert "sales · job 7" in shown
    assert " 3/31" in shown
    assert " 11/83" in shown
    assert "4.1/s  20 s left" in shown
    assert "waiting 70 · running 2 · succeeded 10 · failed 0 · skipped 1 · deadlocked 0" in shown
    assert "sales.load  2024-01-01  worker-1@host  1 min 15 s" in shown
    assert "and 1 more" in shown


def test_the_screen_names_eight_running_task_instances_at_most() -> None:
    display = live()
    running = tuple(RunningTask(key(day=day), None, None) for day in range(1, 13))
    display(counts(running=running, in_flight=12))
    shown = screen(display)
    assert shown.count("sales.load") == progress.RUNNING_LINES
    assert "and 4 more" in shown


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_screen_fits_the_terminal(width: int) -> None:
    display = live(width)
    display(JobStarted(7, "sales", 31))
    running = RunningTask(key("a_task_with_a_long_name" * 3), "worker-1@a-host-with-a-long-name.example.org", NOW)
    display(counts(succeeded=10, running=(running,)))
    assert all(len(line) <= width for line in screen(display, width).splitlines())


def test_a_clock_that_is_behind_makes_no_negative_age() -> None:
    display = live()
    display(counts(running=(RunningTask(key(), "w", NOW + timedelta(seconds=5)),)))
    assert "0.0 s" in screen(display)


def test_the_screen_before_the_first_counts_has_just_the_title() -> None:
    display = live()
    display(JobStarted(7, "sales", 31))
    assert screen(display) == "sales · job 7\n"


def test_a_display_takes_events_while_it_is_shown_only() -> None:
    telemetry, written = Telemetry(), io.StringIO()
    display = LineProgress(Console(file=written, width=400))
    telemetry.emit(Note(7, "before"))
    with watching(telemetry, display):
        telemetry.emit(Note(7, "meanwhile"))
    telemetry.emit(Note(7, "after"))
    assert written.getvalue() == "meanwhile\n"


def test_the_live_display_leaves_only_what_was_told_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    written = io.StringIO()
    with watching(Telemetry(), display := LiveProgress(Console(file=written, width=100, force_terminal=True))):
        display(counts(succeeded=1))
        display(failure())
    assert "sales.load[2] 2024-01-01 failed (try 2): ValueError: no rows" in written.getvalue()
    assert written.getvalue().endswith("\x1b[2K")  # the last thing was to erase the lines that were redrawn


def test_what_is_no_terminal_gets_plain_lines() -> None:
    assert isinstance(progress.progress_display(), LineProgress)


def test_a_terminal_gets_the_live_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "animated", lambda: True)
    assert isinstance(progress.progress_display(), LiveProgress)


@pytest.mark.parametrize(
    ("run_id", "label"),
    [
        ("backfill__2024-01-01T00:00:00+00:00", "2024-01-01"),
        ("backfill__2024-01-01T06:30:00+00:00", "2024-01-01 06:30:00"),
        ("manual by hand\x07", "manual by hand\\x07"),
    ],
)
def test_a_run_is_called_by_its_date(run_id: str, label: str) -> None:
    assert run_label(run_id) == label


def test_a_map_index_is_shown_where_there_is_one() -> None:
    assert task_label(key()) == "sales.load"
    assert task_label(key(map_index=0)) == "sales.load[0]"
