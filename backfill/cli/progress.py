"""Live progress of a job: a subscriber of its events that redraws a few lines on a terminal, or writes plain lines elsewhere.

Everything goes to stderr. The counts come from `Progress` events, which the job already sends on change only and at most one
a second (S9.5), so nothing is held back here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Protocol, Self

from rich.console import Console, ConsoleRenderable, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from backfill.cli.tables import STATE_STYLES
from backfill.cli.terminal import animated, note_console, rate_text, visible
from backfill.clock import Clock, SystemClock, as_utc, duration_text, moment_text
from backfill.keys import UNMAPPED, TaskInstanceKey
from backfill.states import RunType, TaskInstanceState
from backfill.telemetry import Event, JobStarted, Note, Progress, RunningTask, TaskInstanceEnded, Telemetry

#: Task instances that are shown as running now.
RUNNING_LINES = 8
#: Failures that are told as they happen; the others stand in the summary.
TOLD_FAILURES = 30


class ProgressDisplay(Protocol):
    """Takes events while its context is entered."""

    def __call__(self, event: Event) -> None:
        """Take in `event`."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


def progress_display() -> ProgressDisplay:
    """Return the display that fits what stdout and stderr lead to."""
    console = note_console()
    return LiveProgress(console) if animated() else LineProgress(console)


@contextmanager
def watching(telemetry: Telemetry, display: ProgressDisplay) -> Iterator[None]:
    """Show `display`, fed by `telemetry`, while the context lasts."""
    with display:
        unsubscribe = telemetry.subscribe(display)
        try:
            yield
        finally:
            unsubscribe()


class LineProgress:
    """One plain line for each change of the counts, and one for each failure and note."""

    def __init__(self, console: Console) -> None:
        self._news = _News(console)
        self._console = console
        self._last: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def __call__(self, event: Event) -> None:
        """Write what `event` says, if that is new."""
        self._news.tell(event)
        if isinstance(event, Progress):
            line = counts_line(event)
            if line != self._last:
                self._console.print(Text(line), soft_wrap=True)
                self._last = line


class LiveProgress:
    """Two bars, the counts and what runs now, redrawn in place; failures and notes scroll by above them."""

    def __init__(self, console: Console, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._news = _News(console)
        self._title = ""
        self._counts: Progress | None = None
        self._console = console
        self._live = Live(console=console, get_renderable=self.render, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Take in `event`; the next redraw shows it."""
        self._news.tell(event)
        match event:
            case JobStarted():
                self._title = f"{event.dag_id} · job {event.job_id}"
            case Progress():
                self._counts = event
            case _:
                pass

    def render(self) -> ConsoleRenderable:
        """Return what is on the screen now."""
        counts = self._counts
        if counts is None:
            return Text(self._title)
        bars = _bars(counts, width=max(10, min(40, self._console.width - 40)))
        return Group(Text(self._title, style="bold"), bars, _numbers(counts), self._running(counts))

    def _running(self, counts: Progress) -> ConsoleRenderable:
        grid = Table.grid(padding=(0, 2))
        for running in counts.running_now[:RUNNING_LINES]:
            grid.add_row(*self._running_cells(running))
        if (more := counts.running - min(len(counts.running_now), RUNNING_LINES)) > 0 and counts.running_now:
            grid.add_row(Text(f"  and {more} more", style="bright_black"))
        return grid

    def _running_cells(self, running: RunningTask) -> tuple[Text, ...]:
        age = "" if running.since is None else duration_text(self._clock.now() - running.since)
        return (
            Text(f"  {task_label(running.key)}", style="cyan", no_wrap=True, overflow="ellipsis"),
            Text(run_label(running.key.run_id), no_wrap=True),
            Text(visible(running.hostname or ""), style="bright_black", no_wrap=True, overflow="ellipsis"),
            Text(age, no_wrap=True),
        )


class _News:
    """Failures and notes, each told once as it comes in."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._failures = 0

    def tell(self, event: Event) -> None:
        match event:
            case JobStarted(resumed=True):
                self._say(f"Going on with job {event.job_id} of {event.dag_id}: {event.total_runs} runs.", "bold")
            case TaskInstanceEnded(state=TaskInstanceState.FAILED | TaskInstanceState.UP_FOR_RETRY):
                self._tell_failure(event)
            case Note():
                self._say(event.text, "yellow" if event.level >= logging.WARNING else "")
            case _:
                pass

    def _tell_failure(self, event: TaskInstanceEnded) -> None:
        self._failures += 1
        if self._failures > TOLD_FAILURES:
            return
        what = "failed" if event.state is TaskInstanceState.FAILED else "failed and will be retried"
        because = f": {first_line(event.error)}" if event.error else ""
        where = f"{task_label(event.key)} {run_label(event.key.run_id)}"
        self._say(f"{where} {what} (try {event.try_number}){because}", STATE_STYLES[event.state])
        if self._failures == TOLD_FAILURES:
            self._say("Further failures are not told one by one; the summary has them all.", "bright_black")

    def _say(self, text: str, style: str) -> None:
        self._console.print(Text(visible(text), style=style), soft_wrap=True)


def task_label(key: TaskInstanceKey) -> str:
    """Return `dag.task`, with the map index where there is one."""
    return f"{key.dag_id}.{key.task_id}" + ("" if key.map_index == UNMAPPED else f"[{key.map_index}]")


def run_label(run_id: str) -> str:
    """Return the date of a backfill's run id, shortened for people; any other run id as it is."""
    try:
        date = as_utc(datetime.fromisoformat(run_id.removeprefix(f"{RunType.BACKFILL}__")))
    except ValueError:
        return visible(run_id)
    return moment_text(date)


def first_line(text: str) -> str:
    """Return the first line of an error's text that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def counts_line(counts: Progress) -> str:
    """Return the progress line of S9.5."""
    left = "" if counts.eta_seconds is None else f", {duration_text(timedelta(seconds=counts.eta_seconds))} left"
    return (
        f"runs {counts.runs_finished} of {counts.runs_total} | "
        f"waiting {counts.waiting}, running {counts.running}, succeeded {counts.succeeded}, failed {counts.failed}, "
        f"skipped {counts.skipped}, deadlocked {counts.deadlocked} | {rate_text(counts.rate)}{left}"
    )


def _bars(counts: Progress, width: int) -> Table:
    done = counts.succeeded + counts.failed + counts.skipped
    left = "" if counts.eta_seconds is None else f"{duration_text(timedelta(seconds=counts.eta_seconds))} left"
    grid = Table.grid(padding=(0, 1))
    for name, part, whole, pace in (
        ("runs", counts.runs_finished, counts.runs_total, ""),
        ("tasks", done, counts.total, f" {rate_text(counts.rate)}  {left}"),
    ):
        bar = ProgressBar(
            total=max(whole, 1), completed=part, width=width, complete_style="cyan", finished_style="green"
        )
        grid.add_row(name, bar, f"{part}/{whole}", Text(pace, no_wrap=True))
    return grid


def _numbers(counts: Progress) -> Text:
    numbers = {
        "waiting": (counts.waiting, "bright_black"),
        "running": (counts.running, "cyan"),
        "succeeded": (counts.succeeded, "green"),
        "failed": (counts.failed, "bold red"),
        "skipped": (counts.skipped, "bright_magenta"),
        "deadlocked": (counts.deadlocked, "bold magenta"),
    }
    parts = [
        Text(f"{name} {number}", style=style if number else "bright_black") for name, (number, style) in numbers.items()
    ]
    return Text("       ").append_text(Text(" · ").join(parts))
