"""Events of the running system. Core code emits; logs, metrics and the progress display subscribe.

A subscriber that raises is logged and never breaks the loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from backfill.keys import TaskInstanceKey
from backfill.states import DagRunState, JobState, TaskInstanceState

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events; `job_id` is the job that it is about."""

    job_id: int


@dataclass(frozen=True, slots=True)
class JobStarted(Event):
    """The loop begins to drive a job."""

    dag_id: str
    total_runs: int
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class JobEnded(Event):
    """The loop stops driving a job; `state` is what it left in the row."""

    state: JobState


@dataclass(frozen=True, slots=True)
class RunAdmitted(Event):
    """A run entered the window."""

    run_id: str


@dataclass(frozen=True, slots=True)
class RunSettled(Event):
    """A run finished and left the window; `reason` as S2.15."""

    run_id: str
    state: DagRunState
    reason: str


@dataclass(frozen=True, slots=True)
class Dispatched(Event):
    """Task instances were queued and handed to an executor."""

    keys: tuple[TaskInstanceKey, ...]


@dataclass(frozen=True, slots=True)
class TaskInstanceEnded(Event):
    """A task instance was seen in a state that ends an attempt, or settled by its dependencies."""

    key: TaskInstanceKey
    state: TaskInstanceState
    try_number: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Note(Event):
    """Something that an operator wants to read; `level` is a `logging` level."""

    text: str
    level: int = logging.INFO


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task instance that a worker has claimed, for display."""

    key: TaskInstanceKey
    hostname: str | None
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """The counts of S9.5 at one moment. Total is the sum of the six numbers; `rate` is per second, `eta` in seconds."""

    runs_finished: int
    runs_total: int
    waiting: int
    running: int
    succeeded: int
    failed: int
    skipped: int
    deadlocked: int
    rate: float
    eta_seconds: float | None
    running_now: tuple[RunningTask, ...] = field(default=())

    @property
    def total(self) -> int:
        """All task instances of the job, `removed` ones aside."""
        return self.waiting + self.running + self.succeeded + self.failed + self.skipped + self.deadlocked


Subscriber = Callable[[Event], None]


class Telemetry:
    """Hands each event to every subscriber, in the order of subscription."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Add `subscriber`; the returned callable takes it off again."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody hears of events, so that it is worth making them."""
        return bool(self._subscribers)

    def emit(self, event: Event) -> None:
        """Hand `event` to every subscriber; one that raises is logged and passed over."""
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(event)
            except Exception:
                logger.exception("A subscriber failed on %s", type(event).__name__)
