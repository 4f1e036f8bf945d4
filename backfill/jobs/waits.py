"""Why task instances wait, for those who asked to be told (`-v`; semantics, section 10)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from backfill.engine.family import Windows
from backfill.engine.limits import Occupancy
from backfill.engine.window import AwaitedTask, Reason
from backfill.jobs.progress import Throttle
from backfill.states import TaskInstanceState

_IDLE = {
    TaskInstanceState.NONE,
    TaskInstanceState.SCHEDULED,
    TaskInstanceState.UP_FOR_RETRY,
    TaskInstanceState.UP_FOR_RESCHEDULE,
}


class Waits:
    """Remembers for each task of each run what held it, so that changes alone are told, at most once a second."""

    def __init__(self, window: Windows, parallelism: int | None, throttle: Throttle | None = None) -> None:
        self._window = window
        self._parallelism = parallelism
        self._throttle = throttle or Throttle()
        self._looks = 0
        self._known: dict[tuple[int, str], object] = {}

    def news(self, now: datetime, occupancy: Occupancy | None) -> list[str]:
        """Return a line for each task of a run whose reason to wait is another one than at the last look.

        A mapped task is told of by the first of its indexes that waits.
        """
        self._looks += 1
        if not self._throttle.lets_through(self._looks):
            return []
        told: list[str] = []
        found: dict[tuple[int, str], object] = {}
        for place, ti_id in self._waiting():
            reason = self._window.explain(ti_id, now, occupancy, self._parallelism, ranked=False)
            found[place] = _essence(reason)
            if found[place] != self._known.get(place):
                told.append(f"{self._window.key(ti_id)}: {reason.text}")
        self._known = found
        return told

    def _waiting(self) -> Iterator[tuple[tuple[int, str], int]]:
        seen: set[tuple[int, str]] = set()
        for run_id in self._window.run_ids():
            for row in self._window.rows(run_id):
                place = (run_id, row.task_id)
                if row.state in _IDLE and place not in seen:
                    seen.add(place)
                    yield place, row.id


def _essence(reason: Reason) -> object:
    """Return what makes a reason another one: not the states that those waited for go through."""
    awaited = tuple(
        (each.task_id, each.logical_date, each.map_index) if isinstance(each, AwaitedTask) else each
        for each in reason.waits_for
    )
    return reason.line, awaited, reason.due, reason.limits
