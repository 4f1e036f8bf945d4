"""Runs that take longer than the DAG's `dagrun_timeout` (S6.6, S3.18)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from backfill.engine.window import RunOutcome
from backfill.facts import RunFacts, TaskInstanceFacts
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

    def is_about(self, run: RunFacts) -> bool:
        """Return whether `run` is among them."""
        return any(outcome.dag_run_id == run.id for outcome in self.outcomes)


class Runs(Protocol):
    """The runs under way of one DAG."""

    def runs(self) -> Sequence[RunFacts]:
        """Return them."""
        ...


class Window(Protocol):
    """The task instances under way."""

    def knows(self, ti_id: int) -> bool:
        """Return whether a task instance is among them."""
        ...

    def facts(self, ti_id: int) -> TaskInstanceFacts:
        """Return what is known of it."""
        ...


class RunTimeouts:
    """Knows when the next run of the window may have taken too long."""

    def __init__(self, window: Runs, timeout: timedelta | None, clock: Callable[[], float] = time.monotonic) -> None:
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
        overdue = self.lock(tx)
        return TimedOut(outcomes_of(overdue), clearing.skip_if_unfinished(tx, overdue, self.error))

    def lock(self, tx: Tx) -> list[int]:
        """Lock and return the runs whose time is over, by the database's clock."""
        if self._timeout is None:
            return []
        self._not_before = self._clock() + LOOK_AGAIN
        return runs.lock_timed_out_runs(tx, [run.id for run in self._window.runs()], self._timeout)

    @property
    def error(self) -> str:
        """What is said of what was stopped."""
        return f"{clearing.RUN_TIMED_OUT}{self._timeout} is over"


def outcomes_of(overdue: Iterable[int]) -> list[RunOutcome]:
    """Return the ends of runs whose time is over."""
    return [RunOutcome(dag_run_id, DagRunState.FAILED, TIMED_OUT) for dag_run_id in overdue]


def attempts_to_stop(rows: Sequence[TaskInstanceFacts], window: Window) -> list[str]:
    """Return the attempts that ran when their task instances were skipped, as `window` knew them.

    It does not know those of a mapping that was not expanded to its end, of which none has begun.
    """
    before = [window.facts(row.id) for row in rows if window.knows(row.id)]
    return [row.attempt_id for row in before if row.attempt_id is not None]
