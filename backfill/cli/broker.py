"""The broker alone, for commands that need no database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from backfill.config import Settings
from backfill.coordinator.broker import check_broker
from backfill.embedded import Servers


@contextmanager
def open_broker(settings: Settings) -> Iterator[str]:
    """Reach the broker that the settings name, or start the embedded one, and yield its URL.

    Raises `ServiceUnavailable` if it does not answer, `ConfigError`.
    """
    if settings.celery.broker_url:
        check_broker(settings.celery.broker_url)
        yield settings.celery.broker_url
        return
    with Servers(settings.core.home) as servers:
        url = servers.acquire(database=False).broker_url
        assert url is not None
        yield url
