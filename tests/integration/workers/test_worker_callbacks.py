"""Callbacks of tasks: which of them run, when, and that they change nothing; also where nothing else runs."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from worker_stage import Stage
from worker_tasks import RunOne, journal_callbacks

from backfill import DAG, Param
from backfill.config import Settings
from backfill.exceptions import FailTask, RescheduleTask, SkipTask
from backfill.operators import PythonOperator
from workers.runner import Runner


def test_callbacks_run_by_result_and_what_they_raise_changes_nothing(tmp_path: Path, run_one: RunOne) -> None:
    journal = tmp_path / "journal"
    stage, attempt = run_one(lambda: None, **journal_callbacks(journal))
    assert stage.state(attempt) == "success"
    assert journal.read_text().splitlines() == ["execute: running None", "success: success None"]
    assert "a callback that fails changes nothing" in stage.log(attempt)


@pytest.mark.parametrize(
    ("error", "retries", "expected"),
    [
        (ValueError("x"), 0, ["failure: failed ValueError('x')"]),
        (ValueError("x"), 1, ["retry: up_for_retry ValueError('x')"]),
        (FailTask("x"), 1, ["failure: failed FailTask('x')"]),
        (SkipTask("x"), 0, ["skipped: skipped SkipTask('x')", "success: skipped SkipTask('x')"]),
        ("reschedule", 0, []),
    ],
)
def test_each_result_has_its_callbacks(
    error: Any, retries: int, expected: list[str], tmp_path: Path, run_one: RunOne
) -> None:
    def end() -> None:
        raise RescheduleTask(datetime(2030, 1, 1, tzinfo=UTC)) if error == "reschedule" else error

    journal = tmp_path / "journal"
    run_one(end, retries=retries, **journal_callbacks(journal))
    assert journal.read_text().splitlines() == ["execute: running None", *expected]


def test_callbacks_run_before_the_state_is_visible(engine: sa.Engine, tmp_path: Path, run_one: RunOne) -> None:
    seen = tmp_path / "seen"
    url = engine.url.render_as_string(hide_password=False)

    def look(context: Any) -> None:
        with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
            statement = sa.text("select state from task_instance where id = :id")
            seen.write_text(connection.execute(statement, {"id": context["ti"].task_instance_id}).scalar_one())

    run_one(lambda: None, on_success_callback=look)
    assert seen.read_text() == "running"


def test_mark_success_runs_the_callback_and_nothing_else(tmp_path: Path, run_one: RunOne) -> None:
    journal = tmp_path / "journal"

    def fail() -> None:
        raise ValueError

    stage, attempt = run_one(
        fail, job={"params": {"mark_success": True}}, op_args=["{{ nowhere }}"], **journal_callbacks(journal)
    )
    assert stage.state(attempt) == "success"
    assert journal.read_text().splitlines() == ["success: success None"]


def test_mark_success_needs_no_values_to_map_over(
    runner: Runner, engine: sa.Engine, settings: Settings, tmp_path: Path
) -> None:
    with DAG("marked") as dag:
        source = PythonOperator(task_id="source", python_callable=list)
        PythonOperator.partial(task_id="many", python_callable=print, **journal_callbacks(tmp_path / "journal")).expand(
            op_args=source.output
        )
    stage = Stage(engine, settings, dag, params={"mark_success": True})
    attempt = stage.queue("many")
    runner.run_bundle(stage.bundle(attempt))
    assert stage.state(attempt) == "success"
    assert (tmp_path / "journal").read_text().splitlines() == ["success: success None"]


def test_a_param_that_does_not_fit_is_a_failure_with_retries_and_callbacks(tmp_path: Path, run_one: RunOne) -> None:
    journal = tmp_path / "journal"
    stage, attempt = run_one(
        print,
        job={"conf": {"amount": "much"}},
        params={"amount": Param(1, type="integer")},
        retries=1,
        retry_delay=timedelta(seconds=7),
        **journal_callbacks(journal),
    )
    assert stage.state(attempt) == "up_for_retry"
    assert "The param 'amount' is 'much'" in str(stage.row(attempt).error)
    assert stage.column(attempt, "next_attempt_at") - stage.column(attempt, "end_date") == timedelta(seconds=7)
    assert journal.read_text().startswith("retry: up_for_retry UsageError")
