"""Orders from another terminal: `pause`, `resume` and `cancel` while a backfill runs."""

from __future__ import annotations

import json

from lifecycle_stage import Command, Rows, Stage

#: So long that nothing but a message wakes the process that drives the job within the test.
PATIENT = {"coordinator__heartbeat_interval": 20}


def drive_with_two_running(stage: Stage, days: int = 3, **settings: object) -> Command:
    """Start a worker with two processes and a backfill, and return it once both have a task that waits."""
    stage.hold()
    stage.worker(2)
    run = stage.run(days, **settings)
    stage.wait_for_starts(2)
    return run


def ordered(stage: Stage, order: str, rows: Rows, *arguments: str, **settings: object) -> Command:
    """Give an order about the only job, and return the command when it has ended."""
    command = stage.start(order, str(rows.job.id), *arguments, **settings)
    command.end()
    return command


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
