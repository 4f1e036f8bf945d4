"""The lease reads the database's clock with each heartbeat."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from backfill.clock import SystemClock
from backfill.config import Settings
from backfill.coordinator import lease
from backfill.coordinator.lease import HeldLease


class UnhurriedClock(SystemClock):
    """Notes how often somebody sleeps, who does so at once."""

    def __init__(self) -> None:
        self.naps = 0

    def sleep(self, seconds: float) -> None:
        self.naps += 1


def test_a_database_that_goes_away_while_its_clock_is_read_is_waited_for_as_long_as_elsewhere(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = UnhurriedClock()

    def now(_tx: Connection) -> datetime:
        if clock.naps < 20:
            raise OperationalError("select", {}, Exception("server closed the connection unexpectedly"))
        return datetime(2024, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(lease, "database_now", now)
    held = HeldLease(engine, 1, holder="host:1:a", epoch=1, settings=Settings(), clock=clock)
    assert held.now().date() == datetime(2024, 1, 1, tzinfo=UTC).date()
