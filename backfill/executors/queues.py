"""Looks into the worker queues of the broker: which attempts wait there, and takes some out again.

A queue is a Redis list of Celery messages. Each of ours has the ids of its attempts in a header.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import cast

import redis

#: A longer queue is not read: what might be in it counts as being in it. That a message is lost can then be said later only.
READABLE_LENGTH = 10_000

#: Message header with the list of attempt ids.
ATTEMPTS_HEADER = "attempts"


def waiting(client: redis.Redis, queues: Iterable[str], wanted: set[str]) -> set[str]:
    """Return those of the attempt ids `wanted` that wait in one of `queues`, all of them if one is too long to be read."""
    found: set[str] = set()
    for queue in queues:
        if client.llen(queue) > READABLE_LENGTH:
            return set(wanted)
        for message in _messages(client, queue):
            found |= wanted & _attempt_ids(message)
    return found


def remove(client: redis.Redis, queues: Iterable[str], unwanted: set[str]) -> None:
    """Take the messages out of `queues` whose attempts are all `unwanted`; those in a queue too long to be read stay."""
    for queue in queues:
        if client.llen(queue) > READABLE_LENGTH:
            continue
        with client.pipeline(transaction=False) as pipeline:
            for message in _messages(client, queue):
                ids = _attempt_ids(message)
                if ids and ids <= unwanted:
                    pipeline.lrem(queue, 1, cast("str", message))
            pipeline.execute()


def _messages(client: redis.Redis, queue: str) -> list[bytes]:
    return cast("list[bytes]", client.lrange(queue, 0, -1))


def _attempt_ids(message: bytes) -> set[str]:
    try:
        return set(json.loads(message)["headers"][ATTEMPTS_HEADER])
    except (ValueError, LookupError, TypeError, RecursionError):
        return set()  # somebody else's message, or none at all
