"""Values of users on their way into the database: JSON for XComs, text for errors.

PostgreSQL refuses what its text and JSON cannot hold (a zero byte, half of a surrogate pair). A statement that carries the
results of many attempts must not fail for one of them, so that values are tested or mended before.
"""

from __future__ import annotations

import json
from typing import Any

from backfill.exceptions import UsageError

#: Characters of an error text that are kept: what a person reads of it, and what a report of many thousand can hold.
LONGEST_ERROR = 10_000


class Json(str):
    """JSON text that PostgreSQL is known to accept; made by `encode`, and not encoded a second time."""

    __slots__ = ()


def encode(name: str, value: Any) -> Json:
    """Return `value` as JSON text (S12.5); `name` says whose value it is in the error.

    Raises `UsageError` for anything that JSON, or PostgreSQL's `jsonb`, cannot hold.
    """
    if isinstance(value, Json):
        return value
    try:
        encoded = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        encoded.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{name} cannot be kept as JSON ({error}); give plain JSON values.") from error
    if "\\u0000" in encoded and _has_zero_byte(value):
        raise UsageError(f"{name} holds a zero byte, which the database cannot keep; remove or encode it.")
    return Json(encoded)


def _has_zero_byte(value: Any) -> bool:
    """Return whether a text in `value` has one; its JSON may also hold the six characters of the escape as such."""
    match value:
        case str():
            return "\x00" in value
        case dict():
            return any(_has_zero_byte(item) for pair in value.items() for item in pair)
        case list() | tuple():
            return any(_has_zero_byte(item) for item in value)
        case _:
            return False


def storable_text(text: str | None) -> str | None:
    """Return an error text as PostgreSQL can hold it: what it cannot is shown as `�`, the middle of a long one is left out."""
    if text is None:
        return None
    if len(text) > LONGEST_ERROR:
        half = LONGEST_ERROR // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
