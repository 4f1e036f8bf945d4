"""Reads the event stream of a job into the mailbox, for as long as the executor lives."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import redis

from backfill.exceptions import MessageError
from backfill.executors import broker
from backfill.messages import ORDER, ExecutorEvent, decode_events

logger = logging.getLogger(__name__)

#: A blocking read ends after this: below the time after which the client gives up waiting for an answer.
BLOCK = timedelta(seconds=3)
#: Entries taken with one read.
READ_COUNT = 1000
#: How often the server is asked whether it still has what was put there.
CHECK_EVERY = timedelta(seconds=3)
#: Pauses between attempts to reach a broker that is away.
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=0.1), timedelta(seconds=2)
#: How long a job's keys stay after the last process that used them.
KEY_LIFETIME = timedelta(days=1)

_BEGINNING = "0-0"
_AWAY = (redis.RedisError, OSError)


class EventListener:
    """One thread that waits on the job's stream, and outlives restarts of the broker, also those that emptied it.

    `receive` gets the events of each entry. `distrust` is called when messages that were sent may have been lost: after the connection was
    interrupted, and while the key `marker`, which the executor wrote, is missing. `order` is called when the operator wants
    something. The listener's thread calls all three.
    """

    def __init__(
        self,
        broker_url: str,
        stream: str,
        *,
        marker: str,
        receive: Callable[[Sequence[ExecutorEvent]], None],
        distrust: Callable[[], None],
        order: Callable[[], None],
    ) -> None:
        self._client = broker.connect(broker_url, name="backfill-events")
        self._endpoint = broker.masked(broker_url)
        self._stream = stream
        self._marker = marker
        self._receive = receive
        self._distrust = distrust
        self._order = order
        self._position = _BEGINNING
        self._connected = True
        self._connection_id: int | None = None
        self._check_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name=stream, daemon=True)

    def start(self) -> None:
        """Listen from the present end of the stream on; raises `redis.RedisError` if the broker is away."""
        newest = _newest_id(self._client.xrevrange(self._stream, count=1))
        self._position = newest or _BEGINNING
        self._thread.start()

    def stop(self) -> None:
        """End the thread and its connection, within seconds also when the broker does not answer."""
        self._stopping.set()
        while self._thread.is_alive():
            self._unblock()
            self._thread.join(timeout=0.1)
        self._client.close()

    def _listen(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            try:
                self._check_if_due()
                self._read()
            except _AWAY as error:
                self._interrupted(error)
                self._stopping.wait(pause.total_seconds())
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                pause = FIRST_PAUSE

    def _read(self) -> None:
        """Wait for events, until `BLOCK` is over."""
        block = int(BLOCK.total_seconds() * 1000)
        reply: Any = self._client.xread({self._stream: self._position}, count=READ_COUNT, block=block)
        for _, entries in reply or ():
            for entry_id, values in entries:
                for field, text in values.items():
                    self._take(field, text)
                self._position = entry_id.decode()

    def _take(self, field: bytes, text: bytes) -> None:
        if field == ORDER.encode():
            self._order()
            return
        try:
            events = decode_events(text)
        except MessageError as error:
            logger.warning("Dropped an entry of %s: %s", self._stream, error)
        else:
            self._receive(events)

    def _check_if_due(self) -> None:
        """Hold what was remembered against the server, which may have been emptied, or be another one since."""
        if time.monotonic() < self._check_at:
            return
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.client_id()
            pipeline.xrevrange(self._stream, count=1)
            pipeline.expire(self._stream, KEY_LIFETIME)
            pipeline.expire(self._marker, KEY_LIFETIME)
            self._connection_id, entries, _, marked = pipeline.execute()
        newest = _newest_id(entries)
        if newest is None or _order(newest) < _order(self._position):
            self._position = _BEGINNING
        self._check_at = time.monotonic() + CHECK_EVERY.total_seconds()
        self._answered(marked=bool(marked))

    def _answered(self, *, marked: bool) -> None:
        if not self._connected:
            logger.warning("The broker at %s answers again", self._endpoint)
        if not self._connected or not marked:
            self._connected = True
            self._distrust()

    def _interrupted(self, error: Exception) -> None:
        if self._connected and not self._stopping.is_set():
            logger.warning("The broker at %s does not answer: %s", self._endpoint, error)
        self._connected = False
        self._check_at = 0.0

    def _unblock(self) -> None:
        """End the read that the thread waits in, if it does."""
        if self._connection_id is not None:
            with contextlib.suppress(*_AWAY):
                self._client.client_unblock(self._connection_id)


def _newest_id(entries: Any) -> str | None:
    return entries[0][0].decode() if entries else None


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)
