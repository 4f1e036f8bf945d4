"""Attempts that no row stands behind, for tests of an executor's own part."""

from datetime import UTC, datetime
from uuid import uuid4

from backfill.executors import QueuedAttempt
from backfill.keys import TaskInstanceKey
from backfill.messages import Attempt

DATE = datetime(2024, 1, 1, tzinfo=UTC)


def queued(task_id: str = "load", *, number: int = 1, queue: str = "backfill", map_index: int = -1) -> QueuedAttempt:
    key = TaskInstanceKey("sales", task_id, "backfill__2024-01-01T00:00:00+00:00", map_index)
    return QueuedAttempt(Attempt(number, key, str(uuid4()), 1), queue, DATE)


def ids(attempts: list[QueuedAttempt]) -> list[str]:
    return [attempt.attempt.attempt_id for attempt in attempts]
