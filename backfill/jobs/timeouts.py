"""Runs that take longer than the DAG's `dagrun_timeout` (S6.6, S3.18)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from backfill.engine.window import RunOutcome, Window
from backfill.facts import TaskInstanceFacts
from backfill.states import DagRunState
from backfill.store import clearing, runs
from backfill.store.database import Tx

#: Reason of a run that timed out, as its callback is told (S2.15).
TIMED_OUT = "timed_out"
#: Seconds until runs that looked overdue, but were paused for a while, are looked at again.
LOOK_AGAIN = 1.0


class TimedOut(NamedTuple):
    """Runs whose time is over, and their task instances that were skipped for it."""

    outcomes: list[RunOutcome]
    rows: list[TaskInstanceFacts]


class RunTimeouts:
    """Knows when the next run of the window may have taken too long."""

    def __init__(self, window: Window, timeout: timedelta | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = window
        self._timeout = timeout
        self._clock = clock
        self._not_before = clock()

    def due_in(self, now: datetime) -> float | None:
        """Return the seconds until a run may be overdue; None if none ever is."""
        if self._timeout is None:
            return None
        starts = [start for run in self._window.runs() if (start := run.start_date) is not None]
        if not starts:
            return None
        overdue_in = (min(starts) + self._timeout - now).total_seconds()
        return max(0.0, overdue_in, self._not_before - self._clock())

    def write(self, tx: Tx) -> TimedOut:
        """Skip what is unfinished in the runs whose time is over, by the database's clock; the caller writes the outcomes."""
        if self._timeout is None:
            return TimedOut([], [])
        overdue = runs.lock_timed_out_runs(tx, self._window.run_ids(), self._timeout)
        self._not_before = self._clock() + LOOK_AGAIN
        rows = clearing.skip_if_unfinished(tx, overdue, f"dagrun_timeout of {self._timeout} is over")
        return TimedOut([RunOutcome(dag_run_id, DagRunState.FAILED, TIMED_OUT) for dag_run_id in overdue], rows)


def attempts_to_stop(rows: Sequence[TaskInstanceFacts], known: Callable[[int], TaskInstanceFacts]) -> list[str]:
    """Return the attempts that ran when their task instances were skipped, as last `known`."""
    before = [known(row.id) for row in rows]
    return [row.attempt_id for row in before if row.attempt_id is not None]
