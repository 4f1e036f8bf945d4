"""What the loop asks of an executor, and what they say to each other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from backfill.config import Settings
from backfill.executors.mailbox import Mailbox
from backfill.messages import Attempt, DagSource, ExecutorEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorContext:
    """What an executor gets to know of the job that it works for."""

    job_id: int
    settings: Settings
    #: Where workers on this machine find the database.
    database_url: str
    #: Empty where the job needs no broker.
    broker_url: str
    #: Where workers find the DAG.
    dag_source: DagSource
    #: Takes the events; shared by all executors of the job.
    mailbox: Mailbox


@dataclass(frozen=True, slots=True)
class QueuedAttempt:
    """An attempt whose row is `queued`, with what only its way to a worker needs."""

    attempt: Attempt
    #: Name of the worker queue; only executors with remote workers look at it.
    queue: str
    #: For display.
    logical_date: datetime
    #: It must not travel with others: an earlier attempt was lost together with its process (S8.3).
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Unsent:
    """An attempt that certainly reached no worker (S7.3)."""

    attempt_id: str
    reason: str
    #: True: the broker does not answer, nothing is wrong with the attempt. False: the executor rejects this attempt.
    broker_away: bool


class BaseExecutor(ABC):
    """Takes attempts whose rows are `queued` to workers, and says what became of them.

    Nothing that it says or forgets decides anything: rows do (S0.1). Its methods are called by one thread, that of the loop.
    Life: `start` once before anything else, `end` once at last, also after errors (S1.6).
    """

    #: The word of `--executor`, of a task's `executor`, and of the task instance's row.
    name: ClassVar[str]

    def __init__(self) -> None:
        self._context: ExecutorContext | None = None

    @property
    def context(self) -> ExecutorContext:
        """The job that this executor works for."""
        if self._context is None:
            raise RuntimeError(f"the {self.name} executor has not been started")
        return self._context

    def start(self, context: ExecutorContext) -> None:
        """Get ready to send attempts. Raises `ServiceUnavailable` if the way to the workers is closed."""
        self._context = context

    @abstractmethod
    def queue_task_instances(self, attempts: Sequence[QueuedAttempt]) -> list[Unsent]:
        """Hand `attempts` over and return those that certainly were not sent; does not block for longer than seconds.

        Handing over the same attempt twice is harmless: the second delivery loses the claim (S7.4).
        """

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until something has happened, at most `timeout` seconds (None: no limit); return whether it has."""
        return self.context.mailbox.wait(timeout)

    def catch_up(self) -> None:  # noqa: B027  # most have nothing left over
        """Do what could not be done before. The loop calls it in each round, so it is cheap while nothing is left over."""

    def get_event_buffer(self) -> list[ExecutorEvent]:
        """Return what has been reported since the last call, oldest first."""
        return self.context.mailbox.drain()

    def appetite(self, in_flight: int) -> int | None:  # noqa: ARG002  # most take whatever comes
        """Return how many attempts more it would have now, while `in_flight` of the job are; None: any number."""
        return None

    @abstractmethod
    def holds(self, attempt_ids: Iterable[str]) -> set[str]:
        """Return those of `attempt_ids` that wait for a worker, or run on one as far as this executor knows (S8.4, S8.5)."""

    @abstractmethod
    def adopt(self, attempts: Sequence[QueuedAttempt]) -> set[str]:
        """Take charge of attempts that another process of this job handed over, and nobody has claimed (S8.6).

        Returns the ids of those it holds.
        """

    @abstractmethod
    def revoke(self, attempt_ids: Iterable[str]) -> None:
        """Stop attempts from being delivered, where that is still possible; their rows have been taken back already."""

    @abstractmethod
    def terminate(self, attempt_ids: Iterable[str]) -> None:
        """Stop what runs of these attempts, whose rows say that they shall not go on; returns at once.

        Where a process has gone on to another attempt meanwhile, that one is left alone.
        """

    def leave(self) -> None:
        """Let go of everything as `end` does, but let what runs on this machine end by itself.

        For a process that has lost its job to another, which answers for what runs (S1.4).
        """
        self.end()

    def kill(self) -> None:  # noqa: B027  # remote executors have nothing to do here
        """Kill its processes on this machine at once, just before this process ends. Safe in a signal handler."""

    @abstractmethod
    def end(self) -> None:
        """Let go of everything: no process, thread or connection of this executor is left. May be called twice."""
