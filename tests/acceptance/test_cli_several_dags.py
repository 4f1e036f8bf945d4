"""`--treat-dag-id-as-regex` with real jobs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import Result

from backfill.config import Settings

Backfill = Callable[..., subprocess.CompletedProcess[str]]
Command = Callable[..., Result]

#: `sales_eu` has a date in the range, `sales_mars` none, `sales_uk` fails while there is no file `mended`.
DAG_FILE = """
from datetime import datetime
from pathlib import Path

from backfill import DAG, task

def make(dag_id, schedule, mended=None):
    with DAG(dag_id, schedule=schedule, start_date=datetime(2024, 1, 1)) as dag:

        @task
        def load():
            if mended and not Path(mended).exists():
                raise ValueError("not mended")

        load()
    return dag

made = [
    make("sales_us", "@daily"), make("sales_eu", "@daily"), make("sales_mars", "@yearly"),
    make("sales_uk", "@daily", {mended!r}), make("stock", "@daily"),
]
globals().update({{dag.dag_id: dag for dag in made}})
"""
ALL = ("run", "^sales_", "-s", "2024-02-01", "-e", "2024-02-02", "--treat-dag-id-as-regex")


@pytest.fixture(autouse=True)
def mended(settings: Settings, tmp_path: Path) -> Path:
    """Put the DAGs into their folder, and return the path at which one of them looks for a file."""
    settings.core.dags_folder.mkdir()
    (settings.core.dags_folder / "sales.py").write_text(DAG_FILE.format(mended=str(tmp_path / "mended")))
    return tmp_path / "mended"


def test_jobs_of_matching_dags_follow_one_another_with_workers_of_the_commands_own(
    backfill: Backfill, command: Command, mended: Path
) -> None:
    mended.touch()
    ran = backfill(*ALL, "--workers", "1", "-o", "json")
    assert ran.returncode == 0, ran.stderr
    reports = json.loads(ran.stdout)
    assert [(report["dag_id"], report["state"]) for report in reports] == [
        ("sales_eu", "success"),
        ("sales_uk", "success"),
        ("sales_us", "success"),
    ]
    assert "DAG 'sales_mars' with schedule '@yearly' has no run date" in ran.stderr
    assert all(before["end_date"] <= after["start_date"] for before, after in pairwise(reports))
    assert {row["dag_id"] for row in json.loads(command("list", "-o", "json").stdout)} == {
        "sales_eu",
        "sales_uk",
        "sales_us",
    }


def test_a_job_that_fails_stops_the_rest_unless_told_to_go_on(backfill: Backfill, command: Command) -> None:
    ran = backfill(*ALL, "-l", "-o", "json")
    assert ran.returncode == 1, ran.stderr
    assert [report["state"] for report in json.loads(ran.stdout)] == ["success", "failed"]
    assert "Not started because of that: sales_us" in ran.stderr
    ran = backfill(*ALL, "-l", "--continue-on-failures", "-o", "json")
    assert ran.returncode == 1, ran.stderr
    assert [report["state"] for report in json.loads(ran.stdout)] == ["success", "failed", "success"]
