"""Secrets that a worker is given beside its settings: connections and variables of its environment, and values of conf and params."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

#: A key that has one of these within it, in either case, holds a secret; those of Airflow.
_TELLING = re.compile(
    r"access[_-]?token|api[_-]?key|authorization|keyfile[_-]?dict|passphrase|passwd|password|private[_-]?key|secret"
    r"|service[_-]?account|token",
    re.IGNORECASE,
)
#: What a switch says, whatever its key: hidden, it would blot out ordinary words.
_SWITCHES = frozenset({"true", "false", "none", "null"})
_CONNECTION, _VARIABLE = "AIRFLOW_CONN_", "AIRFLOW_VAR_"
#: A password that has to be quoted in a URI and is not.
_UNQUOTED = re.compile(r"://[^:@/]*:(.+)@", re.DOTALL)


def secrets_of_environment(environment: Mapping[str, str]) -> set[str]:
    """Return the passwords of all connections in `environment`, and of connections and variables what stands under a telling key."""
    return {
        secret
        for name, text in environment.items()
        if name.startswith((_CONNECTION, _VARIABLE))
        for secret in (_of_variable(name, text) if name.startswith(_VARIABLE) else _of_connection(text))
    }


def secrets_within(value: Any) -> set[str]:
    """Return the texts that stand in `value`, however deep, under a key that says password, token or the like."""
    return set(_within(value, hidden=False)) if value else set()


def _within(value: Any, *, hidden: bool) -> Iterator[str]:
    match value:
        case str() if hidden and value.lower() not in _SWITCHES:
            yield value
        case Mapping():
            for key, member in value.items():
                yield from _within(member, hidden=hidden or _TELLING.search(str(key)) is not None)
        case list() | tuple() | set() | frozenset():
            for member in value:
                yield from _within(member, hidden=hidden)
        case _:
            return


def _of_variable(name: str, text: str) -> Iterator[str]:
    yield from _within({name.removeprefix(_VARIABLE): text}, hidden=False)
    yield from _within({name.removeprefix(_VARIABLE): _json(text)}, hidden=False)


def _of_connection(text: str) -> Iterator[str]:
    fields = _json(text)
    if isinstance(fields, Mapping):
        yield from _within(fields, hidden=False)
        yield from _within(_json(fields.get("extra")), hidden=False)
        return
    try:
        parts = urlsplit(text)
    except ValueError:  # it cannot be told which part of it is the password
        yield text
        return
    if parts.password:
        yield parts.password
    elif (unquoted := _UNQUOTED.search(text)) is not None:
        yield unquoted[1]
    for key, value in parse_qsl(parts.query):
        yield from _within({key: value}, hidden=False)
        yield from _within({key: _json(value)}, hidden=False)


def _json(text: object) -> Any:
    """Return the object or list that `text` is the JSON of, else None."""
    if not isinstance(text, str) or not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
