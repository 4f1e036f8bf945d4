"""Backfills from the command line, with real tasks on real executors."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from pages import answer, asked

from backfill.config import Settings
from backfill.coordinator.broker import living_workers
from backfill.executors.environment import settings_environment

Backfill = Callable[..., subprocess.CompletedProcess[str]]
Service = Callable[..., AbstractContextManager[Any]]
Command = Callable[..., Result]
WaitUntil = Callable[..., None]

#: `check` fails on 2 January while there is no file `mended`, and waits on any day while there is a file `hold`.
DAG_FILE = """
import time
from datetime import datetime
from pathlib import Path

from backfill import DAG, task
from backfill.operators import EmptyOperator

HERE = Path({here!r})

with DAG("sales", schedule="@daily", start_date=datetime(2024, 1, 1)):

    @task
    def check(day):
        (HERE / f"seen_{{day}}").touch()
        while (HERE / "hold").exists():
            time.sleep(0.05)
        if day == "2024-01-02" and not (HERE / "mended").exists():
            raise ValueError(f"3 rows where 900 were expected on {{day}}")

    @task
    def load():
        pass

    EmptyOperator(task_id="start") >> check("{{{{ ds }}}}") >> load()
"""
THREE_DAYS = ("run", "sales", "-s", "2024-01-01", "-e", "2024-01-03")
FIRST_DAY = ("run", "sales", "-s", "2024-01-01")


@pytest.fixture(autouse=True)
def here(settings: Settings, tmp_path: Path) -> Path:
    """Put the DAG into its folder, and return the folder that it looks at."""
    settings.core.dags_folder.mkdir()
    (settings.core.dags_folder / "sales.py").write_text(DAG_FILE.format(here=str(tmp_path)))
    return tmp_path


def test_a_backfill_that_goes_well_ends_with_its_report(backfill: Backfill, command: Command, here: Path) -> None:
    (here / "mended").touch()
    ran = backfill(*THREE_DAYS, "-l", "-o", "json")
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert (report["dag_id"], report["state"], report["errors"]) == ("sales", "success", [])
    assert report["runs"] == {"total": 3, "finished": 3, "success": 3, "failed": 0, "running": 0}
    assert (report["tasks"]["total"], report["tasks"]["success"]) == (9, 9)
    assert re.search(r"^runs \d of 3 \| waiting \d", ran.stderr, re.MULTILINE)
    assert "\x1b" not in ran.stderr + ran.stdout

    job = str(report["job_id"])
    shown = json.loads(command("status", job, "-o", "json").stdout)
    assert {key: shown[key] for key in ("state", "runs", "tasks")} == {
        key: report[key] for key in ("state", "runs", "tasks")
    }
    assert [row["job_id"] for row in json.loads(command("list", "-o", "json").stdout)] == [report["job_id"]]
    tasks = json.loads(command("tasks", job, "-o", "json").stdout)
    assert [(row["task_id"], row["state"]) for row in tasks[:3]] == [
        ("start", "success"),
        ("check", "success"),
        ("load", "success"),
    ]
    assert tasks[1]["run_id"] == "backfill__2024-01-01T00:00:00+00:00"
    assert command("status", job, "--watch").exit_code == 0


def test_failures_are_told_as_they_happen_and_summed_up_with_their_consequences(
    backfill: Backfill, command: Command
) -> None:
    ran = backfill(*THREE_DAYS, "-l", "--continue-on-failures")
    assert ran.returncode == 1, ran.stderr
    assert "sales.check 2024-01-02 failed (try 1): ValueError: 3 rows where 900 were expected" in ran.stderr
    summary = [" ".join(line.split()) for line in ran.stdout.splitlines()]
    assert re.fullmatch(r"Job \d+ of sales: failed after .*", summary[0])
    causes, consequences = summary.index("Failed (1)"), summary.index("Not run because of that (1)")
    assert causes < consequences
    assert summary[causes + 3].startswith("check 2024-01-02 1 ValueError: 3 rows where 900 were expected")
    assert summary[consequences + 3] == "load 2024-01-02"
    job = re.findall(r"Job (\d+)", ran.stdout)[0]
    failed = command("tasks", job, "--state", "failed", "-o", "plain").stdout.splitlines()
    assert [line.split("\t")[0] for line in failed] == ["task_id", "check"]
    assert command("status", job, "--watch").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["run", "slaes", "-s", "2024-01-01"], 2, "did you mean 'sales'?"),
        ([*FIRST_DAY, "--pool", "nowhere"], 2, "the pool 'nowhere', which does not exist"),
        ([*FIRST_DAY, "-t", "unload"], 2, "unload"),
        (["run", "sales", "-s", "2999-01-01"], 5, "is left to run"),
    ],
)
def test_a_refused_backfill_is_one_sentence_and_leaves_no_job(
    command: Command, arguments: list[str], code: int, told: str
) -> None:
    ran = command(*arguments, "-l")
    assert (ran.exit_code, ran.stdout) == (code, "")
    assert told in ran.stderr
    assert ran.stderr.startswith("Error: ")
    assert json.loads(command("list", "-o", "json").stdout) == []


def test_with_celery_a_worker_is_started_and_ends_with_the_command(
    backfill: Backfill, settings: Settings, here: Path
) -> None:
    (here / "mended").touch()
    ran = backfill(*THREE_DAYS, "--workers", "1", "-o", "json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["tasks"]["success"] == 9
    assert living_workers(settings.celery.broker_url) == []


def test_a_submitted_job_is_run_by_a_coordinator_and_a_worker(command: Command, service: Service, here: Path) -> None:
    (here / "mended").touch()
    submitted = command("submit", "sales", "-s", "2024-01-01", "-e", "2024-01-03")
    job = submitted.stdout.strip()
    assert command(*FIRST_DAY, "-l").exit_code == 5  # the submitted job owns the date
    with service("coordinator"), service("worker", "-c", "1"):
        watched = command("status", job, "--watch", "-o", "json")
    assert watched.exit_code == 0, watched.stderr
    assert json.loads(watched.stdout)["state"] == "success"


def test_flower_shows_the_worker_and_task_instances_by_their_names(
    backfill: Backfill, service: Service, settings: Settings, here: Path, port: int, wait_until: WaitUntil
) -> None:
    (here / "mended").touch()
    login = "ann:deep"

    def shown(path: str) -> str:
        return answer(port, path, login=login)[1]

    with (
        service("flower", flower__port=port, flower__user="ann", flower__password="deep"),
        service("worker", "-c", "1"),
    ):
        wait_until(lambda: asked(port, "/healthcheck"), "Flower answers")
        wait_until(lambda: "backfill-" in shown("/workers"), "Flower shows the worker")
        # workers tell what they do while somebody watches; Flower asks them to every five seconds
        ask = [sys.executable, "-m", "celery", "-b", settings.celery.broker_url, "control", "enable_events"]
        wait_until(lambda: subprocess.run(ask, capture_output=True, check=False).returncode == 0, "the worker tells")
        assert backfill(*THREE_DAYS).returncode == 0
        wait_until(lambda: shown("/api/tasks").count('"name": "sales.check"') == 3, "Flower shows the task instances")
        tasks = json.loads(shown("/api/tasks")).values()
        assert {"2024-01-02" in task["kwargs"] for task in tasks if task["name"] == "sales.check"} == {True, False}


def test_an_interrupt_leaves_the_job_resumable(
    backfill: Backfill, command: Command, service: Service, here: Path, wait_until: WaitUntil
) -> None:
    (here / "hold").touch()
    with service(*FIRST_DAY, "-l") as run:
        wait_until((here / "seen_2024-01-01").exists, "the task runs")
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(60) == 130
    *_, last = run.told.splitlines()
    job = re.fullmatch(r"Job (\d+) can be resumed: backfill resume \1", last)
    assert job is not None, run.told
    assert json.loads(command("status", job[1], "-o", "json").stdout)["state"] == "paused"
    (here / "hold").unlink()
    resumed = backfill("resume", job[1], "-o", "json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["tasks"]["success"] == 3
    assert command("resume", job[1]).exit_code == 5


def on_a_terminal(settings: Settings, here: Path, *arguments: str, **environment: str) -> str:
    """Return what a command writes to the terminal that it runs on."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "backfill", *arguments],
        env=settings_environment(settings, os.environ) | {"TERM": "xterm-256color", "COLUMNS": "100"} | environment,
        cwd=here,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        written = b""
        while piece := read_from(ours):
            written += piece
    os.close(ours)
    assert process.returncode == 1
    return written.decode()


def read_from(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""


def test_a_terminal_gets_bars_that_are_redrawn_and_colour(settings: Settings, here: Path) -> None:
    written = on_a_terminal(settings, here, *THREE_DAYS, "-l")
    assert "\x1b[2K" in written  # lines are erased and drawn anew
    assert "━" in written
    assert re.search(r"\x1b\[[0-9;]*31[0-9;]*m[^\x1b]*failed", written)  # failures are red


def test_no_color_takes_colour_and_redrawing_away(settings: Settings, here: Path) -> None:
    written = on_a_terminal(settings, here, *THREE_DAYS, "-l", NO_COLOR="1")
    assert "\x1b" not in written
    assert re.search(r"runs \d of 3 \|", written)
