"""DAGs with subdags from the command line, with real tasks on real executors (S13)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from lifecycle_stage import Stage
from processes import Rows

from backfill.config import Settings

Backfill = Callable[..., subprocess.CompletedProcess[str]]
Command = Callable[..., Result]
Service = Callable[..., AbstractContextManager[Any]]

#: `first` and `second` write into the journal what they see; `second` of the subdag fails on 2 January while there is no
#: file `mended`, and `first` waits on any day while there is a file `hold`. `sales.part` and `sales.part.deep` are subdags.
DAG_FILE = """
import json
import os
import time
from datetime import datetime
from pathlib import Path

from backfill import DAG, get_current_context, task
from backfill.operators import EmptyOperator, SubDagOperator

HERE = Path({here!r})
START = datetime(2024, 1, 1)


def note(event, name, day):
    with open(HERE / "journal", "ab", buffering=0) as journal:
        journal.write(json.dumps([event, name, day, os.getpid()]).encode() + b"\\n")


def deeper():
    with DAG("sales.part.deep", start_date=START) as dag:

        @task
        def third(day):
            note("end", get_current_context()["dag"].dag_id + ".third", day)

        third("{{{{ ds }}}}")
    return dag


def part():
    with DAG("sales.part", start_date=START, params={{"shop": "all"}}) as dag:

        @task
        def first(day, conf, shop):
            note("start", "first", day)
            while (HERE / "hold").exists():
                time.sleep(0.02)
            note("end", f"first of {{conf}} and {{shop}}", day)
            return [day]

        @task
        def second(days):
            context = get_current_context()
            if days == ["2024-01-02"] and not (HERE / "mended").exists():
                raise ValueError("not mended")
            note("end", f"second of {{context['dag'].dag_id}}", days[0])

        seen = first("{{{{ ds }}}}", "{{{{ dag_run.conf.n }}}}", "{{{{ params.shop }}}}")
        second(seen) >> SubDagOperator(task_id="deep", subdag=deeper())
    return dag


with DAG("sales", schedule="@daily", start_date=START) as dag:
    EmptyOperator(task_id="open") >> SubDagOperator(task_id="part", subdag=part()) >> EmptyOperator(task_id="close")
"""
TWO_DAYS = ("-s", "2024-01-01", "-e", "2024-01-02")
ORDER = ["open", "first", "second", "third", "deep", "part", "close"]


@pytest.fixture(autouse=True)
def here(settings: Settings, tmp_path: Path) -> Path:
    """Put the DAG into its folder, and return the folder that it looks at."""
    settings.core.dags_folder.mkdir(exist_ok=True)
    (settings.core.dags_folder / "sales.py").write_text(DAG_FILE.format(here=str(tmp_path)))
    return tmp_path


def ends(here: Path) -> set[tuple[str, str]]:
    lines = (here / "journal").read_text().splitlines()
    return {(name, day) for event, name, day, _ in map(json.loads, lines) if event == "end"}


def expected(*days: int, conf: str = "5", shop: str = "all") -> set[tuple[str, str]]:
    names = (f"first of {conf} and {shop}", "second of sales.part", "sales.part.deep.third")
    return {(name, f"2024-01-{day:02}") for name in names for day in days}


def test_local_processes_run_the_tasks_of_subdags(backfill: Backfill, command: Command, here: Path) -> None:
    (here / "mended").touch()
    ran = backfill("run", "sales", *TWO_DAYS, "-l", "-o", "json", "-c", '{"n": 5}')
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert (report["runs"]["total"], report["tasks"]["total"], report["tasks"]["success"]) == (2, 14, 14)
    assert ends(here) == expected(1, 2)
    rows = json.loads(command("tasks", str(report["job_id"]), "-o", "json").stdout)
    assert [row["task_id"] for row in rows] == ORDER * 2
    assert {row["dag_id"] for row in rows} == {"sales", "sales.part", "sales.part.deep"}
    shown = json.loads(command("status", str(report["job_id"]), "-o", "json").stdout)
    assert (shown["runs"], shown["tasks"]) == (report["runs"], report["tasks"])
    assert "sales.part.deep" in command("tasks", str(report["job_id"])).stdout
    asked_by_name(command, str(report["job_id"]))


def asked_by_name(command: Command, job_id: str) -> None:
    """Logs and reasons are asked for by the names of tasks in subdags; what stands for a subdag has no log."""
    shown = json.loads(command("logs", job_id, "part.deep.third", "2024-01-02", "-o", "json").stdout)
    assert (shown["dag_id"], shown["task_id"], shown["state"]) == ("sales.part.deep", "third", "success")
    refused = command("logs", job_id, "part", "2024-01-01", "--follow")
    told = "part of 2024-01-01 stands for a subdag and has no log; its tasks have: part.first, part.second, part.deep."
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert told in refused.stderr
    answer = json.loads(command("why", job_id, "part.second", "2024-01-01", "-o", "json").stdout)
    assert (answer["dag_id"], answer["task_id"], answer["held_by"]) == ("sales.part", "second", "finished")
    assert json.loads(command("why", job_id, "third", "-o", "json").stdout)["task_id"] == "part.deep.third"


@pytest.mark.parametrize("shipping", [[], pytest.param(["-x"], marks=pytest.mark.slow)])
def test_celery_workers_run_the_tasks_of_subdags(
    backfill: Backfill, service: Service, here: Path, shipping: list[str]
) -> None:
    (here / "mended").touch()
    with service("worker", "-c", "2"):
        ran = backfill("run", "sales", *TWO_DAYS, *shipping, "--workers", "0", "-c", '{"n": 5, "shop": "one"}')
    assert ran.returncode == 0, ran.stderr
    assert ends(here) == expected(1, 2, shop="one")


def test_a_failure_in_a_subdag_is_told_with_its_dag_and_mended_by_a_clear_of_the_subdag(
    backfill: Backfill, command: Command, here: Path
) -> None:
    ran = backfill("run", "sales", *TWO_DAYS, "-l", "-o", "json", "-c", '{"n": 5}')
    assert ran.returncode == 1, ran.stderr
    report = json.loads(ran.stdout)
    told = [(error["dag_id"], error["task_id"], error["kind"]) for error in report["errors"]]
    assert told == [
        ("sales.part", "second", "failed"),
        ("sales.part", "deep", "upstream_failed"),
        ("sales", "part", "failed"),
        ("sales", "close", "upstream_failed"),
    ]
    assert report["tasks"] == {
        "total": 13, "success": 9, "failed": 2, "skipped": 0, "upstream_failed": 2, "running": 0, "waiting": 0
    }  # fmt: skip
    (here / "mended").touch()
    cleared = command("clear", "sales.part", *TWO_DAYS, "-f", "-y", "-o", "json")
    assert json.loads(cleared.stdout)["tasks"] == {"second": 1, "deep": 1, "sales.close": 1, "sales.part": 1}
    again = backfill("run", "sales", *TWO_DAYS, "-l")
    assert again.returncode == 0, again.stderr
    assert ends(here) == expected(1, 2)


def test_a_subdag_as_target_runs_by_itself(backfill: Backfill, command: Command, here: Path) -> None:
    (here / "mended").touch()
    ran = backfill("run", "sales.part", *TWO_DAYS, "-l", "-o", "json", "-c", '{"n": 5}')
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert (report["dag_id"], report["runs"]["total"], report["tasks"]["total"]) == ("sales.part", 2, 8)
    assert ends(here) == expected(1, 2)
    rows = json.loads(command("tasks", str(report["job_id"]), "-o", "json").stdout)
    assert {row["dag_id"] for row in rows} == {"sales.part", "sales.part.deep"}


def test_a_plan_and_a_dry_run_show_the_tasks_of_subdags(command: Command, here: Path) -> None:
    plan = json.loads(command("plan", "sales", *TWO_DAYS, "-o", "json").stdout)
    assert plan["tasks"]["run"] == 14
    assert {row["dag_id"] for row in plan["task_instances"]} == {"sales", "sales.part", "sales.part.deep"}
    dry = command("run", "sales", *TWO_DAYS, "-n", "-o", "json", "-c", '{"n": 5}')
    assert dry.exit_code == 0, dry.stderr
    templates = {(row["dag_id"], row["task_id"]): row for row in json.loads(dry.stdout)["templates"]["tasks"]}
    assert templates["sales.part", "first"]["fields"]["op_args"] == ["2024-01-01", "5", "all"]
    assert "sales.part.first" in command("run", "sales", *TWO_DAYS, "-n", "-c", '{"n": 5}').stdout
    assert not (here / "journal").exists()


def test_a_coordinator_that_is_killed_while_a_subdag_runs_is_followed_by_another(stage: Stage, rows: Rows) -> None:
    (stage.settings.core.dags_folder / "sales.py").write_text(DAG_FILE.format(here=str(stage.here)))
    (stage.here / "mended").touch()
    stage.hold()
    stage.worker(2)
    run = stage.run(2, "-c", '{"n": 5}')
    stage.wait_for_starts(2)
    run.kill_all()
    stage.let_go()
    resumed = stage.start("resume", str(rows.job.id))
    assert resumed.end() == 0, resumed.told
    assert stage.count("start") == {("first", "2024-01-01"): 1, ("first", "2024-01-02"): 1}
    assert ends(stage.here) == expected(1, 2)
    assert rows.states() == {"success": 14}
