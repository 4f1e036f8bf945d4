"""Whether and when a task is tried again (S6.2, S6.3)."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from backfill.clock import as_utc
from backfill.dag.abstract_operator import AbstractOperator

#: No exponential back-off waits longer than this.
LONGEST_BACKOFF = timedelta(days=1)

_MICROSECOND = timedelta(microseconds=1)


def is_eligible(*, retries: int, try_number: int, max_tries: int, disable_retry: bool) -> bool:
    """Return whether a failed try is followed by another one (S6.2).

    `retries` is the task's number, `max_tries` the row's, which grows with each clear.
    """
    return retries > 0 and try_number <= max_tries and not disable_retry


def retry_delay(task: AbstractOperator, logical_date: datetime, try_number: int) -> timedelta:
    """Return the time from the end of try `try_number` of `task` to the next one (S6.3); the same for the same arguments."""
    if not task.retry_exponential_backoff:
        return task.retry_delay
    base = max(1, -(-(task.retry_delay // _MICROSECOND << max(try_number, 1) - 1) // 1_000_000))
    seed = f"{task.dag_id}#{task.task_id}#{as_utc(logical_date)}#{try_number}"
    digest = hashlib.sha1(seed.encode(), usedforsecurity=False).hexdigest()
    delay = timedelta(seconds=min(base + int(digest, 16) % base, LONGEST_BACKOFF.total_seconds()))
    return delay if task.max_retry_delay is None else min(delay, task.max_retry_delay)
