"""A whole year of real data, and a worker killed in the middle of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import servers
import sqlalchemy as sa
from lifecycle_stage import Stage
from processes import Rows

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "flights.py"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_total_of_the_year_is_right_though_a_worker_was_killed_in_the_middle(
    stage: Stage, rows: Rows, database_url: str, databases: servers.Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = sa.make_url(database_url)
    warehouse = f"{url.database}_warehouse"
    monkeypatch.setenv(
        "WAREHOUSE_URL",
        url.set(drivername="postgresql", database=warehouse).render_as_string(hide_password=False),
    )
    killed, _other = stage.worker(task__heartbeat_timeout=10), stage.worker(task__heartbeat_timeout=10)
    run = stage.start(
        "run", str(EXAMPLE), "-s", "2013-01-01", "-e", "2013-12-31", "--workers", "0", task__heartbeat_timeout=10
    )
    try:
        stage.wait_until(lambda: rows.states()["success"] > 800, "a third of the year is done", timeout=400)
        killed.kill_all()
        assert run.end(timeout=600) == 0, run.told
        assert rows.states() == {"success": 365 * 7}
        engine = sa.create_engine(url.set(database=warehouse))
        with engine.connect() as connection:
            days, total = connection.execute(sa.text("select count(*), max(total) from running_total")).one()
        engine.dispose()
        assert (days, total) == (365, 336_776)
    finally:
        stage.close()
        databases.drop(warehouse)
