"""What a process of a worker has done before its first task."""

from __future__ import annotations

import logging
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from backfill.keys import TaskInstanceKey
from backfill.messages import Attempt
from backfill.store.claims import claim_if_queued
from backfill.store.database import create_engine
from backfill.store.direct import DirectEngine
from workers.events import EventPublisher
from workers.warm_up import warm_up

LAST_QUERY = sa.text(
    "select query from pg_stat_activity where application_name = 'warm' and datname = current_database()"
)


def test_the_first_claim_of_a_warm_process_is_planned_already(engine: sa.Engine, broker_url: str) -> None:
    own = create_engine(engine.url.render_as_string(hide_password=False), application_name="warm", pool_size=1)
    publisher = EventPublisher(broker_url)
    warm_up(own, publisher)
    with DirectEngine(own).begin() as tx:
        claim_if_queued(tx, [Attempt(1, TaskInstanceKey("d", "t", "r"), str(UUID(int=1)), 1)], hostname="h", pid=1)
        with engine.connect() as other:
            assert other.execute(LAST_QUERY).scalar_one().startswith("BEGIN; execute backfill_")
    publisher.close()
    own.dispose()


def test_servers_that_are_away_are_left_to_the_first_task(
    broker_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = create_engine(f"postgresql:///x?host={tmp_path}", application_name="warm")
    publisher = EventPublisher(broker_url)
    with caplog.at_level(logging.DEBUG, logger="workers.warm_up"):
        warm_up(nowhere, publisher)
    publisher.close()
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert "could not be warmed up" in record.message
