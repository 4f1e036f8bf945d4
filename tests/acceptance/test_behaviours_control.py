"""Orders in every state of a job, every exit code, and the JSON that scripts rely on (interface.md, section 3; S11)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import Result

from backfill.config import Settings

Command = Callable[..., Result]

#: Nothing of it needs a worker.
DAG_FILE = """
from datetime import datetime
from backfill import DAG
from backfill.operators import EmptyOperator

with DAG("sales", schedule="@daily", start_date=datetime(2024, 1, 1)):
    EmptyOperator(task_id="load") >> EmptyOperator(task_id="report")

with DAG("past", schedule="@daily", start_date=datetime(2024, 1, 1)):
    EmptyOperator(task_id="load", depends_on_past=True)
"""
DAY = ("-s", "2024-01-01", "-l")


@pytest.fixture(autouse=True)
def dag_file(settings: Settings) -> Path:
    settings.core.dags_folder.mkdir()
    file = settings.core.dags_folder / "sales.py"
    file.write_text(DAG_FILE)
    return file


class Jobs:
    """Jobs in whatever state a test wants, held by nobody or by somebody else."""

    def __init__(self, command: Command, engine: sa.Engine) -> None:
        self.command = command
        self.engine = engine

    def make(self, state: str, *, held: bool = False) -> str:
        made = self.command("submit", "sales", *DAY)
        assert made.exit_code == 0, made.output
        now = datetime.now(UTC)
        values: dict[str, Any] = {"state": state, "end_date": None, "lease_holder": None, "latest_heartbeat": None}
        if held:
            values |= {"lease_holder": "elsewhere:7:abc", "latest_heartbeat": now, "lease_epoch": 1}
        if state not in {"queued", "running", "paused"}:
            values |= {"end_date": now}
        with self.engine.begin() as tx:
            changes = ", ".join(f"{name} = :{name}" for name in values)
            tx.execute(sa.text(f"update job set {changes}"), values)
            return str(tx.execute(sa.text("select id from job")).scalar_one())

    @contextmanager
    def living_holder(self) -> Iterator[None]:
        """Renew the lease of the job while a context lasts, as a process elsewhere would."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(0.05):
                with self.engine.begin() as tx:
                    tx.execute(sa.text("update job set latest_heartbeat = clock_timestamp()"))

        thread = threading.Thread(target=renew)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @property
    def state(self) -> str:
        with self.engine.connect() as tx:
            return str(tx.execute(sa.text("select state from job")).scalar_one())

    def plant_run(self, dag_id: str, day: int, state: str, **tasks: str) -> None:
        """Write a run that was there before."""
        date = datetime(2024, 1, day, tzinfo=UTC)
        run = {"dag_id": dag_id, "run_id": f"r{day}", "date": date, "state": state}
        with self.engine.begin() as tx:
            run_id = tx.execute(
                sa.text(
                    "insert into dag_run (dag_id, run_id, logical_date, data_interval_start, data_interval_end, run_type, state, start_date) "
                    "values (:dag_id, :run_id, :date, :date, :date, 'backfill', :state, :date) returning id"
                ),
                run,
            ).scalar_one()
            for task_id, ended in tasks.items():
                tx.execute(
                    sa.text(
                        "insert into task_instance (dag_run_id, dag_id, run_id, task_id, state, pool, queue) "
                        "values (:id, :dag_id, :run_id, :task_id, :ended, 'default_pool', 'backfill')"
                    ),
                    {"id": run_id, "task_id": task_id, "ended": ended, **run},
                )


@pytest.fixture
def jobs(command: Command, engine: sa.Engine) -> Jobs:
    return Jobs(command, engine)


FINAL = ["success", "failed", "deadlocked", "cancelled"]


@pytest.mark.parametrize(
    ("state", "code", "becomes", "said"),
    [
        ("queued", 0, "paused", "is paused"),
        ("running", 0, "paused", "is paused"),
        ("paused", 0, "paused", "is paused already"),
        *((state, 5, state, f"has ended as {state} and cannot be paused") for state in FINAL),
    ],
)
def test_pause_in_every_job_state(jobs: Jobs, state: str, code: int, becomes: str, said: str) -> None:
    done = jobs.command("pause", jobs.make(state))
    assert (done.exit_code, jobs.state) == (code, becomes)
    assert said in done.output


@pytest.mark.parametrize("state", ["queued", "running", "paused"])
def test_resume_without_a_holder_drives_the_job(jobs: Jobs, state: str) -> None:
    assert jobs.command("resume", jobs.make(state)).exit_code == 0
    assert jobs.state == "success"


@pytest.mark.parametrize("state", FINAL)
def test_resume_of_a_job_that_has_ended_is_refused(jobs: Jobs, state: str) -> None:
    done = jobs.command("resume", jobs.make(state))
    assert (done.exit_code, jobs.state) == (5, state)
    assert "--rerun-failed-tasks" in done.output


@pytest.mark.parametrize(("state", "code", "becomes"), [("running", 75, "running"), ("paused", 0, "running")])
def test_resume_with_a_live_holder_leaves_the_job_to_it(jobs: Jobs, state: str, code: int, becomes: str) -> None:
    job_id = jobs.make(state, held=True)
    with jobs.living_holder():
        done = jobs.command("resume", job_id)
    assert (done.exit_code, jobs.state) == (code, becomes), done.output
    assert "7" in done.output


@pytest.mark.parametrize(
    ("state", "code", "becomes", "said"),
    [
        ("queued", 0, "cancelled", "is cancelled"),
        ("running", 0, "cancelled", "is cancelled"),
        ("paused", 0, "cancelled", "is cancelled"),
        ("cancelled", 0, "cancelled", "is cancelled already"),
        *(
            (state, 5, state, f"has ended as {state} and cannot be cancelled")
            for state in FINAL
            if state != "cancelled"
        ),
    ],
)
def test_cancel_in_every_job_state(jobs: Jobs, state: str, code: int, becomes: str, said: str) -> None:
    done = jobs.command("cancel", jobs.make(state))
    assert (done.exit_code, jobs.state) == (code, becomes)
    assert said in done.output


# -- exit codes; 4 of `run` and 130 need processes, see test_lifecycle_control and test_lifecycle_coordinator -----------

NOWHERE = {"database__url": "postgresql://nobody@127.0.0.1:1/nothing"}


def test_exit_code_0_when_every_task_instance_ended_well(jobs: Jobs) -> None:
    jobs.plant_run("sales", 1, "success", load="success", report="skipped")
    assert jobs.command("run", "sales", *DAY).exit_code == 0


@pytest.mark.parametrize("flags", [(), ("--continue-on-failures",), ("--max-failures", "5")])
def test_exit_code_1_when_some_failed_also_under_continue_on_failures(jobs: Jobs, flags: tuple[str, ...]) -> None:
    jobs.plant_run("sales", 1, "failed", load="failed", report="upstream_failed")
    assert jobs.command("run", "sales", *DAY, *flags).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("run", "sales"), "--start-date"),
        (("run", "sales", "-s", "yesterday"), "'yesterday'"),
        (("run", "sales", "-s", "2024-01-02", "-e", "2024-01-01"), "2024-01-02"),
        (("run", "sale", *DAY), "'sale'"),
        (("run", "sales", *DAY, "-c", "{"), "'{'"),
        (("run", "sales", *DAY, "-t", "nobody"), "'nobody'"),
        (("run", "sales", *DAY, "--pool", "nowhere"), "'nowhere'"),
        (("run", "sales", *DAY, "--executor", "magic"), "'magic'"),
        (("run", "sales", *DAY, "--hurry"), "--hurry"),
        (("run", "sales", *DAY, "--max-active-runs", "0"), "0"),
        (("run", "sales", *DAY, "--max-failures", "-1"), "-1"),
        (("run", "sales", *DAY, "--delay-on-limit", "0"), "0"),
        (("run", "sales", *DAY, "--reprocess", "all"), "'all'"),
        (("run", "sales", *DAY, "--workers", "-1"), "-1"),
        (("status", "99"), "99"),
        (("run", "(", *DAY, "--treat-dag-id-as-regex"), "'('"),
        (("run", "x", *DAY, "--treat-dag-id-as-regex"), "'x'"),
    ],
)
def test_exit_code_2_for_wrong_use_names_the_value(jobs: Jobs, arguments: tuple[str, ...], named: str) -> None:
    done = jobs.command(*arguments)
    assert (done.exit_code, named in done.output) == (2, True), done.output
    assert "Traceback" not in done.output


def test_exit_code_3_when_work_is_left_that_can_never_run(jobs: Jobs) -> None:
    jobs.plant_run("past", 1, "failed", load="failed")
    done = jobs.command("run", "past", "-s", "2024-01-02", "-l", "--no-ignore-first-depends-on-past")
    assert done.exit_code == 3, done.output
    assert "-I" in done.output


def test_exit_code_4_of_a_job_that_was_cancelled(jobs: Jobs) -> None:
    assert jobs.command("status", jobs.make("cancelled"), "--watch").exit_code == 4


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("run", "sales", "-l", "-s", "2199-01-01"), "2199-01-01"),
        (("run", "past", *DAY, "-B"), "load"),
        (("run", "sales", *DAY, "--reprocess", "none"), "(--reprocess) none keeps"),
    ],
)
def test_exit_code_5_when_refused_or_nothing_to_do(jobs: Jobs, arguments: tuple[str, ...], named: str) -> None:
    jobs.plant_run("sales", 1, "success", load="success", report="success")
    done = jobs.command(*arguments)
    assert (done.exit_code, named in done.output) == (5, True), done.output


@pytest.mark.parametrize("command_", [("run", "sales", *DAY), ("status", "1"), ("list",), ("pause", "1")])
def test_exit_code_69_when_the_database_is_not_reachable(jobs: Jobs, command_: tuple[str, ...]) -> None:
    done = jobs.command(*command_, **NOWHERE)
    assert done.exit_code == 69, done.output
    assert "127.0.0.1" in done.output


def test_exit_code_75_when_another_coordinator_holds_the_job(jobs: Jobs) -> None:
    job_id = jobs.make("running", held=True)
    with jobs.living_holder():
        assert jobs.command("resume", job_id).exit_code == 75


# -- JSON ---------------------------------------------------------------------------------------------------------------

NUMBER = (int, float)
SHAPE: dict[str, Any] = {
    "job_id": int,
    "dag_id": str,
    "state": str,
    "start_date": str,
    "end_date": (str, type(None)),
    "runs": dict.fromkeys(("total", "finished", "success", "failed", "running"), int),
    "tasks": dict.fromkeys(("total", "success", "failed", "skipped", "upstream_failed", "running", "waiting"), int),
    "rate": NUMBER,
    "eta_seconds": (*NUMBER, type(None)),
    "errors": list,
}
ROW: dict[str, Any] = {
    **dict.fromkeys(("dag_id", "task_id", "run_id", "logical_date", "state"), str),
    **dict.fromkeys(("map_index", "try_number"), int),
    **dict.fromkeys(("start_date", "end_date", "hostname", "external_executor_id"), (str, type(None))),
    "duration": (*NUMBER, type(None)),
}


def assert_shape(data: dict[str, Any], shape: dict[str, Any]) -> None:
    for key, kind in shape.items():
        if isinstance(kind, dict):
            assert_shape(data[key], kind)
        else:
            assert isinstance(data[key], kind), (key, data[key])


def test_json_shape_of_run_and_status(jobs: Jobs) -> None:
    jobs.plant_run("sales", 1, "failed", load="failed", report="none")
    ran = json.loads(jobs.command("run", "sales", *DAY, "-e", "2024-01-02", "-o", "json").stdout)
    shown = json.loads(jobs.command("status", str(ran["job_id"]), "-o", "json").stdout)
    for data in (ran, shown):
        assert_shape(data, SHAPE)
        assert data["tasks"]["total"] == sum(number for name, number in data["tasks"].items() if name != "total")
        assert datetime.fromisoformat(data["start_date"]).utcoffset() is not None
        assert (data["state"], data["eta_seconds"], len(data["errors"])) == ("failed", None, 2)


def test_json_shape_of_tasks(jobs: Jobs) -> None:
    ran = json.loads(jobs.command("run", "sales", *DAY, "-o", "json").stdout)
    rows = json.loads(jobs.command("tasks", str(ran["job_id"]), "-o", "json").stdout)
    assert [row["task_id"] for row in rows] == ["load", "report"]
    for row in rows:
        assert_shape(row, ROW)
        assert datetime.fromisoformat(row["logical_date"]) == datetime(2024, 1, 1, tzinfo=UTC)
        assert row["run_id"] == "backfill__2024-01-01T00:00:00+00:00"
