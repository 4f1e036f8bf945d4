"""Medians of what ran before, and transactions that cannot write."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa
from planted import DAY, FIRST_DATE, plant_run, plant_task_instance
from sqlalchemy import Connection, Engine

from backfill.models import task_attempt
from backfill.store.database import read_only
from backfill.store.history import median_durations
from backfill.store.previous import select_previous_of_dates, select_previous_runs


def plant_attempt(tx: Connection, day: int, seconds: int, outcome: str = "success") -> None:
    planted = plant_task_instance(tx, plant_run(tx, day, state="success"), state="success")
    row = {
        "attempt_id": planted.attempt_id,
        "task_instance_id": planted.id,
        "try_number": 1,
        "start_date": FIRST_DATE,
        "end_date": FIRST_DATE + timedelta(seconds=seconds),
        "outcome": outcome,
    }
    tx.execute(sa.insert(task_attempt).values(row))


def test_the_median_is_that_of_successful_attempts_in_the_latest_runs(tx: Connection) -> None:
    for day, seconds in enumerate((1000, 2, 4, 9)):
        plant_attempt(tx, day, seconds)
    plant_attempt(tx, 4, 5000, outcome="failed")
    assert median_durations(tx, "sales", runs=4) == {"load": 4.0}
    assert median_durations(tx, "others") == {}


def test_the_run_before_a_date_is_that_before_the_run_of_the_date(tx: Connection) -> None:
    earlier, later = (plant_run(tx, day, state="success") for day in (0, 3))
    plant_task_instance(tx, earlier, state="failed")
    by_run = select_previous_runs(tx, "sales", [later], ["load"])[later]
    by_date = select_previous_of_dates(tx, "sales", [FIRST_DATE, FIRST_DATE + 3 * DAY], ["load"])
    assert by_date == {FIRST_DATE + 3 * DAY: by_run}
    assert by_run.states == {"load": ("failed",)}


def test_a_transaction_that_only_reads_cannot_write(engine: Engine) -> None:
    with engine.connect() as connection:
        read_only(connection)
        with pytest.raises(sa.exc.DBAPIError, match="read-only transaction"):
            connection.execute(sa.text("delete from job"))
