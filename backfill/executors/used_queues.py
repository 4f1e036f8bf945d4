"""The worker queues that a job uses, as a set in the broker: whoever takes the job over finds there where its messages may wait."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import redis

from backfill.executors.listener import KEY_LIFETIME


class UsedQueues:
    """The set of one job. That it is gone shows that the server was emptied, with all messages."""

    def __init__(self, job_id: int, default: str) -> None:
        #: Where it is.
        self.key = f"backfill:queues:{job_id}"
        self._default = default
        self._was_there = False

    def add(self, client: redis.Redis, names: Iterable[str]) -> bool:
        """Add the queues of these names, and the default one; return whether the set has gone since the last call."""
        with client.pipeline(transaction=False) as pipeline:
            pipeline.sadd(self.key, self._default)
            pipeline.sadd(self.key, self._default, *names)
            pipeline.expire(self.key, KEY_LIFETIME)
            is_new, *_ = pipeline.execute()
        was_there, self._was_there = self._was_there, True
        return bool(is_new) and was_there

    def names(self, client: redis.Redis) -> set[str]:
        """Return the names of all queues that were added."""
        members: Any = client.smembers(self.key)
        return {name.decode() for name in members} or {self._default}
