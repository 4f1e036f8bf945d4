"""What a worker writes about its attempts: claims, conclusions, hand-backs; and the event that follows each commit.

A conclusion is written together with the next claim where there is one: one commit for each attempt instead of two.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import TypeVar, assert_never

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from backfill.exceptions import ServiceUnavailable
from backfill.messages import Attempt, ExecutorEvent
from backfill.states import TaskInstanceState
from backfill.store.attempts import (
    Claim,
    claim_if_queued,
    finish_if_current,
    give_up_heartbeats,
    hand_back_if_running,
    renew_heartbeats,
    select_cancelled,
    stop_run_after_failure,
)
from backfill.store.database import is_passing, repeat
from backfill.store.task_instances import take_back_if_queued
from workers.conclusion import Conclusion, Ended, Left
from workers.heartbeat import Renewal
from workers.outcome import HandedBack, Orphaned

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Pause before the database is tried again after it has not answered for a while, in seconds.
_PAUSE = 1.0
#: Characters of an error that an event has; the row has more.
LONGEST_INFO = 1000
#: What the executor is told of an attempt whose process lost its parent.
_ORPHANED = "the process that its worker belongs to is gone"


class ValueRefused(Exception):
    """Raised when the database will not have what a task returned."""


class Ledger:
    """Writes for one process. `publish` gets the events; while `leaving()` nobody waits for a database that is away."""

    def __init__(
        self, engine: Engine, *, hostname: str, publish: Callable[[ExecutorEvent], None], leaving: Callable[[], bool]
    ) -> None:
        self._engine = engine
        self._hostname = hostname
        self._publish = publish
        self._leaving = leaving

    def claim(self, attempt: Attempt, after: Conclusion | None = None) -> Claim | None:
        """Claim `attempt` (S7.4), and write the conclusion of the one before it first.

        None: the claim is lost, a stale or doubled delivery. Raises `ValueRefused` as `conclude` does; nothing is claimed then.
        """

        def work(tx: Connection) -> tuple[bool, Claim | None]:
            took_effect = after is not None and _write(tx, after)
            return took_effect, claim_if_queued(
                tx,
                task_instance_id=attempt.task_instance_id,
                attempt_id=attempt.attempt_id,
                try_number=attempt.try_number,
                hostname=self._hostname,
                pid=os.getpid(),
            )

        took_effect, claim = self._patiently(work)
        if after is not None:
            self._report(after, took_effect)
        if claim is None:
            logger.debug("Attempt %s of %s is stale or came twice; it is dropped", attempt.attempt_id, attempt.key)
        return claim

    def conclude(self, conclusion: Conclusion) -> None:
        """Write how an attempt ended. Raises `ValueRefused` if the database will not have its values."""
        self._report(conclusion, self._patiently(lambda tx: _write(tx, conclusion)))

    def renew(self, attempt_ids: Sequence[str]) -> Renewal:
        """Renew heartbeats and return what the rows say; raises whatever goes wrong."""
        with self._engine.begin() as tx:
            current = renew_heartbeats(tx, attempt_ids)
            return Renewal(current, select_cancelled(tx, current))

    def say_running(self, claim: Claim) -> None:
        """Tell the coordinator that an attempt runs. Short ones end before that would help anybody (S8.1)."""
        self._publish(ExecutorEvent(claim.task_instance_id, claim.attempt_id, TaskInstanceState.RUNNING))

    def put_back(self, attempts: Sequence[Attempt]) -> None:
        """Give back attempts that nobody has claimed, at no cost (S3.8), so that another worker takes them at once."""
        if not attempts:
            return
        pairs = [(attempt.task_instance_id, attempt.attempt_id) for attempt in attempts]
        self._patiently(lambda tx: take_back_if_queued(tx, pairs))
        for task_instance_id, attempt_id in pairs:
            self._publish(ExecutorEvent(task_instance_id, attempt_id, TaskInstanceState.NONE))

    def _report(self, conclusion: Conclusion, took_effect: bool) -> None:
        """Tell the coordinator what is committed."""
        match conclusion:
            case Left(how=Orphaned()):
                self._publish(_event(conclusion, TaskInstanceState.FAILED, _ORPHANED, infrastructure=True))
            case Left():
                self._publish(_event(conclusion, TaskInstanceState.NONE))
            case Ended(finish=finish) if took_effect:
                self._publish(
                    ExecutorEvent(finish.task_instance_id, finish.attempt_id, finish.state, _short(finish.error))
                )
            case Ended(finish=finish):
                logger.warning("Attempt %s is not current any more; its end is thrown away", finish.attempt_id)
            case _:
                assert_never(conclusion)

    def _patiently(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` returns, however long the database is away."""
        while True:
            try:
                return repeat(self._engine, work)
            except ServiceUnavailable as error:
                if self._leaving():
                    raise
                logger.warning("Waiting for the database: %s", error)
                time.sleep(_PAUSE)
            except DBAPIError as error:
                if is_passing(error):
                    raise
                raise ValueRefused(str(error.orig).strip()) from error


def _short(error: str | None) -> str | None:
    return None if error is None else error[:LONGEST_INFO]


def _write(tx: Connection, conclusion: Conclusion) -> bool:
    """Write `conclusion`; return whether it took effect, that is, whether the attempt was current."""
    match conclusion:
        case Left(attempt_id=attempt_id, how=HandedBack()):
            return bool(hand_back_if_running(tx, [attempt_id]))
        case Left(attempt_id=attempt_id, how=Orphaned()):
            # whoever would hear the event may be gone: the coordinator that looks next finds it lost (S8.3)
            return bool(give_up_heartbeats(tx, [attempt_id]))
        case Left():
            return False
        case Ended(finish=finish, stop_run=stop_run):
            took_effect = bool(finish_if_current(tx, [finish]))
            if took_effect and stop_run is not None:
                stop_run_after_failure(
                    tx, stop_run.dag_run_id, spared_task_ids=stop_run.spared_task_ids, error=stop_run.error
                )
            return took_effect
        case _:
            assert_never(conclusion)


def _event(
    left: Left, state: TaskInstanceState, info: str | None = None, *, infrastructure: bool = False
) -> ExecutorEvent:
    return ExecutorEvent(left.task_instance_id, left.attempt_id, state, info, infrastructure)
