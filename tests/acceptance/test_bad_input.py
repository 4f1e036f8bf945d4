"""Bad input gets one clear sentence, which names the value at fault and the remedy, and the right exit code; nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa
from click.testing import Result

from backfill.config import Settings, signing_key
from backfill.dag.freeze import _signature
from backfill.executors.environment import settings_environment

Backfill = Callable[..., subprocess.CompletedProcess[str]]
Command = Callable[..., Result]

HEAD = """
from datetime import datetime
from backfill import DAG, Param, task
from backfill.operators import BashOperator, EmptyOperator

def made(dag_id, **arguments):
    return DAG(dag_id, schedule="@daily", start_date=datetime(2024, 1, 1), **arguments)

"""
#: What is wrong in a file, and what is said of it after the file's name; the first line is the ninth.
BROKEN = {
    "syntax": ("x = (\n", "line 9 cannot be loaded: syntax error: '(' was never closed."),
    "raises": ('raise RuntimeError("no such tariff")', "line 9 cannot be loaded: RuntimeError: no such tariff."),
    "missing": ("import pandaz", "line 9 cannot be loaded: ModuleNotFoundError: No module named 'pandaz'."),
    "cycle": (
        'with made("cycle"):\n    a, b, c = (EmptyOperator(task_id=name) for name in "abc")\n    a >> b >> c >> b',
        "cannot be loaded: The DAG 'cycle' has a cycle: c → b → c; remove one of these edges.",
    ),
    "twice": (
        'with made("twice"):\n    EmptyOperator(task_id="a")\n    EmptyOperator(task_id="a")',
        "line 11 cannot be loaded: The DAG 'twice' has a task 'a' already; give the new task another id.",
    ),
    "argument": (
        'with made("argument"):\n    EmptyOperator(task_id="a", retrys=3)',
        "line 10 cannot be loaded: The task 'a' (EmptyOperator) got the argument 'retrys', which it does not take; write",
    ),
    "rule": (
        'with made("rule"):\n    EmptyOperator(task_id="a", trigger_rule="all_sucess")',
        "line 10 cannot be loaded: The task 'a' (EmptyOperator) has trigger_rule='all_sucess'; it takes one of all_success, ",
    ),
}
#: DAGs that can be loaded, each with one task.
DAGS = """
with made("sales"):
    EmptyOperator(task_id="pull")
with made("pool"):
    EmptyOperator(task_id="a", pool="smal")
with made("slots"):
    BashOperator(task_id="a", bash_command="true", pool_slots=500)
with made("executor"):
    BashOperator(task_id="a", bash_command="true", executor="KubernetesExecutor")
    EmptyOperator(task_id="b", executor="local")
with made("params", params={"region": Param("eu", type="string")}):
    BashOperator(task_id="a", bash_command="true")
with made("past"):
    EmptyOperator(task_id="a", depends_on_past=True)
"""
DATE = ("-s", "2024-01-01")


@pytest.fixture(autouse=True)
def folder(settings: Settings) -> Path:
    settings.core.dags_folder.mkdir()
    (settings.core.dags_folder / "good.py").write_text(HEAD + DAGS)
    return settings.core.dags_folder


@pytest.fixture
def left_behind(engine: sa.Engine) -> Callable[[], tuple[int, ...]]:
    """Return a function that counts what a refused command must not write."""

    def count() -> tuple[int, ...]:
        tables = ("job", "job_run_date", "dag_run", "task_instance", "dag_pickle")
        with engine.connect() as connection:
            return tuple(connection.scalar(sa.text(f"select count(*) from {table}")) for table in tables)

    return count


@pytest.fixture
def locked_broker(broker_url: str, port: int) -> Iterator[str]:
    """Return the address at which the broker of the tests listens for a while, behind a password."""
    path = broker_url.removeprefix("redis+socket://").partition("?")[0]
    with redis.Redis(unix_socket_path=path) as client:
        client.config_set("requirepass", "right")
        client.config_set("bind", "127.0.0.1")
        client.config_set("port", port)
        try:
            yield f"127.0.0.1:{port}"
        finally:
            client.config_set("port", 0)
            client.config_set("requirepass", "")


def refused(ended: Result | subprocess.CompletedProcess[str]) -> str:
    """Return the one sentence on stderr, without the word that marks it as an error."""
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert ended.stderr.startswith("Error: ")
    return ended.stderr.removeprefix("Error: ").rstrip("\n")


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_loaded_is_named_with_the_line_and_the_mistake(
    command: Command, left_behind: Callable[[], tuple[int, ...]], folder: Path, name: str
) -> None:
    text, told = BROKEN[name]
    (folder / f"{name}.py").write_text(HEAD + text)
    ended = command("run", str(folder / f"{name}.py"), *DATE, "-l")
    assert ended.exit_code == 2
    assert refused(ended).startswith(f"The DAG file {folder / name}.py{', ' if told.startswith('line') else ' '}{told}")
    assert set(left_behind()) == {0}


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (
            ["nosuch", *DATE],
            2,
            "There is no DAG 'nosuch' in FOLDER; there are executor, params, past, pool, sales, slots.",
        ),
        (["sale", *DATE], 2, "There is no DAG 'sale' in FOLDER; did you mean 'sales'?"),
        (
            ["FOLDER/no.py", *DATE],
            2,
            "There is no file FOLDER/no.py; correct the path, or set core.dags_folder or -S to where",
        ),
        (
            ["FOLDER/good.py", *DATE],
            2,
            "The file FOLDER/good.py defines 6 DAGs (sales, pool, slots, executor, params, past); ",
        ),
        (["FOLDER/good.py:sale", *DATE], 2, "The file FOLDER/good.py defines no DAG 'sale'; did you mean 'sales'?"),
        (["sales"], 2, "No date is given; name the range with -s/--start-date and -e/--end-date."),
        (
            ["sales", "-s", "2024-01-03", "-e", "2024-01-01"],
            2,
            "The start date 2024-01-03T00:00:00+00:00 lies after the end date 2024-01-01T00:00:00+00:00; swap -s and -e.",
        ),
        (
            ["sales", "-s", "2024-13-01"],
            2,
            "Invalid value for '-s' / '--start-date': '2024-13-01' is no date; write it as",
        ),
        (["sales", *DATE, "-c", "{x"], 2, "Invalid value for '-c' / '--conf': '{x' is no JSON ("),
        (
            ["sales", *DATE, "-c", "[1]"],
            2,
            "Invalid value for '-c' / '--conf': '[1]' is no JSON object; write one such as",
        ),
        (["params", *DATE, "-c", '{"region": 4}'], 2, "The param 'region' is 4, which does not fit its schema: "),
        (["sales", *DATE, "-t", "load"], 2, "No task of the DAG 'sales' matches 'load'; its tasks are pull."),
        (["sales", *DATE, "-t", "("], 2, "Invalid value for '-t' / '--task-regex': '(' is no regular expression: "),
        (
            ["sales", *DATE, "--max-active-runs", "0"],
            2,
            "Invalid value for '--max-active-runs': '0' is no whole number from 1 to 1000000000; write one that is.",
        ),
        (
            ["sales", *DATE, "--max-failures", "101%"],
            2,
            "Invalid value for '--max-failures': '101%' is no number from 1 and",
        ),
        (
            ["sales", *DATE, "--workers", "-1"],
            2,
            "Invalid value for '--workers': '-1' is no whole number from 0; write one that is.",
        ),
        (
            ["sales", *DATE, "--executor", "k8s"],
            2,
            "Invalid value for '--executor': 'k8s' is not one of 'celery', 'local'.",
        ),
        (
            ["sales", *DATE, "-o", "xml"],
            2,
            "Invalid value for '-o' / '--output': 'xml' is not one of 'table', 'json', ",
        ),
        (["sales", *DATE, "--frob"], 2, "No such option '--frob'; `backfill run --help` shows what there is."),
        (
            ["sales", *DATE, "-l", "--executor", "celery"],
            2,
            "-l means --executor local, but --executor celery is given; ",
        ),
        (
            ["sales", *DATE, "--pool", "no"],
            2,
            "pool (--pool) names the pool 'no', which does not exist; make it with `backfill pools set",
        ),
        (
            ["pool", *DATE],
            2,
            "Task 'a' of DAG 'pool' names the pool 'smal', which does not exist; make it with `backfill pools",
        ),
        (
            ["slots", *DATE],
            2,
            "Task 'a' of DAG 'slots' takes 500 slots of the pool 'default_pool', which has 128; enlarge it",
        ),
        (
            ["executor", *DATE],
            2,
            "Task 'a' of DAG 'executor' names the executor 'KubernetesExecutor', which does not exist; write celery or local.",
        ),
        (
            ["past", *DATE, "-B"],
            5,
            "DAG 'past' cannot run backwards, as it has tasks that depend on the past: a; leave out run_backwards (--run-backwards).",
        ),
        (
            ["sales", "-s", "2024-01-01T01:00", "-e", "2024-01-01T02:00"],
            5,
            "DAG 'sales' with schedule '@daily' has no run date from 2024-01-01T01:00:00+00:00 to 2024-01-01T02:00:00+00:00; give",
        ),
        (
            ["sales", "-s", "2124-01-01", "-e", "2124-01-02"],
            5,
            "No run date of DAG 'sales' from 2124-01-01T00:00:00+00:00 to 2124-01-02T00:00:00+00:00 is left to run (2 dates left",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_run_is_refused_before_anything_is_written(
    command: Command,
    left_behind: Callable[[], tuple[int, ...]],
    folder: Path,
    arguments: list[str],
    code: int,
    told: str,
) -> None:
    ended = command("run", *(argument.replace("FOLDER", str(folder)) for argument in arguments))
    assert ended.exit_code == code
    assert refused(ended).replace(str(folder), "FOLDER").startswith(told)
    assert set(left_behind()) == {0}


def test_with_verbose_the_traceback_comes_before_the_sentence(command: Command) -> None:
    ended = command("run", "nosuch", *DATE, "-v")
    assert ended.stderr.startswith("Traceback (most recent call last):")
    assert ended.stderr.splitlines()[-1].startswith("Error: There is no DAG 'nosuch' in ")


def test_a_broken_file_that_may_hold_the_dag_is_named_among_several(command: Command, folder: Path) -> None:
    (folder / "a.py").write_text("from backfill import DAG\nx = (")
    (folder / "z.py").write_text('from backfill import DAG\nDAG("missed",')
    told = refused(command("run", "missed", *DATE))
    assert f" The DAG file {folder / 'z.py'}, line 2 cannot be loaded: " in told
    assert told.endswith(" (1 more cannot be loaded either; `backfill dags list` names them)")


def test_a_task_that_is_not_chosen_may_name_what_does_not_exist(command: Command) -> None:
    assert command("run", "executor", *DATE, "-t", "^b$", "-i", "-o", "json").exit_code == 0


def test_a_job_whose_tasks_all_name_another_executor_or_that_has_none_runs(command: Command, folder: Path) -> None:
    (folder / "more.py").write_text(
        HEAD
        + 'with made("empty"):\n    pass\nwith made("own"):\n    BashOperator(task_id="a", bash_command="true", executor="local")'
    )
    for dag_id in ("empty", "own"):
        ended = command("run", dag_id, *DATE, "-o", "json", "--workers", "0")
        assert ended.exit_code == 0, ended.stderr
        assert json.loads(ended.stdout)["state"] == "success"


def test_a_date_of_an_active_job_is_refused_and_the_job_named(command: Command) -> None:
    job = command("submit", "sales", "-s", "2024-01-02", "-e", "2024-01-03").stdout.strip()
    ended = command("run", "sales", "-s", "2024-01-01", "-e", "2024-01-02")
    assert ended.exit_code == 5
    assert refused(ended) == (
        f"Job {job} owns 2024-01-02T00:00:00+00:00 of DAG 'sales'; wait for it (`backfill status {job}`) or leave the date out."
    )


def test_a_running_run_of_another_type_is_refused_and_named(command: Command, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "insert into dag_run (dag_id, run_id, logical_date, data_interval_start, data_interval_end, run_type, state) "
                "values ('sales', 'manual__x', '2024-01-01Z', '2024-01-01Z', '2024-01-02Z', 'manual', 'running')"
            )
        )
    ended = command("run", "sales", *DATE)
    assert ended.exit_code == 5
    assert refused(ended).startswith("Run 'manual__x' of DAG 'sales' is running at 2024-01-01T00:00:00+00:00 and is no")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["runn"], "No such command 'runn'. Did you mean 'run'?"),
        (["frobnicate"], "No such command 'frobnicate'; `backfill --help` shows what there is."),
        (["--frob"], "No such option '--frob'; `backfill --help` shows what there is."),
        (["run"], "Missing argument 'TARGET'; `backfill run --help` shows what there is."),
        (["pools", "set", "a"], "Missing argument 'SLOTS'; `backfill pools set --help` shows what there is."),
        (["worker", "-q", ","], "-q ',' names no queue; write names separated by commas."),
    ],
)
def test_a_mistake_in_what_is_typed_is_one_sentence_too(command: Command, arguments: list[str], told: str) -> None:
    ended = command(*arguments)
    assert (ended.exit_code, refused(ended)) == (2, told)


@pytest.mark.parametrize(
    ("setting", "url", "code", "told"),
    [
        (
            "database__url",
            "postgresql://me:deep@127.0.0.1:1/db",
            69,
            "The database at 127.0.0.1:1/db gave no answer in ",
        ),
        (
            "database__url",
            "postgresql://me:deep@/db?host=/nowhere",
            69,
            "The database at /nowhere/db gave no answer in ",
        ),
        (
            "database__url",
            "postgresql://me:deep@h:port/db",
            2,
            "The database URL 'postgresql://me:***@h:port/db' cannot be read:",
        ),
        (
            "database__url",
            "mysql://me:deep@h/db",
            2,
            "The database URL 'mysql://me:***@h/db' is not of the form postgresql://",
        ),
        (
            "celery__broker_url",
            "redis://:deep@127.0.0.1:1/0",
            69,
            "The broker at redis://:***@127.0.0.1:1/0 does not answer (",
        ),
        (
            "celery__broker_url",
            "redis+socket:///nowhere/x.sock",
            69,
            "The broker at redis+socket:///nowhere/x.sock does not",
        ),
        (
            "celery__broker_url",
            "amqp://me:deep@h//",
            2,
            "The broker URL 'amqp://me:***@h//' is not of the form redis://host",
        ),
    ],
)
def test_a_server_that_does_not_answer_is_named_without_its_password(
    command: Command, setting: str, url: str, code: int, told: str
) -> None:
    ended = command("run", "sales", *DATE, **{setting: url})
    assert ended.exit_code == code
    assert refused(ended).startswith(told)
    assert "deep" not in ended.stderr


@pytest.mark.parametrize(
    ("login", "database", "why"),
    [
        ("", "0", "it asks for a password"),
        (":wrong@", "0", "invalid username-password pair or user is disabled"),
        (":right@", "99", "DB index is out of range"),
    ],
)
def test_a_broker_that_refuses_is_told_from_one_that_is_away(
    command: Command, locked_broker: str, login: str, database: str, why: str
) -> None:
    ended = command("run", "sales", *DATE, celery__broker_url=f"redis://{login}{locked_broker}/{database}")
    assert ended.exit_code == 69
    shown = f"redis://{':***@' if login else ''}{locked_broker}/{database}"
    assert refused(ended) == (
        f"The broker at {shown} refused the connection ({why}); correct `celery.broker_url` or grant access."
    )


def test_a_home_that_is_a_file_is_one_sentence(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = command("run", "sales", *DATE, "-l", core__home=tmp_path / "file")
    assert ended.exit_code == 2
    assert refused(ended).startswith(f"The secret {tmp_path}/file/secret_key cannot be kept or read: ")


def tampered(engine: sa.Engine, settings: Settings, *, python: str | None, sign: bool) -> None:
    """Change the only shipped DAG: the Python that froze it, and whether it is signed as it should be."""
    with engine.begin() as connection:
        frozen = connection.execute(sa.text("select * from dag_pickle")).one()
        python = python or frozen.python_version
        key = signing_key(settings) if sign else b"another key"
        signature = _signature(key, frozen.dag_id, python, bytes(frozen.payload))
        change = sa.text("update dag_pickle set python_version = :python, signature = :signature")
        connection.execute(change, {"python": python, "signature": signature})


@pytest.mark.parametrize(
    ("python", "sign", "told"),
    [
        ("3.9", True, r"The shipped DAG 'params' was frozen by Python 3.9 and this worker runs 3."),
        (None, False, r"The shipped DAG 'params' is not signed with this worker's core.secret_key; give coordinator"),
    ],
    ids=["another Python", "another key"],
)
def test_a_shipped_dag_that_cannot_be_loaded_here_leaves_the_job_resumable_and_says_why(
    command: Command, engine: sa.Engine, settings: Settings, python: str | None, sign: bool, told: str
) -> None:
    job = command("submit", "params", *DATE, "-l").stdout.strip()
    tampered(engine, settings, python=python, sign=sign)
    ended = command("resume", job)
    assert ended.exit_code == 1
    assert refused(ended).startswith(told)
    assert json.loads(command("status", job, "-o", "json").stdout)["state"] == "queued"


def test_a_command_without_stdout_does_its_work(backfill: Backfill, settings: Settings, tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m backfill run sales -s 2024-01-01 -l >&-"],
        env=settings_environment(settings, os.environ),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(backfill("list", "-o", "json").stdout)[0]["state"] == "success"
