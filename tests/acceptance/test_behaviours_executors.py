"""Retries and routing with real executors (S1.6, S6.2)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from backfill.config import Settings

Backfill = Callable[..., subprocess.CompletedProcess[str]]

DAG_FILE = """
from datetime import datetime, timedelta
from backfill import DAG, task
from backfill.operators import BashOperator

with DAG("routed", schedule="@daily", start_date=datetime(2024, 1, 1)):
    here = BashOperator(task_id="here", bash_command="echo here", executor="local")
    there = BashOperator(task_id="there", bash_command="echo there", executor="celery")
    here >> there >> BashOperator(task_id="anywhere", bash_command="echo anywhere")

with DAG("failing", schedule="@daily", start_date=datetime(2024, 1, 1)):

    @task(retries=2, retry_delay=timedelta(0))
    def fails():
        raise ValueError("as always")

    fails()
"""


@pytest.fixture(autouse=True)
def dag_file(settings: Settings) -> None:
    settings.core.dags_folder.mkdir()
    (settings.core.dags_folder / "dags.py").write_text(DAG_FILE)


def rows(engine: sa.Engine, columns: str) -> list[tuple[object, ...]]:
    with engine.connect() as tx:
        return [tuple(row) for row in tx.execute(sa.text(f"select {columns} from task_instance order by id"))]


@pytest.mark.parametrize(("flags", "tries"), [((), 3), (("--disable-retry",), 1)])
def test_disable_retry_on_and_off_with_a_real_executor(
    backfill: Backfill, engine: sa.Engine, flags: tuple[str, ...], tries: int
) -> None:
    ran = backfill("run", "failing", "-s", "2024-01-01", "-l", *flags)
    assert ran.returncode == 1, ran.stderr
    assert rows(engine, "state, try_number") == [("failed", tries)]


def test_tasks_are_routed_to_several_executors(backfill: Backfill, engine: sa.Engine) -> None:
    ran = backfill("run", "routed", "-s", "2024-01-01", "--workers", "1")
    assert ran.returncode == 0, ran.stderr
    expected = [("here", "success", "local"), ("there", "success", "celery"), ("anywhere", "success", "celery")]
    assert rows(engine, "task_id, state, executor") == expected
