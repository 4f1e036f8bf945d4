"""`backfill why`, as it is typed and printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from click.testing import Result
from processes import Rows

from backfill.cli.completion import complete_job
from backfill.config import Settings
from backfill.executors.environment import settings_environment

Command = Callable[..., Result]

DAG_FILE = """
from datetime import datetime
from backfill import DAG
from backfill.operators import BashOperator

with DAG("sales", schedule="@daily", start_date=datetime(2024, 1, 1)):
    BashOperator(task_id="pull", bash_command="true") >> BashOperator(task_id="load", bash_command="true")
"""


@pytest.fixture(autouse=True)
def job_id(settings: Settings, command: Command) -> str:
    """Submit a job of two dates that nobody drives, and return its number."""
    settings.core.dags_folder.mkdir()
    (settings.core.dags_folder / "sales.py").write_text(DAG_FILE)
    submitted = command("submit", "sales", "-s", "2024-01-01", "-e", "2024-01-02")
    assert submitted.exit_code == 0, submitted.stderr
    return submitted.stdout.strip()


def admit(rows: Rows, job_id: str) -> None:
    """Bring about the first date by hand: `pull` waits for a worker, `load` for `pull`."""
    rows.write("update job set state = 'running', start_date = now() where id = :id", id=job_id)
    rows.write(
        """
        insert into dag_run (dag_id, run_id, logical_date, data_interval_start, data_interval_end, run_type, state, job_id, start_date)
        select dag_id, 'backfill__2024-01-01T00:00:00+00:00', logical_date, logical_date, logical_date, 'backfill', 'running', job_id, now()
        from job_run_date where job_id = :id and ordinal = 0
        """,
        id=job_id,
    )
    rows.write(
        "update job_run_date set progress = 'admitted', dag_run_id = (select id from dag_run) where ordinal = 0 and job_id = :id",
        id=job_id,
    )
    for task_id, state in (("pull", "queued"), ("load", "none")):
        rows.write(
            """
            insert into task_instance (dag_run_id, dag_id, run_id, task_id, state, pool, queue, executor, queued_at,
                                       queued_by_job_id, external_executor_id)
            select id, dag_id, run_id, :task_id, :state, 'default_pool', 'backfill', 'celery', now(), :id, gen_random_uuid()
            from dag_run
            """,
            task_id=task_id,
            state=state,
            id=job_id,
        )


def test_a_job_that_nobody_has_taken_says_so(command: Command, job_id: str) -> None:
    told = command("why", job_id)
    assert told.exit_code == 0, told.stderr
    assert told.stdout == (
        f"Job {job_id} of sales waits for a coordinator to take it; `backfill coordinator` starts one.\n"
        "No task instance is unfinished in the runs that are admitted.\n"
        "\n"
        "Dates: 0 of 2 finished, 0 running, 2 not admitted.\n"
    )


def test_a_task_instance_is_explained_in_sentences(command: Command, job_id: str, rows: Rows) -> None:
    admit(rows, job_id)
    assert command("why", job_id, "load", "2024-01-01").stdout == (
        "load of 2024-01-01 waits for pull (queued), by its trigger rule all_success.\n"
        f"Job {job_id} of sales is running, and nobody drives it; `backfill resume {job_id}` goes on with it, "
        "as does a `backfill coordinator` by itself.\n"
        "No worker listens to queue 'backfill'; start one with `backfill worker`.\n"
    )
    told = command("why", job_id, "pull", "2024-01-01T02:00+02:00").stdout
    assert "and waits for a worker of queue 'backfill'." in told
    assert "No worker listens to queue 'backfill'; start one with `backfill worker`." in told


def test_a_job_tells_what_holds_how_many(command: Command, job_id: str, rows: Rows) -> None:
    admit(rows, job_id)
    told = command("why", job_id).stdout
    assert "No worker listens to queue 'backfill'; start one with `backfill worker`.\n" in told
    assert "\n  1  is queued, waiting for a worker: sales.pull of 2024-01-01, for " in told
    assert "\n  1  is waiting for other task instances of the same run: load of 2024-01-01" in told


def test_a_date_alone_tells_of_all_tasks_of_its_run_that_are_not_finished(
    command: Command, job_id: str, rows: Rows
) -> None:
    admit(rows, job_id)
    told = command("why", job_id, "2024-01-01").stdout.splitlines()
    assert told[0] == "The run of 2024-01-01 is running, 0 of 2 task instances finished: 1 none, 1 queued."
    assert told[1].startswith(f"Job {job_id} of sales is running, and nobody drives it; `backfill resume {job_id}`")
    assert told[3].startswith("  pull of 2024-01-01 is queued since ")
    assert told[4] == "  load of 2024-01-01 waits for pull (queued), by its trigger rule all_success."
    next_one = command("why", job_id, "2024-01-02").stdout
    assert next_one.startswith("The run of 2024-01-02 has not begun: its date is not admitted, and it is the next.\n")
    shown = json.loads(command("why", job_id, "2024-01-01", "-o", "json").stdout)
    assert keys(shown) == {"job_id", "dag_id", "run_id", "logical_date", "state", "answer", "remarks", "tasks"}
    assert [(task["task_id"], task["held_by"]) for task in shown["tasks"]] == [("pull", "queued"), ("load", "upstream")]


def keys(shown: dict[str, Any]) -> set[str]:
    return set(shown)


def test_the_shapes_for_programs_have_their_keys(command: Command, job_id: str, rows: Rows) -> None:
    admit(rows, job_id)
    of_one = json.loads(command("why", job_id, "load", "2024-01-01", "-o", "json").stdout)
    assert (of_one["held_by"], of_one["line"], of_one["state"]) == ("upstream", 5, "none")
    assert of_one["waits_for"] == [
        {"task_id": "pull", "logical_date": "2024-01-01T00:00:00+00:00", "map_index": -1, "state": "queued"}
    ]
    assert keys(of_one) == {
        "job_id", "dag_id", "task_id", "run_id", "logical_date", "map_index", "state", "try_number", "held_by", "answer",
        "remarks", "line", "limits", "waits_for", "occupied_by", "due", "rank",
    }  # fmt: skip
    of_job = yaml.safe_load(command("why", job_id, "-o", "yaml").stdout)
    assert keys(of_job) == {"job_id", "dag_id", "state", "task_id", "sentences", "reasons", "dates"}
    assert [reason["held_by"] for reason in of_job["reasons"]] == ["queued", "upstream"]
    plain = command("why", job_id, "load", "2024-01-02", "-o", "plain").stdout
    assert "held_by\tnot_admitted\n" in plain


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["lod", "2024-01-01"], "has no task 'lod'; did you mean 'load'?"),
        (["lod"], "has no task 'lod'; did you mean 'load'?"),
        (["load", "2024-01-09"], "has no run date 2024-01-09; its dates are those from 2024-01-01 to 2024-01-02."),
        (["load", "2024-01-01T06:00"], "on that day it has 2024-01-01T00:00:00+00:00."),
        (["load", "soon"], "'soon' is no date; write it as 2024-01-31"),
        (
            ["load", "--map-index", "1"],
            "--map-index 1 needs a task and a date: backfill why 1 load DATE --map-index 1.",
        ),
        (["2024-01-01", "--map-index", "1"], "needs a task and a date: backfill why 1 TASK DATE --map-index 1."),
        (["2024-01-09"], "has no run date 2024-01-09; its dates are those from 2024-01-01 to 2024-01-02."),
        (["2024-01-32"], "'2024-01-32' is no date; write it as 2024-01-31"),
    ],
)
def test_what_is_not_there_is_wrong_use(command: Command, job_id: str, arguments: list[str], told: str) -> None:
    ended = command("why", job_id, *arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert told in ended.stderr
    assert command("why", "99").stderr == "Error: There is no job 99; `backfill list` shows those that exist.\n"


def test_a_broker_that_is_away_is_told_and_the_rest_is_answered(command: Command, job_id: str, rows: Rows) -> None:
    admit(rows, job_id)
    told = command("why", job_id, "load", "2024-01-01", celery__broker_url="redis://127.0.0.1:1/0")
    assert told.exit_code == 0
    assert told.stdout.startswith("load of 2024-01-01 waits for pull (queued)")
    assert "The broker at redis://127.0.0.1:1/0 does not answer" in told.stdout


def test_the_list_of_jobs_fits_eighty_columns(command: Command, job_id: str, rows: Rows) -> None:
    rows.write("update job set state = 'deadlocked', start_date = now() - interval '2 days', end_date = now()")
    listed = command("list").stdout
    assert max(map(len, listed.rstrip().splitlines())) <= 80
    assert listed.splitlines()[2].split()[:4] == [job_id, "sales", "deadlocked", "0/2"]
    assert listed.rstrip().endswith("2 d 0 h")
    plain = command("list", "-o", "plain").stdout.splitlines()[0].split("\t")
    assert plain == [
        "job_id", "dag_id", "state", "runs", "runs_finished", "runs_failed", "created_at", "start_date", "end_date"
    ]  # fmt: skip


def test_jobs_are_completed_from_the_database(settings: Settings, job_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings_environment(settings, {}).items():
        monkeypatch.setenv(name, value)
    assert [(item.value, item.help) for item in complete_job("")] == [(job_id, "sales, queued")]
    assert complete_job("7") == []
