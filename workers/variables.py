"""`var` of the template context: variables from the environment, `AIRFLOW_VAR_<KEY>` (S12.3)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from backfill.exceptions import UsageError

_PREFIX = "AIRFLOW_VAR_"


class _Variables:
    """One way to read variables: `var.value.key`, `var.value["key"]`, `var.value.get("key", default)`."""

    def __init__(self, read: Callable[[str, str], Any]) -> None:
        self._read = read

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):  # what Python and Jinja ask of any object
            raise AttributeError(key)
        return self[key]

    def __getitem__(self, key: str) -> Any:
        """Return the variable; raises `UsageError` naming it if it is not set."""
        text = os.environ.get(f"{_PREFIX}{key.upper()}")
        if text is None:
            raise UsageError(f"The variable {key!r} is not set; set ${_PREFIX}{key.upper()} for the workers.")
        return self._read(key, text)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the variable, or `default` if it is not set."""
        return self[key] if f"{_PREFIX}{key.upper()}" in os.environ else default


def _from_json(key: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"The variable {key!r} is no JSON ({error}); correct ${_PREFIX}{key.upper()}.") from error


class Variables:
    """`var.value.key` is a variable's text, `var.json.key` what that text says as JSON."""

    value = _Variables(lambda _key, text: text)
    json = _Variables(_from_json)
