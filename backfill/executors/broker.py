"""A plain Redis connection to the broker, beside the one that Celery has.

Celery's URL forms are understood (`redis://`, `rediss://`, `redis+socket://`), every wait has an end, and nothing is repeated
behind the caller's back: redis-py would by default send a command that timed out up to ten more times.
"""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import parse_qs, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from backfill.exceptions import ConfigError

#: How long to wait for a connection, and for an answer over one.
CONNECT_TIMEOUT = timedelta(seconds=5)
ANSWER_TIMEOUT = timedelta(seconds=5)

_SCHEMES = {"redis": "redis", "rediss": "rediss", "redis+socket": "unix"}


def connect(broker_url: str, *, name: str) -> redis.Redis:
    """Return a client that connects when it is first used; `name` shows in the server's list of clients.

    Raises `ConfigError` if the URL is none that Celery takes for a Redis.
    """
    url = plain_url(broker_url)
    over_a_network = {} if url.startswith("unix:") else {"socket_keepalive": True}
    return redis.Redis.from_url(
        url,
        client_name=name,
        socket_timeout=ANSWER_TIMEOUT.total_seconds(),
        socket_connect_timeout=CONNECT_TIMEOUT.total_seconds(),
        retry=Retry(NoBackoff(), 0),
        **over_a_network,
    )


def plain_url(broker_url: str) -> str:
    """Return Celery's `broker_url` as redis-py writes it; raises `ConfigError`."""
    parts = urlsplit(broker_url)
    if parts.scheme not in _SCHEMES:
        raise ConfigError(
            f"The broker URL starts with {parts.scheme or broker_url!r}; it takes redis://, rediss:// or redis+socket://."
        )
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    if "virtual_host" in query:
        query["db"] = query.pop("virtual_host")
    if "ssl_cert_reqs" in query:  # Celery takes both ways to write it
        query["ssl_cert_reqs"] = query["ssl_cert_reqs"].removeprefix("CERT_").lower()
    return _joined(_SCHEMES[parts.scheme], parts.netloc, parts.path, urlencode(query))


def masked(broker_url: str) -> str:
    """Return `broker_url` without user, password and options, fit to be shown."""
    parts = urlsplit(broker_url)
    return _joined(parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "")


def _joined(scheme: str, netloc: str, path: str, query: str) -> str:
    # urlunsplit drops the empty host of a socket's URL
    return f"{scheme}://{netloc}{path}" + (f"?{query}" if query else "")
