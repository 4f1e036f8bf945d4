# ruff: noqa: T201  # tasks print
"""What becomes of attempts in a runner: in their rows, their logs and the events that are published."""

import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from worker_stage import Stage, states
from worker_tasks import Events, MakeRunner, RunOne, one_task

from backfill import DAG
from backfill.config import Settings
from backfill.exceptions import FailTask, RescheduleTask, SkipTask
from backfill.operators import PythonOperator
from backfill.states import TaskInstanceState
from workers import open_bundle
from workers.runner import Runner


def test_a_task_that_returns_ends_as_success_with_its_value(run_one: RunOne, events: Events) -> None:
    stage, attempt = run_one(lambda ds: [ds, 1])
    assert stage.state(attempt) == "success"
    assert stage.xcoms(attempt) == {"return_value": ["2024-01-01", 1]}
    assert stage.outcome(attempt) == "success"
    assert events.of(attempt) == [TaskInstanceState.SUCCESS]
    assert stage.column(attempt, "hostname") == "worker-1@host"
    assert stage.column(attempt, "pid") == os.getpid()


def test_the_log_has_what_the_task_printed(run_one: RunOne) -> None:
    stage, attempt = run_one(lambda: print("hello from the task"))
    log = stage.log(attempt)
    assert f"attempt {attempt.attempt_id} on worker-1@host" in log
    assert "STDOUT  hello from the task" in log
    assert log.rstrip().endswith("The task succeeded")


def test_a_task_that_raises_fails_with_its_error(run_one: RunOne, events: Events) -> None:
    def fail() -> None:
        raise ValueError("no such region")

    stage, attempt = run_one(fail)
    row = stage.row(attempt)
    assert (row.state, row.error) == ("failed", "ValueError: no such region")
    assert events[-1].state is TaskInstanceState.FAILED
    assert events[-1].info == row.error
    assert 'raise ValueError("no such region")' in stage.log(attempt)
    assert "workers/execution.py" not in stage.log(attempt)


def test_a_failure_is_retried_after_its_delay(run_one: RunOne) -> None:
    def fail() -> None:
        raise ValueError

    stage, attempt = run_one(fail, retries=1, retry_delay=timedelta(seconds=77))
    assert stage.state(attempt) == "up_for_retry"
    assert stage.column(attempt, "next_attempt_at") - stage.column(attempt, "end_date") == timedelta(seconds=77)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (SkipTask("nothing to do"), "skipped"),
        (FailTask("never"), "failed"),
        ("reschedule", "up_for_reschedule"),
        (SystemExit(0), "success"),
        (SystemExit(3), "up_for_retry"),
        (KeyboardInterrupt(), "up_for_retry"),
    ],
)
def test_what_a_task_raises_decides_its_state(error: Any, state: str, run_one: RunOne) -> None:
    def end() -> None:
        raise RescheduleTask(datetime(2030, 1, 1, tzinfo=UTC)) if error == "reschedule" else error

    stage, attempt = run_one(end, retries=1)
    assert stage.state(attempt) == state


def test_a_lost_claim_does_nothing_and_reports_nothing(
    runner: Runner, engine: sa.Engine, settings: Settings, events: Events, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    stage = Stage(engine, settings, one_task(mark.touch))
    stale = stage.queue("load")
    stage.set(stale, try_number=2)
    assert runner.run_bundle(stage.bundle(stale)) == ()
    assert stage.state(stale) == "queued"
    assert events == []
    assert not mark.exists()
    assert not stage.log_path(stale).exists()


def test_a_message_that_comes_twice_runs_once(
    runner: Runner, engine: sa.Engine, settings: Settings, events: Events, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"

    def note() -> None:
        with journal.open("a") as file:
            file.write("x")

    stage = Stage(engine, settings, one_task(note))
    attempt = stage.queue("load")
    runner.run_bundle(stage.bundle(attempt, attempt))
    runner.run_bundle(stage.bundle(attempt))
    assert journal.read_text() == "x"
    assert events.of(attempt) == [TaskInstanceState.SUCCESS]


def test_a_bundle_runs_one_after_the_other_and_a_failure_does_not_stop_it(
    runner: Runner, engine: sa.Engine, settings: Settings, events: Events
) -> None:
    def only_even(ds_nodash: str) -> int:
        if int(ds_nodash) % 2:
            raise ValueError(ds_nodash)
        return int(ds_nodash)

    stage = Stage(engine, settings, one_task(only_even))
    attempts = [stage.queue("load", day=day) for day in range(4)]
    ends = runner.run_bundle(stage.bundle(*attempts))
    assert states(stage, attempts) == ["failed", "success", "failed", "success"]
    assert [event.attempt_id for event in events] == [attempt.attempt_id for attempt in attempts]
    assert [end.state for end in ends] == ["failed", "success", "failed", "success"]
    starts = [stage.column(attempt, "start_date") for attempt in attempts]
    assert starts == sorted(set(starts))


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be given back because a task lasts."""
    monkeypatch.setattr(open_bundle, "GIVEN_BACK_AFTER", 600.0)
    monkeypatch.setattr(open_bundle, "LONGEST_BUNDLE", 600.0)


@pytest.mark.usefixtures("unhurried")
def test_what_a_database_refuses_is_a_failure_of_its_task_only(
    runner: Runner, engine: sa.Engine, settings: Settings
) -> None:
    stage = Stage(engine, settings, one_task(lambda ds: 10**140_000 if ds == "2024-01-01" else 1))
    attempts = [stage.queue("load", day=day) for day in range(2)]
    sys.set_int_max_str_digits(0)
    runner.run_bundle(stage.bundle(*attempts))
    assert states(stage, attempts) == ["failed", "success"]
    assert stage.row(attempts[0]).error


def test_a_result_of_an_attempt_that_is_not_current_is_thrown_away(
    engine: sa.Engine, run_one: RunOne, events: Events
) -> None:
    url = engine.url.render_as_string(hide_password=False)

    def take_away(ti: Any) -> str:
        with sa.create_engine(url, poolclass=sa.NullPool).begin() as tx:
            tx.execute(
                sa.text("update task_instance set external_executor_id = gen_random_uuid() where id = :id"),
                {"id": ti.task_instance_id},
            )
        ti.xcom_push("key", "value")
        return "result"

    stage, attempt = run_one(take_away)
    assert stage.state(attempt) == "running"
    assert stage.xcoms(attempt) == {}
    assert events == []


def test_the_heartbeat_is_kept_while_the_task_runs(
    make_runner: MakeRunner, engine: sa.Engine, quick: Settings, events: Events
) -> None:
    url = engine.url.render_as_string(hide_password=False)

    def wait_for_heartbeats(ti: Any) -> int:
        seen = set()
        with sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT").connect() as tx:
            while len(seen) < 3:
                statement = sa.text("select heartbeat_at from task_instance where id = :id")
                seen.add(tx.execute(statement, {"id": ti.task_instance_id}).scalar_one())
                time.sleep(0.01)
        return len(seen)

    stage = Stage(engine, quick, one_task(wait_for_heartbeats))
    attempt = stage.queue("load")
    make_runner(settings=quick).run_bundle(stage.bundle(attempt))
    assert stage.state(attempt) == "success"
    assert events.of(attempt) == ["running", "success"]


def test_a_lost_connection_is_made_anew_for_the_final_write(engine: sa.Engine, run_one: RunOne) -> None:
    url = engine.url.render_as_string(hide_password=False)

    def cut_connections() -> str:
        with sa.create_engine(url, poolclass=sa.NullPool).begin() as tx:
            tx.execute(
                sa.text(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and pid <> pg_backend_pid()"
                )
            )
        return "done"

    stage, attempt = run_one(cut_connections)
    assert stage.state(attempt) == "success"
    assert stage.xcoms(attempt) == {"return_value": "done"}


def test_fail_stop_ends_the_rest_of_the_run(runner: Runner, engine: sa.Engine, settings: Settings) -> None:
    def fail() -> None:
        raise ValueError

    with DAG("stopping", fail_stop=True) as dag:
        for name in ("load", "other", "clean"):
            PythonOperator(task_id=name, python_callable=fail)
        dag.task_dict["clean"].as_teardown()
    stage = Stage(engine, settings, dag)
    failing, other, clean = (stage.queue(name) for name in ("load", "other", "clean"))
    runner.run_bundle(stage.bundle(failing, other))
    assert states(stage, [failing, other, clean]) == ["failed", "skipped", "queued"]


def test_an_unwritable_log_fails_the_attempt_before_it_starts(
    runner: Runner, engine: sa.Engine, settings: Settings, tmp_path: Path
) -> None:
    settings.log_folder.parent.mkdir(parents=True, exist_ok=True)
    settings.log_folder.write_text("in the way")
    mark = tmp_path / "ran"
    stage = Stage(engine, settings, one_task(mark.touch))
    attempt = stage.queue("load")
    runner.run_bundle(stage.bundle(attempt))
    assert stage.state(attempt) == "failed"
    assert "cannot be written: Not a directory." in str(stage.row(attempt).error)
    assert not mark.exists()


def test_secrets_of_the_settings_do_not_reach_the_log(
    make_runner: MakeRunner, engine: sa.Engine, settings: Settings
) -> None:
    secret = settings.override("test", {"flower.password": "very-secret"})
    stage = Stage(engine, secret, one_task(lambda: print("it is very-secret")))
    attempt = stage.queue("load")
    make_runner(settings=secret).run_bundle(stage.bundle(attempt))
    assert "it is ***" in stage.log(attempt)


def test_secrets_do_not_reach_the_row_or_the_event(
    make_runner: MakeRunner, engine: sa.Engine, settings: Settings, events: Events
) -> None:
    def fail() -> None:
        raise ValueError("cannot log in with very-secret")

    secret = settings.override("test", {"flower.password": "very-secret"})
    stage = Stage(engine, secret, one_task(fail))
    attempt = stage.queue("load")
    make_runner(settings=secret).run_bundle(stage.bundle(attempt))
    assert stage.row(attempt).error == events[-1].info == "ValueError: cannot log in with ***"
    assert "very-secret" not in stage.log(attempt)
