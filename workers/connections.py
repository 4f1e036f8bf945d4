"""`conn` of the template context: connections from the environment, `AIRFLOW_CONN_<ID>` (S12.3), a URI or a JSON object."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from backfill.exceptions import UsageError

_PREFIX = "AIRFLOW_CONN_"
#: Key of a URI's query that holds the whole of `extra` as JSON.
_WHOLE_EXTRA = "__extra__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where and as whom to connect."""

    conn_id: str
    conn_type: str
    host: str | None = None
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    port: int | None = None
    schema: str | None = None
    #: JSON text.
    extra: str = field(default="", repr=False)
    description: str | None = None

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """`extra` as a dict."""
        return dict(json.loads(self.extra)) if self.extra else {}

    def get_uri(self) -> str:
        """Return the connection as a URI, password included."""
        login = quote(self.login or "", safe="")
        secret = f":{quote(self.password, safe='')}" if self.password is not None else ""
        user = f"{login}{secret}@" if login or secret else ""
        port = f":{self.port}" if self.port else ""
        query = f"?{urlencode({_WHOLE_EXTRA: self.extra})}" if self.extra else ""
        return f"{self.conn_type}://{user}{quote(self.host or '', safe='')}{port}/{quote(self.schema or '', safe='')}{query}"


class Connections:
    """`conn.my_db` is the connection of that id; `conn.get("my_db", default)` does not insist."""

    def __getattr__(self, conn_id: str) -> Connection:
        if conn_id.startswith("__"):  # what Python and Jinja ask of any object
            raise AttributeError(conn_id)
        return self[conn_id]

    def __getitem__(self, conn_id: str) -> Connection:
        """Return the connection; raises `UsageError` naming it if it is not set or cannot be read."""
        name = f"{_PREFIX}{conn_id.upper()}"
        text = os.environ.get(name)
        if text is None:
            raise UsageError(f"The connection {conn_id!r} is not set; set ${name} for the workers.")
        try:
            return _from_json(conn_id, text) if text.lstrip().startswith("{") else _from_uri(conn_id, text)
        except (AttributeError, TypeError, ValueError):
            # the text holds a password: neither it nor the error, which may quote it, is shown
            raise UsageError(
                f"The connection {conn_id!r} cannot be read; make ${name} a URI or a JSON object of its fields."
            ) from None

    def get(self, conn_id: str, default: Any = None) -> Any:
        """Return the connection, or `default` if it is not set."""
        return self[conn_id] if f"{_PREFIX}{conn_id.upper()}" in os.environ else default


def _from_uri(conn_id: str, uri: str) -> Connection:
    parts = urlsplit(uri)
    if not parts.scheme:
        raise ValueError("no scheme")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    extra = query.get(_WHOLE_EXTRA) or (json.dumps(query) if query else "")
    if extra:
        json.loads(extra)
    return Connection(
        conn_id=conn_id,
        conn_type=_type(parts.scheme),
        host=_unquoted(_host(parts.netloc, parts.port)),
        login=_unquoted(parts.username),
        password=_unquoted(parts.password),
        port=parts.port,
        schema=_unquoted(parts.path.removeprefix("/") or None),
        extra=extra,
    )


def _host(netloc: str, port: int | None) -> str | None:
    """Return the host in the case that it is written in: it may be the quoted folder of a socket."""
    address = netloc.rpartition("@")[2]
    host = address.removesuffix(f":{port}") if port is not None else address
    return host.strip("[]") or None


def _from_json(conn_id: str, text: str) -> Connection:
    fields = json.loads(text)
    extra = fields.pop("extra", "")
    port = fields.pop("port", None)
    return Connection(
        conn_id=conn_id,
        conn_type=_type(fields.pop("conn_type")) if "conn_type" in fields else "",
        port=None if port is None else int(port),
        extra=extra if isinstance(extra, str) else json.dumps(extra),
        **fields,
    )


def _type(scheme: str) -> str:
    name = scheme.replace("-", "_")
    return "postgres" if name == "postgresql" else name


def _unquoted(text: str | None) -> str | None:
    return None if text is None else unquote(text)
