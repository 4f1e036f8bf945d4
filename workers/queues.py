"""The queues that a worker listens to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import kombu.entity

_queue: Any = kombu.entity.Queue  # kombu has types for some of its functions only


def queues_named(names: Iterable[str]) -> list[Any]:
    """Return Celery queues of these names; the executor puts its messages straight into the Redis lists of the same names."""
    return [_queue(name, routing_key=name) for name in names]
