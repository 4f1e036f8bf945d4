"""What Flower shows of a message. Nothing in it is secret."""

from __future__ import annotations

from collections.abc import Sequence

from backfill.executors.base import QueuedAttempt
from backfill.keys import UNMAPPED


def name_of(bundle: Sequence[QueuedAttempt]) -> str:
    """Return the name of the message that carries these attempts."""
    key = bundle[0].attempt.key
    others = f" and {len(bundle) - 1} more" if len(bundle) > 1 else ""
    return f"{key.dag_id}.{key.task_id}{others}"


def description_of(queued: QueuedAttempt) -> str:
    """Return the arguments of a message whose first attempt this is; in Flower's list stand the first fifty letters."""
    key = queued.attempt.key
    index = {} if key.map_index == UNMAPPED else {"map_index": key.map_index}
    shown = {"logical_date": queued.logical_date.isoformat(), "try_number": queued.attempt.try_number}
    return repr(index | shown | {"dag_id": key.dag_id, "task_id": key.task_id})
