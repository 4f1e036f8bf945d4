"""What an executor remembers of the attempts that it sent, until it hears that they are over."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

from backfill.executors.base import QueuedAttempt
from backfill.messages import ExecutorEvent
from backfill.states import IN_FLIGHT, TaskInstanceState

#: More than any sensible number in flight. Beyond it the oldest are forgotten: those whose end was never reported.
LIMIT = 100_000


@dataclass(slots=True)
class _Message:
    queue: str
    #: Attempts of it that are not over.
    left: int


@dataclass(slots=True)
class _Record:
    queued: QueuedAttempt
    sent_at: float
    message: _Message
    started: bool = False


class SentAttempts:
    """Attempts on their way to a worker, or with one. Safe to use from several threads.

    This is no truth, only a memory that allows to send a message again which the broker has lost, and to see how busy workers
    are. Attempts whose end was reported to nobody stay in it, so it is bounded.
    """

    def __init__(self, *, limit: int = LIMIT, clock: Callable[[], float] = time.monotonic) -> None:
        self._records: dict[str, _Record] = {}
        self._outstanding: Counter[str] = Counter()
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()

    def add(self, bundles: Sequence[Sequence[QueuedAttempt]]) -> None:
        """Remember that `bundles` were sent just now, a message each, also if their attempts had been before."""
        with self._lock:
            now = self._clock()
            for bundle in bundles:
                message = _Message(bundle[0].queue, len(bundle))
                self._outstanding[message.queue] += 1
                for queued in bundle:
                    self._forget(queued.attempt.attempt_id)
                    self._records[queued.attempt.attempt_id] = _Record(queued, now, message)
            for attempt_id in list(islice(self._records, max(0, len(self._records) - self._limit))):
                self._forget(attempt_id)

    def adopt(self, attempts: Iterable[QueuedAttempt]) -> None:
        """Remember attempts that another process sent, nobody knows when and in how many messages; known ones stay as they are."""
        with self._lock:
            for queued in attempts:
                if queued.attempt.attempt_id not in self._records:
                    self._outstanding[queued.queue] += 1
                    self._records[queued.attempt.attempt_id] = _Record(queued, -math.inf, _Message(queued.queue, 1))

    def note(self, event: ExecutorEvent) -> QueuedAttempt | None:
        """Remember what `event` says of its attempt, and return that if it is known."""
        with self._lock:
            record = self._records.get(event.attempt_id)
            if record is None:
                return None
            if event.state is TaskInstanceState.RUNNING:
                record.started = True
            elif event.state not in IN_FLIGHT:
                self._forget(event.attempt_id)
            return record.queued

    def forget(self, attempt_ids: Iterable[str]) -> None:
        """Remember these no longer."""
        with self._lock:
            for attempt_id in attempt_ids:
                self._forget(attempt_id)

    def outstanding(self, queue: str) -> int:
        """Return how many messages in `queue`, or taken from it, have attempts that are not over."""
        with self._lock:
            return self._outstanding[queue]

    def not_started(self) -> list[QueuedAttempt]:
        """Return those of which no start was reported, oldest first."""
        with self._lock:
            return [record.queued for record in self._records.values() if not record.started]

    def running_or_fresh(self, freshness: timedelta) -> set[str]:
        """Return the ids of those that are reported to run, or were sent within the last `freshness`."""
        with self._lock:
            oldest = self._clock() - freshness.total_seconds()
            return {
                attempt_id for attempt_id, record in self._records.items() if record.started or record.sent_at >= oldest
            }

    def _forget(self, attempt_id: str) -> None:
        record = self._records.pop(attempt_id, None)
        if record is None:
            return
        record.message.left -= 1
        if not record.message.left:
            self._outstanding[record.message.queue] -= 1
