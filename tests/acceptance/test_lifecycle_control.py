"""Orders from another terminal: `pause`, `resume` and `cancel` while a backfill runs."""

from __future__ import annotations

import json

import pytest
from lifecycle_stage import Stage
from processes import Command, Ended, Rows

#: So long that only an order of the coordinator stops a running task within the test.
UNAWARE = {"task__heartbeat_interval": 20, "task__heartbeat_timeout": 100}
#: So long that nothing but a message wakes the process that drives the job within the test.
PATIENT = {"coordinator__heartbeat_interval": 20}


def drive_with_two_running(stage: Stage, days: int = 3, **settings: object) -> Command:
    """Start a worker with two processes and a backfill, and return it once both have a task that waits."""
    stage.hold()
    stage.worker(2, **settings)
    run = stage.run(days, **settings)
    stage.wait_for_starts(2)
    return run


def ordered(stage: Stage, order: str, rows: Rows, *arguments: str, **settings: object) -> Ended:
    """Give an order about the only job, and return the command when it has ended."""
    return stage.do(order, str(rows.job.id), *arguments, **settings)


def test_a_pause_is_obeyed_at_once_and_what_runs_ends_by_itself(stage: Stage, rows: Rows) -> None:
    run = drive_with_two_running(stage, **PATIENT)
    stage.wait_until(lambda: rows.states()["queued"] == 1, "the third has no worker yet")
    paused = ordered(stage, "pause", rows, **PATIENT)
    assert (paused.end(), paused.told) == (0, "")
    job_id = rows.job.id
    assert paused.printed == (
        f"Job {job_id} is paused: nothing more of it is started. `backfill resume {job_id}` goes on.\n"
    )
    stage.wait_until(
        lambda: rows.states() == {"running": 2, "none": 4}, "what nobody claimed is taken back", timeout=15
    )
    stage.wait_until(lambda: f"Job {job_id} is paused: nothing more is started until it is" in run.told, "it says so")
    again = ordered(stage, "pause", rows, "-o", "json", **PATIENT)
    assert (again.end(), json.loads(again.printed)["state"]) == (0, "paused")
    stage.let_go()
    stage.wait_until(lambda: rows.states() == {"success": 2, "none": 4}, "what ran has ended")
    assert rows.job.lease_holder is not None
    resumed = ordered(stage, "resume", rows, **PATIENT)
    assert resumed.end() == 0, resumed.told
    assert run.end() == 0, run.told
    stage.assert_each_started_once(3)


def test_a_cancel_stops_what_runs_takes_back_what_waits_and_settles_all(stage: Stage, rows: Rows) -> None:
    patient = PATIENT | UNAWARE
    stage.hold()
    stage.worker(2, **patient)
    run = stage.run(3, "--max-active-runs", "2", **patient)
    stage.wait_for_starts(2)
    cancelled = ordered(stage, "cancel", rows, **patient)
    job_id = rows.job.id
    assert cancelled.end() == 0, cancelled.told
    assert cancelled.printed == f"Job {job_id} is cancelled: nothing of it runs any more.\n"
    assert f"Job {job_id} is held by process {run.process.pid} on " in cancelled.told
    assert "which is to stop 2 running task instances" in cancelled.told
    assert run.end() == 4
    assert f"Job {job_id} of sales: cancelled after" in run.printed
    assert rows.job.state == "cancelled"
    assert rows.states() == {"failed": 2, "none": 2}
    assert {row.error for row in rows.ask("select error from task_instance where state = 'failed'")} != {None}
    assert [row.state for row in rows.ask("select state from dag_run")] == ["failed"] * 2
    stage.let_go()
    assert stage.count("end").total() == 0
    again = ordered(stage, "cancel", rows, "-o", "json", **patient)
    assert (again.end(), json.loads(again.printed)["state"]) == (0, "cancelled")
    refused = [ordered(stage, order, rows) for order in ("pause", "resume")]
    assert [command.end() for command in refused] == [5, 5]


def test_a_paused_job_is_cancelled_by_its_holder(stage: Stage, rows: Rows) -> None:
    run = drive_with_two_running(stage)
    assert ordered(stage, "pause", rows).end() == 0
    cancelled = ordered(stage, "cancel", rows)
    assert (cancelled.end(), run.end()) == (0, 4), cancelled.told
    assert (rows.job.state, rows.states()) == ("cancelled", {"failed": 2, "none": 4})


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--local"]], ids=["celery", "local"])
def test_a_task_that_will_not_stop_is_killed(stage: Stage, rows: Rows, flags: list[str]) -> None:
    (stage.here / "stubborn").touch()
    stage.hold()
    if not flags:
        stage.worker(2)
    run = stage.run(2, *flags, core__parallelism=2)
    stage.wait_for_starts(2)
    cancelled = ordered(stage, "cancel", rows)
    assert (cancelled.end(), run.end()) == (0, 4), cancelled.told
    assert (rows.job.state, rows.states()) == ("cancelled", {"failed": 2, "none": 2})
    assert stage.count("end").total() == 0
    pids = {entry.pid for entry in stage.journal()}
    stage.wait_until(lambda: not pids & stage.left().keys(), "its task processes are gone")


def test_without_a_holder_the_command_cancels_the_job_itself(stage: Stage, rows: Rows) -> None:
    run = drive_with_two_running(stage, **UNAWARE)
    stage.wait_until(lambda: rows.states()["queued"] == 1, "the third has no worker yet")
    run.kill_all()
    cancelled = ordered(stage, "cancel", rows, **UNAWARE)
    assert cancelled.end() == 0, cancelled.told
    assert f"Job {rows.job.id} is being cancelled: 2 running task instances are told to stop." in cancelled.told
    assert (rows.job.state, rows.states()) == ("cancelled", {"failed": 2, "none": 4})
    assert rows.job.lease_epoch == 2
    stage.let_go()
    assert stage.count("end").total() == 0


def test_a_worker_that_no_order_reaches_learns_of_the_cancel_from_its_rows(stage: Stage, rows: Rows) -> None:
    run = drive_with_two_running(stage)
    run.kill_all()
    cancelled = ordered(stage, "cancel", rows, celery__broker_url="redis://127.0.0.1:1/0")
    assert cancelled.end() == 0, cancelled.told
    assert (rows.job.state, rows.states()) == ("cancelled", {"failed": 2, "none": 4})
    assert {row.error for row in rows.ask("select error from task_instance where state = 'failed'")} == {
        "the job was cancelled"
    }


def test_a_submitted_job_is_cancelled_before_and_while_a_coordinator_drives_it(stage: Stage, rows: Rows) -> None:
    stage.hold()
    stage.submit(1)
    waiting = ordered(stage, "cancel", rows)
    assert (waiting.end(), rows.job.state) == (0, "cancelled"), waiting.told
    rows.write("delete from job")
    stage.worker(1)
    stage.submit(1)
    coordinator = stage.start("coordinator")
    stage.wait_for_starts(1)
    driven = ordered(stage, "cancel", rows)
    assert (driven.end(), rows.job.state) == (0, "cancelled"), driven.told
    coordinator.process.terminate()
    assert coordinator.end() == 0, coordinator.told
