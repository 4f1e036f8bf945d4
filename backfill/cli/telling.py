"""What a command that drives jobs says while it does: a progress display for people, or JSON log lines for collectors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from backfill.cli.progress import LineProgress, ProgressDisplay, progress_display, watching
from backfill.cli.terminal import note_console
from backfill.config import Settings
from backfill.metrics import EventLog, configure_logging
from backfill.telemetry import Telemetry


def start_logging(settings: Settings, *, verbose: bool, service: bool = False) -> None:
    """Log to stderr as `settings` say.

    A service logs all that `logging.level` lets through; in a command that an operator waits for, which tells its progress by
    other means, this holds with `verbose` or in JSON only, and else just warnings are logged, without tracebacks.
    """
    everything = service or verbose or settings.logging.format == "json"
    least = logging.NOTSET if everything else logging.WARNING
    configure_logging(settings.logging, least, tracebacks=everything)


@contextmanager
def telling_progress(telemetry: Telemetry, settings: Settings) -> Iterator[None]:
    """Tell on stderr what happens to the jobs that this process drives."""
    with _telling(telemetry, settings, progress_display):
        yield


@contextmanager
def telling_notes(telemetry: Telemetry, settings: Settings) -> Iterator[None]:
    """Tell the same as lines that come and stay, so that questions can be asked in between."""
    with _telling(telemetry, settings, lambda: LineProgress(note_console())):
        yield


@contextmanager
def _telling(telemetry: Telemetry, settings: Settings, display: Callable[[], ProgressDisplay]) -> Iterator[None]:
    if settings.logging.format == "json":
        unsubscribe = telemetry.subscribe(EventLog())
        try:
            yield
        finally:
            unsubscribe()
    else:
        with watching(telemetry, display()):
            yield
