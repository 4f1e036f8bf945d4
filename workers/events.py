"""The events of this process on their way to the coordinators, through Redis streams.

They are hints: what cannot be sent is kept and sent later, and at last forgotten, for the rows say the same.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from itertools import islice

import redis

from backfill.executors import broker
from backfill.messages import ExecutorEvent, encode_events

logger = logging.getLogger(__name__)

#: Entries that a stream keeps, more or less: enough for any coordinator to catch up with.
STREAM_LENGTH = 100_000
#: How long a stream stays after its last event, so that none lives for ever.
STREAM_LIFETIME = timedelta(days=1)
#: How often it is told that a stream is to live on.
_RENEWED_EVERY = STREAM_LIFETIME / 24
#: Entries kept while the broker is away; the oldest go first.
KEPT = 10_000
#: Entries sent at once.
_BATCH = 500
#: How long nothing is tried after a failure, in seconds.
_PAUSE = 1.0


class EventPublisher:
    """Puts events on their jobs' streams. Safe to use from several threads; belongs to one process."""

    def __init__(self, broker_url: str) -> None:
        self._client = broker.connect(broker_url, name="backfill-worker-events")
        self._endpoint = broker.masked(broker_url)
        self._waiting: deque[tuple[str, str]] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self._try_at = 0.0
        self._is_away = False
        #: Until when a stream needs not be told to live on, on the monotonic clock.
        self._lives_on: dict[str, float] = {}

    def connect(self) -> None:
        """Reach the broker before there is anything to send; raises `redis.RedisError` or `OSError`."""
        self._client.ping()

    def publish(self, stream: str, events: Sequence[ExecutorEvent]) -> None:
        """Send `events` as one entry, after those that wait. Never raises for a broker that is away."""
        self._waiting.append((stream, encode_events(events)))
        self.flush()

    def flush(self) -> bool:
        """Send what waits; return whether some of it still does."""
        with self._lock:
            if self._waiting and time.monotonic() >= self._try_at:
                self._send()
            return bool(self._waiting)

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def _send(self) -> None:
        try:
            if len(self._waiting) == 1 and self._add_to_living(*self._waiting[0]):
                self._waiting.popleft()
            while self._waiting:
                batch = list(islice(self._waiting, _BATCH))
                self._send_batch(batch)
                for _ in batch:
                    self._waiting.popleft()
                self._is_away = False
        except (redis.RedisError, OSError) as error:
            self._try_at = time.monotonic() + _PAUSE
            if not self._is_away:  # once for each time that it goes away, not once for each second
                logger.warning("Events wait for the broker at %s: %s", self._endpoint, error)
            self._is_away = True

    def _add_to_living(self, stream: str, text: str) -> bool:
        """Add an entry by one command if the stream is there and was told lately to live on; return whether that was so."""
        if time.monotonic() >= self._lives_on.get(stream, 0.0):
            return False
        try:
            added = self._client.xadd(stream, {"e": text}, maxlen=STREAM_LENGTH, approximate=True, nomkstream=True)
        except redis.ResponseError:
            return False
        return added is not None

    def _send_batch(self, batch: list[tuple[str, str]]) -> None:
        with self._client.pipeline(transaction=False) as pipeline:
            for stream, text in batch:
                pipeline.xadd(stream, {"e": text}, maxlen=STREAM_LENGTH, approximate=True)
            for stream in {stream for stream, _ in batch}:
                pipeline.expire(stream, STREAM_LIFETIME)
            answers = pipeline.execute(raise_on_error=False)
        now = time.monotonic()
        self._lives_on = {stream: until for stream, until in self._lives_on.items() if until > now}
        self._lives_on |= dict.fromkeys((stream for stream, _ in batch), now + _RENEWED_EVERY.total_seconds())
        for (stream, text), answer in zip(batch, answers, strict=False):
            if isinstance(
                answer, redis.ResponseError
            ):  # the next time would be no better: it must not hold up the others
                logger.warning("The events %s are dropped, stream %r does not take it: %s", text, stream, answer)
