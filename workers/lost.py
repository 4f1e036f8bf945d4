"""A child of the worker died in the middle of a bundle: the main process tells the coordinator."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError

from backfill.messages import Attempt, Bundle, ExecutorEvent
from backfill.states import TaskInstanceState
from backfill.store.database import create_engine
from backfill.store.task_instances import take_back_if_queued
from workers.events import EventPublisher

logger = logging.getLogger(__name__)

#: The main process serves all children: it does not wait long for the database.
_CONNECT_TIMEOUT = timedelta(seconds=2)


class LostAttempts:
    """Reports the attempts of children that died. Used by the main process only, which has no other use for the database."""

    def __init__(self, database_url: str, broker_url: str, *, hostname: str) -> None:
        self._database_url = database_url
        self._events = EventPublisher(broker_url)
        self._hostname = hostname

    def report(self, bundle: Bundle, reason: str) -> None:
        """Put back what the child had not begun with, at no cost; the rest is an infrastructure failure (S8.3)."""
        unclaimed = self._put_back(bundle.attempts) if len(bundle.attempts) > 1 else set()
        self._events.publish(
            bundle.stream,
            [self._event(attempt, attempt.task_instance_id in unclaimed, reason) for attempt in bundle.attempts],
        )

    def flush(self) -> None:
        """Send what the broker could not take before."""
        self._events.flush()

    def _put_back(self, attempts: Sequence[Attempt]) -> set[int]:
        engine = create_engine(
            self._database_url, application_name=f"backfill-worker {self._hostname}", connect_timeout=_CONNECT_TIMEOUT
        )
        try:
            with engine.begin() as tx:
                return take_back_if_queued(tx, [(each.task_instance_id, each.attempt_id) for each in attempts])
        except SQLAlchemyError as error:
            logger.warning("Attempts that were not begun could not be put back: %s", error)
            return set()
        finally:
            engine.dispose()

    def _event(self, attempt: Attempt, unclaimed: bool, reason: str) -> ExecutorEvent:
        if unclaimed:
            return ExecutorEvent(attempt.task_instance_id, attempt.attempt_id, TaskInstanceState.NONE)
        info = f"its process on {self._hostname} was lost: {reason}"
        return ExecutorEvent(
            attempt.task_instance_id, attempt.attempt_id, TaskInstanceState.FAILED, info, infrastructure=True
        )
