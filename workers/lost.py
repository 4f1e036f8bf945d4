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
from workers.marks import Marks

logger = logging.getLogger(__name__)

#: The main process serves all children: it does not wait long for the database.
_CONNECT_TIMEOUT = timedelta(seconds=2)


class LostAttempts:
    """Reports the attempts of children that died. Used by the main process only, which has no other use for the database."""

    def __init__(self, database_url: str, broker_url: str, *, hostname: str, marks: Marks) -> None:
        self._database_url = database_url
        self._events = EventPublisher(broker_url)
        self._hostname = hostname
        self._marks = marks

    def report(self, bundle: Bundle, reason: str) -> None:
        """Put back what the child had not claimed, at no cost; the rest is an infrastructure failure (S8.3).

        Of several the one that the child died in has to answer for it. Where nobody knows which that was none has, but each
        travels alone from then on.
        """
        if len(bundle.attempts) == 1:
            events = [self._lost(bundle.attempts[0], reason, alone=False)]
        else:
            unclaimed = self._put_back(bundle.attempts)
            guilty = self._marks.marked(attempt.attempt_id for attempt in bundle.attempts)
            events = [
                _given_back(attempt, alone=not guilty)
                if attempt.task_instance_id in unclaimed
                else self._lost(attempt, reason, alone=attempt.attempt_id not in guilty)
                for attempt in bundle.attempts
            ]
        self._events.publish(bundle.stream, events)

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

    def _lost(self, attempt: Attempt, reason: str, *, alone: bool) -> ExecutorEvent:
        info = f"its process on {self._hostname} was lost: {reason}"
        return ExecutorEvent(
            attempt.task_instance_id,
            attempt.attempt_id,
            TaskInstanceState.FAILED,
            info,
            infrastructure=True,
            alone=alone,
        )


def _given_back(attempt: Attempt, *, alone: bool) -> ExecutorEvent:
    return ExecutorEvent(attempt.task_instance_id, attempt.attempt_id, TaskInstanceState.NONE, alone=alone)
