"""Which workers there are, by the keys in the broker that they renew for as long as they live (`workers.presence`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import redis

#: A worker's key is this and its hostname.
PRESENCE = "backfill:worker:"


@dataclass(frozen=True, slots=True)
class WorkerPresence:
    """What a living worker says of itself."""

    hostname: str
    version: str
    python: str
    concurrency: int
    queues: tuple[str, ...]
    #: Version of the messages that it reads.
    wire_version: int
    #: When it last said so, by its own clock.
    time: datetime


def presences(client: redis.Redis) -> list[WorkerPresence]:
    """Return the workers that listen on the broker, by hostname; raises `redis.RedisError`.

    A key that holds something else is passed over: whatever is in the broker ends nobody.
    """
    return sorted(_read(client), key=lambda worker: worker.hostname)


def _read(client: redis.Redis) -> Iterator[WorkerPresence]:
    keys = list(client.scan_iter(match=f"{PRESENCE}*", count=1000))
    values = cast("list[bytes | None]", client.mget(keys)) if keys else []
    for key, value in zip(keys, values, strict=True):
        if value is None:  # the worker has left since, or it is no text
            continue
        try:
            yield _presence(key, value)
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
            continue


def _presence(key: bytes, value: bytes) -> WorkerPresence:
    said: dict[str, Any] = json.loads(value)
    return WorkerPresence(
        hostname=key.decode().removeprefix(PRESENCE),
        version=str(said["version"]),
        python=str(said["python"]),
        concurrency=int(said["concurrency"]),
        queues=tuple(said["queues"]),
        wire_version=int(said["wire_version"]),
        time=datetime.fromisoformat(said["time"]),
    )
