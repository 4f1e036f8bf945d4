"""What may come out of a worker queue: messages as the executor makes them, and nothing else.

Celery takes much for granted in a message, and a worker's main process ends with an error where that is missing; and it obeys a
message that asks for other tasks to be started. So of each message only what is ours is kept, and the rest made anew.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from backfill.messages import TASK_NAME

#: Longest text that is kept for display.
LONGEST_TEXT = 1000
#: Levels of a body, of which a bundle has 7. One of hundreds can be read, but not be handed to a child: that fails only after the
#: worker has set the child's place aside for it, which is lost then, and with its last place the worker stands still.
MOST_LEVELS = 20


class NoMessage(ValueError):
    """Raised for an entry of a queue that is no message of ours."""


def checked(entry: Any) -> dict[str, Any]:
    """Return a message that Celery can read, with the bundle of `entry`; raises `NoMessage` if there is none in it."""
    try:
        headers, properties = entry["headers"], entry["properties"]
        task_id = str(UUID(headers["id"]))
        _check_name(headers["task"])
        _check_body(entry["body"])
        delivery_tag = str(UUID(properties["delivery_tag"]))
        routing_key = str(properties["delivery_info"]["routing_key"])
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise NoMessage(f"{type(error).__name__}: {error}") from error
    return {
        "body": entry["body"],
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": _headers(task_id, headers),
        "properties": {
            "correlation_id": task_id,
            "reply_to": task_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": routing_key},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": delivery_tag,
        },
    }


def _check_name(name: object) -> None:
    if name != TASK_NAME:
        raise NoMessage(f"it is for the task {name!r:.100}")


def _check_body(body: str) -> None:
    """Refuse a body that is not the JSON of [one argument, no keywords, nothing to be done after it]."""
    try:
        arguments, keywords, embedded = json.loads(base64.b64decode(body, validate=True))
    except binascii.Error as error:
        raise NoMessage(f"its body is {error}") from error
    if not isinstance(arguments, list) or keywords != {} or not isinstance(embedded, Mapping) or any(embedded.values()):
        raise NoMessage("its body asks for more than to run a bundle")
    if _has_more_levels(arguments, MOST_LEVELS):
        raise NoMessage("its body is nested too deep")


def _has_more_levels(value: list[Any], most: int) -> bool:
    level: list[Any] = [value]
    for _ in range(most):
        inner = [each for each in level if isinstance(each, list | dict)]
        if not inner:
            return False
        level = [member for each in inner for member in (each.values() if isinstance(each, dict) else each)]
    return True


def _headers(task_id: str, given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "lang": "py",
        "task": TASK_NAME,
        "id": task_id,
        "root_id": task_id,
        "parent_id": None,
        "group": None,
        "shadow": _text(given.get("shadow")),
        "argsrepr": _text(given.get("argsrepr")) or "()",
        "kwargsrepr": _text(given.get("kwargsrepr")) or "{}",
        "origin": _text(given.get("origin")),
        "eta": None,
        "expires": None,
        "retries": 0,
        "timelimit": [None, None],
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


def _text(value: object) -> str | None:
    return value[:LONGEST_TEXT] if isinstance(value, str) else None
