"""How many processes listen to each worker queue, by what workers say of themselves in the broker (`workers.presence`)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import redis

from backfill.executors.presences import presences

#: How long an answer is good for: as long as workers take to renew their keys.
GOOD_FOR = timedelta(seconds=3)


class Slots:
    """Remembers for a while what it was told."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counted: Counter[str] = Counter()
        self._ask_at = float("-inf")

    def count(self, queue: str) -> int:
        """Return how many processes take messages from `queue`; one as long as none has been heard of."""
        return max(1, self._counted[queue])

    def total(self) -> int:
        """Return how many have been heard of, once for each queue that they listen to."""
        return self._counted.total()

    def ask_if_due(self, client: redis.Redis) -> None:
        """Ask the broker, unless it was asked a moment ago; raises `redis.RedisError`."""
        now = self._clock()
        if now < self._ask_at:
            return
        self._ask_at = now + GOOD_FOR.total_seconds()
        self._counted = Counter()
        for worker in presences(client):
            for queue in worker.queues:
                self._counted[queue] += worker.concurrency
