"""`backfill clear`, in runs that real backfills and the test have left."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result
from sqlalchemy import Engine, insert, select

from backfill.config import Settings
from backfill.executors.environment import settings_environment
from backfill.models import dag_run, task_instance

Backfill = Callable[..., subprocess.CompletedProcess[str]]
Command = Callable[..., Result]

#: `check` fails while there is no file `mended`.
DAG_FILE = """
from datetime import datetime
from pathlib import Path

from backfill import DAG, task
from backfill.operators import EmptyOperator

with DAG("sales", schedule="@daily", start_date=datetime(2024, 1, 1)):
    opened = EmptyOperator(task_id="open").as_setup()
    closed = EmptyOperator(task_id="close").as_teardown(setups=opened)

    @task
    def check():
        if not Path({mended!r}).exists():
            raise ValueError("not mended")

    opened >> EmptyOperator(task_id="pull") >> check() >> EmptyOperator(task_id="load") >> closed
"""
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = ("-s", "2024-01-01", "-e", "2024-01-03")
STATES = {"open": "success", "pull": "success", "check": "failed", "load": "upstream_failed", "close": "success"}


@pytest.fixture(autouse=True)
def mended(settings: Settings, tmp_path: Path) -> Path:
    """Put the DAG into its folder, and return the path at which it looks for a file."""
    settings.core.dags_folder.mkdir()
    (settings.core.dags_folder / "sales.py").write_text(DAG_FILE.format(mended=str(tmp_path / "mended")))
    return tmp_path / "mended"


def plant(engine: Engine, day: int, states: dict[str, str], **values: object) -> None:
    """Leave a run that has ended, with task instances."""
    date = FIRST + timedelta(days=day)
    row = {
        "dag_id": "sales",
        "run_id": f"test__{date.isoformat()}",
        "logical_date": date,
        "data_interval_start": date,
        "data_interval_end": date + timedelta(days=1),
        "run_type": "manual",
        "state": "failed" if "failed" in states.values() else "success",
        **values,
    }
    with engine.begin() as tx:
        run_id = tx.execute(insert(dag_run).values(row).returning(dag_run.c.id)).scalar_one()
        common = {
            "dag_run_id": run_id,
            "dag_id": "sales",
            "run_id": row["run_id"],
            "try_number": 1,
            "queue": "backfill",
        }
        heart = {"pool": "default_pool", "heartbeat_at": datetime.now(UTC)}
        rows = [{**common, **heart, "task_id": task_id, "state": state} for task_id, state in states.items()]
        tx.execute(insert(task_instance), rows)


def states(engine: Engine) -> list[dict[str, str]]:
    """Return the states of task instances by task, run for run, with that of the run."""
    runs: dict[datetime, dict[str, str]] = {}
    joined = select(
        dag_run.c.logical_date, dag_run.c.state.label("run"), task_instance.c.task_id, task_instance.c.state
    )
    with engine.connect() as tx:
        for row in tx.execute(
            joined.join(task_instance, task_instance.c.dag_run_id == dag_run.c.id).order_by(dag_run.c.logical_date)
        ):
            runs.setdefault(row.logical_date, {"run": row.run})[row.task_id] = row.state
    return list(runs.values())


def test_a_failed_range_is_cleared_and_the_next_run_takes_what_was(
    backfill: Backfill, command: Command, mended: Path
) -> None:
    assert backfill("run", "sales", *DAYS, "-l", "--continue-on-failures").returncode == 1
    mended.touch()
    cleared = command("clear", "sales", *DAYS, "--only-failed", "-y", "-o", "json")
    assert cleared.exit_code == 0, cleared.stderr
    assert json.loads(cleared.stdout) == {
        "dag_id": "sales",
        "task_instances": 12,
        "runs": 3,
        "left_running": 0,
        "tasks": {"open": 3, "check": 3, "load": 3, "close": 3},
    }
    assert cleared.stderr == "This clears 12 task instances in 3 runs of DAG 'sales' from 2024-01-01 to 2024-01-03.\n"
    again = command("clear", "sales", *DAYS, "--only-failed", "-o", "json")
    assert (again.exit_code, json.loads(again.stdout)["task_instances"]) == (0, 0)
    ran = backfill("run", "sales", *DAYS, "-l", "-o", "json")
    assert ran.returncode == 0, ran.stderr
    tasks = json.loads(command("tasks", str(json.loads(ran.stdout)["job_id"]), "-o", "json").stdout)
    assert {row["try_number"] for row in tasks if row["task_id"] == "check"} == {2}
    assert {row["try_number"] for row in tasks if row["task_id"] == "pull"} == {1}


@pytest.mark.parametrize(
    ("flags", "cleared"),
    [
        ([], "open pull check load close"),
        (["-f"], "open check load close"),
        (["-t", "^check$"], "open check close"),
        (["-t", "^check$", "-d"], "open check load close"),
        (["-t", "^check$", "-u"], "open pull check close"),
        (["-t", "^pull$", "--only-failed"], ""),
        (["-t", "^open$"], "open close"),
        (["-t", "^close$"], "close"),
    ],
)
def test_each_flag_says_which_task_instances_are_meant(
    command: Command, engine: Engine, flags: list[str], cleared: str
) -> None:
    plant(engine, 0, STATES)
    ended = command("clear", "sales", "-s", "2024-01-01", "-y", *flags)
    assert ended.exit_code == 0, ended.stderr
    run = "queued" if cleared else "failed"
    assert states(engine) == [{"run": run} | STATES | dict.fromkeys(cleared.split(), "none")]


def test_what_runs_is_left_alone_and_said(command: Command, engine: Engine) -> None:
    plant(engine, 0, STATES | {"check": "running", "load": "none"}, state="running")
    ended = command("clear", "sales", "-s", "2024-01-01", "-y")
    assert ended.stdout == ("Cleared 3 task instances in 1 run of DAG 'sales'. 1 that runs is left alone.\n")
    assert states(engine) == [{"run": "running"} | dict.fromkeys(STATES, "none") | {"check": "running"}]


def test_nothing_to_clear_is_said_and_no_mistake(command: Command) -> None:
    ended = command("clear", "sales", *DAYS)
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert ended.stdout == "There is nothing to clear in DAG 'sales' from 2024-01-01 to 2024-01-03.\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["sales"], "No date is given; name the range with -s/--start-date and -e/--end-date."),
        (["sales", "-s", "2024-01-02", "-e", "2024-01-01"], "swap -s and -e."),
        (["slaes", *DAYS], "did you mean 'sales'?"),
        (["sales", *DAYS, "-t", "unload"], "No task of the DAG 'sales' matches 'unload'"),
        (["sales", *DAYS, "-t", "("], "'(' is no regular expression"),
        (["sales", *DAYS], "There is no terminal to answer that from; give -y to say yes."),
    ],
)
def test_wrong_use_clears_nothing(command: Command, engine: Engine, arguments: list[str], told: str) -> None:
    plant(engine, 0, STATES)
    ended = command("clear", *arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert told in ended.stderr
    assert states(engine) == [{"run": "failed"} | STATES]


def asked_on_a_terminal(settings: Settings, here: Path, answer: bytes, *arguments: str) -> tuple[int, str]:
    """Give `answer` when a command asks on its terminal; return its exit code and what it wrote until then."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "backfill", *arguments],
        env=settings_environment(settings, os.environ) | {"TERM": "xterm-256color", "COLUMNS": "200"},
        cwd=here,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        asked = b""
        while b"[y/N]" not in asked:
            asked += os.read(ours, 1000)
        os.write(ours, answer)
        with contextlib.suppress(OSError):  # the other end is closed
            while os.read(ours, 1000):
                pass
        code = process.wait(60)
    os.close(ours)
    return code, asked.decode()


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 5), (b"y\n", 0)])
def test_a_person_on_a_terminal_is_asked(
    settings: Settings, engine: Engine, tmp_path: Path, answer: bytes, code: int
) -> None:
    plant(engine, 0, STATES)
    ended, asked = asked_on_a_terminal(settings, tmp_path, answer, "clear", "sales", *DAYS)
    assert ended == code
    assert "This clears 5 task instances in 1 run of DAG 'sales' from 2024-01-01 to 2024-01-03." in asked
    [run] = states(engine)
    assert run == ({"run": "failed"} | STATES if code else {"run": "queued"} | dict.fromkeys(STATES, "none"))


def test_a_backfill_that_resets_asks_first_and_runs_everything_again(
    settings: Settings, command: Command, engine: Engine, mended: Path
) -> None:
    mended.touch()
    for day in range(3):
        plant(engine, day, STATES)
    reset = ("run", "sales", *DAYS, "-l", "--reset-dagruns")
    code, asked = asked_on_a_terminal(settings, mended.parent, b"n\n", *reset)
    assert code == 5
    assert "This clears 15 task instances in 3 runs of DAG 'sales' from 2024-01-01 to 2024-01-03. Go on? [y/N]" in asked
    assert states(engine) == [{"run": "failed"} | STATES] * 3
    assert json.loads(command("list", "-o", "json").stdout) == []
    code, _ = asked_on_a_terminal(settings, mended.parent, b"y\n", *reset)
    assert code == 0
    assert states(engine) == [{"run": "success"} | dict.fromkeys(STATES, "success")] * 3
    [job] = json.loads(command("list", "-o", "json").stdout)
    tasks = json.loads(command("tasks", str(job["job_id"]), "-o", "json").stdout)
    assert {row["try_number"] for row in tasks} == {2}
