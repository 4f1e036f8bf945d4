"""Workers come and go while a backfill runs."""

from __future__ import annotations

import json
import os
import signal

import pytest
from lifecycle_stage import Stage
from processes import Rows


def test_two_workers_share_a_running_backfill(stage: Stage, rows: Rows) -> None:
    stage.hold()
    stage.worker(), stage.worker()
    run = stage.run(4)
    stage.wait_for_starts(2)  # each has one process
    assert len(rows.hostnames()) == 2
    stage.let_go()
    assert run.end() == 0, run.told
    stage.assert_each_started_once(4)
    assert len(rows.hostnames()) == 2


def test_what_a_killed_worker_ran_is_run_again_by_another(stage: Stage, rows: Rows) -> None:
    stage.hold()
    killed = stage.worker(2)
    run = stage.run(3)
    stage.wait_for_starts(2)
    killed.kill_all()
    stage.worker(3)
    stage.wait_for_starts(5)
    stage.let_go()
    assert run.end() == 0, run.told
    stage.assert_each_ended_once(3)
    assert rows.outcomes() == {"lost": 2, "success": 6}
    assert rows.tries() == {1}  # lost attempts are paid from a budget of their own


def test_what_a_killed_process_of_a_worker_ran_is_run_again_at_once(stage: Stage, rows: Rows) -> None:
    stage.hold()
    stage.worker(task__heartbeat_timeout=60)
    run = stage.run(1, task__heartbeat_timeout=60)
    stage.wait_for_starts(1)
    os.kill(stage.journal()[0].pid, signal.SIGKILL)
    stage.wait_for_starts(2)
    stage.let_go()
    assert run.end() == 0, run.told
    stage.assert_each_ended_once(1)
    assert rows.outcomes() == {"lost": 1, "success": 2}


@pytest.mark.slow
def test_a_task_that_ends_its_process_each_time_fails_and_the_rest_goes_on(stage: Stage, rows: Rows) -> None:
    (stage.here / "deadly").touch()
    stage.worker(2)
    run = stage.run(2, "-o", "json", task__infrastructure_retries=2)
    assert run.end() == 1, run.told
    report = json.loads(run.printed)
    [failed] = [error for error in report["errors"] if error["kind"] == "failed"]
    assert (failed["task_id"], failed["logical_date"][:10], failed["try_number"]) == ("first", "2024-01-01", 1)
    assert "exitcode 3" in failed["error"]
    assert "its infrastructure budget of 2 lost attempts (task.infrastructure_retries) is used up" in failed["error"]
    assert stage.count("start")["first", "2024-01-01"] == 3
    assert report["tasks"] == {
        "total": 4,
        "success": 2,
        "failed": 1,
        "skipped": 0,
        "upstream_failed": 1,
        "running": 0,
        "waiting": 0,
    }


@pytest.mark.slow
def test_a_task_that_ends_its_process_each_time_fails_by_its_budget_also_in_the_company_of_short_ones(
    stage: Stage, rows: Rows
) -> None:
    (stage.here / "deadly").touch()
    stage.worker(2)
    # backwards: when the deadly one comes, its task is known to be short and shares a message with others
    run = stage.run(31, "-B", "-o", "json", "--continue-on-failures", task__infrastructure_retries=2)
    assert run.end(120) == 1, run.told
    report = json.loads(run.printed)
    assert (report["tasks"]["success"], report["tasks"]["failed"], report["tasks"]["upstream_failed"]) == (60, 1, 1)
    [failed] = [error for error in report["errors"] if error["kind"] == "failed"]
    assert (failed["task_id"], failed["logical_date"][:10], failed["try_number"]) == ("first", "2024-01-01", 1)
    assert "its infrastructure budget of 2 lost attempts" in failed["error"]
    assert stage.count("start")["first", "2024-01-01"] == 3
    others = rows.ask("select try_number, infrastructure_failures from task_instance where state = 'success'")
    assert {(row.try_number, row.infrastructure_failures) for row in others} == {(1, 0)}


@pytest.mark.slow
def test_a_worker_that_is_told_to_stop_lets_its_task_end(stage: Stage, rows: Rows) -> None:
    stage.hold()
    stopped = stage.worker(worker__soft_shutdown_timeout=60)
    run = stage.run(1)
    stage.wait_for_starts(1)
    stopped.send(signal.SIGTERM)
    stage.wait_until(lambda: "stops: its tasks have" in stopped.told, "the worker stops")
    stage.let_go()
    assert stopped.end() == 0
    stage.worker()
    assert run.end() == 0, run.told
    stage.assert_each_started_once(1)
    assert rows.outcomes() == {"success": 2}


def test_what_a_stopped_worker_hands_back_another_takes_at_once(stage: Stage, rows: Rows) -> None:
    stage.hold()
    patient = {"task__heartbeat_timeout": 60, "task__queued_timeout": 60}
    stopped = stage.worker(**patient)
    run = stage.run(1, **patient)
    stage.wait_for_starts(1)
    stage.worker(**patient)
    stopped.send(signal.SIGTERM)
    stage.wait_for_starts(2)
    stage.let_go()
    assert stopped.end() == 0
    assert run.end() == 0, run.told
    stage.assert_each_ended_once(1)
    assert rows.outcomes() == {"none": 1, "success": 2}
    assert {row.infrastructure_failures for row in rows.ask("select * from task_instance")} == {0}
