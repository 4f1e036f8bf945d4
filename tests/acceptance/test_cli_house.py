"""Housekeeping commands against real servers."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from click.testing import Result

from backfill.config import Settings
from backfill.migrations import HEAD

Command = Callable[..., Result]

DAG_FILE = """
from datetime import datetime
from backfill import DAG
from backfill.operators import EmptyOperator

with DAG("sales", schedule="@daily", start_date=datetime(2024, 1, 1), tags=["money"]):
    EmptyOperator(task_id="pull") >> EmptyOperator(task_id="load", retries=3)
"""


@pytest.fixture
def nobody() -> str:
    """Return the address of a port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def test_pools_are_made_changed_listed_and_deleted(command: Command) -> None:
    made = command("pools", "set", "small", "3", "--description", "for the old database", "-o", "json")
    assert json.loads(made.stdout) == [
        {
            "pool": "small",
            "slots": 3,
            "description": "for the old database",
            "queued_slots": 0,
            "running_slots": 0,
            "free_slots": 3,
        }
    ]
    assert command("pools", "set", "small", "-1").exit_code == 0
    listed = command("pools", "list", "-o", "plain")
    assert listed.stdout.splitlines()[2] == "small\t-1\t0\t0\t\tfor the old database"
    assert command("pools", "delete", "small").exit_code == 0
    assert "small" not in command("pools", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["pools", "set", "small", "-2"], 2, "A pool cannot have -2 slots; give a number from 0, or -1 for no limit."),
        (["pools", "delete", "small"], 2, "There is no pool 'small'; `backfill pools list` shows those that exist."),
        (["status", "5"], 2, "There is no job 5; `backfill list` shows those that exist."),
        (["tasks", "5"], 2, "There is no job 5; `backfill list` shows those that exist."),
        (["resume", "5"], 2, "There is no job 5; `backfill list` shows those that exist."),
    ],
)
def test_what_does_not_exist_or_fit_is_one_sentence(
    command: Command, arguments: list[str], code: int, told: str
) -> None:
    ended = command(*arguments)
    assert (ended.exit_code, ended.stdout, ended.stderr) == (code, "", f"Error: {told}\n")


def test_the_default_pool_stays(command: Command) -> None:
    assert command("pools", "delete", "default_pool").exit_code == 5


def test_without_jobs_the_list_is_empty(command: Command) -> None:
    assert command("list", "-o", "json").stdout == "[]\n"
    assert command("list").stderr == "There are no jobs yet.\n"


def test_dags_are_listed_with_those_that_cannot_be_loaded_and_shown(command: Command, settings: Settings) -> None:
    folder = settings.core.dags_folder
    folder.mkdir()
    (folder / "sales.py").write_text(DAG_FILE)
    (folder / "broken.py").write_text("from backfill import dag\nx = (\n")
    listed = command("dags", "list", "-o", "json")
    assert [(row["dag_id"], row["tasks"], row["tags"]) for row in json.loads(listed.stdout)] == [
        ("sales", 2, ["money"])
    ]
    assert f"Warning: The DAG file {folder / 'broken.py'}, line 2 cannot be loaded" in listed.stderr
    shown = json.loads(command("dags", "show", "sales", "-o", "json").stdout)
    assert [(task["task_id"], task["upstream"], task["retries"]) for task in shown["tasks"]] == [
        ("pull", [], 0),
        ("load", ["pull"], 3),
    ]
    missed = command("dags", "show", "sale")
    assert missed.exit_code == 2
    assert "did you mean 'sales'?" in missed.stderr


def test_the_schema_is_checked_and_upgraded(command: Command, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("drop schema public cascade"))
        connection.execute(sa.text("create schema public"))
    for arguments in (["db", "check"], ["list"]):
        refused = command(*arguments)
        assert refused.exit_code == 2
        assert refused.stderr.endswith(f"has no schema yet, this backfill needs {HEAD}: run `backfill db upgrade`.\n")
    for _ in range(2):
        assert command("db", "upgrade").exit_code == 0
    assert command("db", "check").exit_code == 0
    assert json.loads(command("pools", "list", "-o", "json").stdout)[0]["pool"] == "default_pool"


def test_a_database_that_does_not_answer_is_one_sentence_without_its_password(command: Command, nobody: str) -> None:
    for arguments in (["list"], ["db", "check"], ["db", "upgrade"]):
        ended = command(*arguments, database__url=f"postgresql://me:deep@{nobody}/db")
        assert ended.exit_code == 69
        assert ended.stderr.startswith(f"Error: The database at {nobody}/db ")
        assert len(ended.stderr.splitlines()) == 1
        assert "deep" not in ended.stderr


def test_the_doctor_finds_everything_in_order_but_the_missing_worker(command: Command) -> None:
    found = command("doctor", "-o", "json")
    assert found.exit_code == 0, found.stderr
    states = {row["check"]: row["state"] for row in json.loads(found.stdout)}
    assert states == {
        "database": "ok",
        "schema": "ok",
        "clock of the database": "ok",
        "broker": "ok",
        "clock of the broker": "ok",
        "workers": "warning",
    }


def test_the_doctor_goes_on_after_a_server_that_does_not_answer(command: Command, nobody: str) -> None:
    found = command("doctor", "-o", "json", celery__broker_url=f"redis://:deep@{nobody}/0")
    assert found.exit_code == 69
    *others, broker = json.loads(found.stdout)
    assert [row["state"] for row in others] == ["ok", "ok", "ok"]
    assert (broker["check"], broker["state"]) == ("broker", "failed")
    assert "deep" not in found.stdout


def test_the_doctor_tells_a_schema_of_another_version(command: Command, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("update backfill_schema set version_num = '9999'"))
    found = command("doctor", "-o", "json")
    assert found.exit_code == 2
    schema = next(row for row in json.loads(found.stdout) if row["check"] == "schema")
    assert schema["state"] == "failed"
    assert "newer than" in schema["detail"]
