"""Commands in this process, on a database and a folder of DAGs that examples share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from backfill.cli.main import cli
from backfill.config import Settings
from backfill.executors.environment import settings_environment

DAGS = """
from datetime import datetime
from backfill import DAG, Param
from backfill.operators import EmptyOperator

START = datetime(2024, 1, 1)
with DAG("sales", schedule="@daily", start_date=START, params={"region": Param("eu", type="string"), "free": 1}):
    EmptyOperator(task_id="pull") >> EmptyOperator(task_id="a" * 60 + "!".replace("!", "b"))
with DAG("none", schedule=None, start_date=START):
    EmptyOperator(task_id="only")
with DAG("hourly", schedule="0 * * * *", start_date=START):
    EmptyOperator(task_id="only", depends_on_past=True)
"""

Command = Callable[..., Result]


@pytest.fixture
def folder(settings: Settings) -> Path:
    settings.core.dags_folder.mkdir()
    (settings.core.dags_folder / "dags.py").write_text(DAGS)
    return settings.core.dags_folder


@pytest.fixture
def command(settings: Settings, folder: Path, engine: sa.Engine) -> Iterator[Command]:
    """Give a function that runs a command, and removes the job that it made."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    environment = settings_environment(settings, {})

    def run(*arguments: str) -> Result:
        ended = CliRunner().invoke(cli, arguments, prog_name="backfill", env=environment)
        with engine.begin() as connection:
            connection.execute(sa.text("truncate job, dag_run cascade"))
        return ended

    yield run
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
