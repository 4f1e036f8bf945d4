"""Kombu's Redis transport, which lets nothing but messages of ours out of a queue (see `workers.envelope`)."""

from __future__ import annotations

import json
import logging
from queue import Empty
from typing import Any

import kombu.transport
from kombu.transport import redis as kombu_redis

from workers.envelope import NoMessage, checked

logger = logging.getLogger(__name__)

_redis: Any = kombu_redis  # kombu has types for some of its functions only

#: End of the names of queues for remote control and its answers.
_CONTROL = ".pidbox"


class Channel(_redis.Channel):  # type: ignore[misc]  # as above
    """A channel that drops what it cannot read."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (NoMessage, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            logger.warning("An entry of the queue is no message of ours; it is dropped (%s)", error)
            raise Empty from error  # the next one is read as if this had not been there


class Transport(_redis.Transport):  # type: ignore[misc]  # as above
    """Kombu's Redis transport with these channels."""

    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        """Deliver what came out of a worker queue after a check; remote control and its answers have queues of their own."""
        control = queue.endswith(_CONTROL) or any(queue in channel.active_fanout_queues for channel in self.channels)
        super()._deliver(message if control else checked(message), queue)


def use_instead_of_kombus() -> None:
    """Let every Redis connection of this process be made by this transport; URLs name transports, so there is no other way."""
    names = ("redis", "rediss")
    kombu.transport.TRANSPORT_ALIASES.update(dict.fromkeys(names, f"{__name__}:{Transport.__name__}"))
