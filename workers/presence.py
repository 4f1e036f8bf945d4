"""A worker says in Redis that it is there, so that `doctor` and `run` need not ask all workers and wait for answers."""

from __future__ import annotations

import json
import logging
import platform
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import redis

from backfill.executors import broker
from backfill.executors.presences import PRESENCE
from backfill.messages import WIRE_VERSION

logger = logging.getLogger(__name__)

#: How long a worker that was killed still seems to be there.
LIFETIME = timedelta(seconds=10)
#: How often the key is written: three times in its life.
RENEWED_EVERY = timedelta(seconds=3)


def presence_key(hostname: str) -> str:
    """Return the Redis key by which a worker says that it is there."""
    return f"{PRESENCE}{hostname}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """What a worker says of itself; `body` adds the time by its own clock."""

    hostname: str
    concurrency: int
    queues: Sequence[str]

    def body(self) -> str:
        """Return the JSON text that stands under the key."""
        return json.dumps(
            {
                "version": version("backfill"),
                "python": platform.python_version(),
                "wire_version": WIRE_VERSION,
                "concurrency": self.concurrency,
                "queues": sorted(self.queues),
                "time": datetime.now(UTC).isoformat(),
            }
        )


class PresenceKeeper:
    """Keeps the key while the worker lives; `each_time` is called before each renewal."""

    def __init__(self, broker_url: str, presence: Presence, *, each_time: Callable[[], None] = lambda: None) -> None:
        self._client = broker.connect(broker_url, name="backfill-worker-presence")
        self._presence = presence
        self._each_time = each_time
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="presence", daemon=True)

    def start(self) -> None:
        """Write the key, and keep it from now on."""
        self._thread.start()

    def end(self) -> None:
        """Take the key away and end the thread."""
        self._ended.set()
        self._thread.join()
        self._try(lambda: self._client.delete(presence_key(self._presence.hostname)))
        self._client.close()

    def _keep(self) -> None:
        while True:
            self._each_time()
            self._try(
                lambda: self._client.set(presence_key(self._presence.hostname), self._presence.body(), ex=LIFETIME)
            )
            if self._ended.wait(RENEWED_EVERY.total_seconds()):
                return

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except (redis.RedisError, OSError) as error:
            logger.debug("The broker did not learn that this worker is there: %s", error)
