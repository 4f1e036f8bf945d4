"""The process that drives a job is interrupted, frozen or killed, and another goes on."""

from __future__ import annotations

import re
import signal

import pytest
from lifecycle_stage import Stage
from processes import Command, Rows


def drive_with_two_running(stage: Stage, days: int = 3, **settings: object) -> Command:
    """Start a worker with two processes and a backfill, and return it once both have a task that waits."""
    stage.hold()
    stage.worker(2)
    run = stage.run(days, **settings)
    stage.wait_for_starts(2)
    return run


def wait_for_epoch(stage: Stage, rows: Rows, epoch: int) -> None:
    stage.wait_until(
        lambda: rows.job.lease_epoch == epoch and rows.job.lease_holder, f"the job's lease is number {epoch}"
    )


def test_after_a_crash_resume_waits_for_the_lease_and_adopts_what_runs(stage: Stage, rows: Rows) -> None:
    patient = {"coordinator__heartbeat_interval": 1.5}  # a lease of nine seconds: the command is there before its end
    run = drive_with_two_running(stage, **patient)
    run.kill_all()
    resumed = stage.start("resume", str(rows.job.id), **patient)
    wait_for_epoch(stage, rows, 2)
    assert re.search(
        rf"Job {rows.job.id} is held by process {run.process.pid} on \S+, which was heard of \d s ago; "
        r"if it stays silent, this command takes over in \d s\.\n",
        resumed.told,
    )
    stage.let_go()
    assert resumed.end() == 0, resumed.told
    stage.assert_each_started_once(3)


def test_resume_is_refused_while_the_holder_lives(stage: Stage, rows: Rows) -> None:
    patient = {"coordinator__heartbeat_interval": 1}
    run = drive_with_two_running(stage, days=2, **patient)
    resumed = stage.start("resume", str(rows.job.id), **patient)
    assert resumed.end() == 75
    assert f"Error: Job {rows.job.id} is driven by process {run.process.pid} on " in resumed.told
    assert "can be resumed" not in resumed.told
    stage.let_go()
    assert run.end() == 0, run.told
    stage.assert_each_started_once(2)


def test_an_interrupt_pauses_the_job_and_leaves_remote_tasks_alone(stage: Stage, rows: Rows) -> None:
    run = drive_with_two_running(stage)
    stage.wait_until(lambda: rows.states()["queued"] == 1, "the third has no worker yet")
    run.send(signal.SIGTERM)
    assert run.end() == 130
    job = rows.job
    assert run.told.splitlines()[-1] == f"Job {job.id} can be resumed: backfill resume {job.id}"
    assert (job.state, job.lease_holder) == ("paused", None)
    assert rows.states() == {"running": 2, "none": 4}  # what nobody had claimed is taken back
    assert {row.state for row in rows.ask("select state from dag_run")} == {"running"}
    stage.let_go()
    stage.wait_until(lambda: rows.states()["success"] == 2, "the running ones end by themselves")
    resumed = stage.start("resume", str(job.id))
    assert resumed.end() == 0, resumed.told
    stage.assert_each_started_once(3)


def test_a_second_interrupt_ends_the_command_at_once(stage: Stage, rows: Rows) -> None:
    stage.hold()
    (stage.here / "stubborn").touch()
    run = stage.run(2, "--local")
    stage.wait_for_starts(2)
    run.send(signal.SIGINT)
    stage.wait_until(lambda: rows.outcomes()["none"] == 2, "the first is obeyed")
    run.send(signal.SIGINT)
    assert run.end(5) == 130
    assert run.told.splitlines()[-1] == f"Job {rows.job.id} can be resumed: backfill resume {rows.job.id}"
    stage.wait_until(lambda: not stage.left(), "its task processes are gone", timeout=4)
    (stage.here / "stubborn").unlink()
    resumed = stage.start("resume", str(rows.job.id))
    stage.let_go()
    assert resumed.end() == 0, resumed.told
    stage.assert_each_ended_once(2)


@pytest.mark.slow
def test_an_interrupt_stops_local_tasks_and_they_cost_nothing(stage: Stage, rows: Rows) -> None:
    stage.hold()
    run = stage.run(2, "--local")
    stage.wait_for_starts(2)
    run.send(signal.SIGINT)
    assert run.end() == 130
    assert stage.left() == {}
    assert (rows.job.state, rows.outcomes()) == ("paused", {"none": 2})
    assert {row.infrastructure_failures for row in rows.ask("select * from task_instance")} == {0}
    stage.let_go()
    resumed = stage.start("resume", str(rows.job.id))
    assert resumed.end() == 0, resumed.told
    assert "is held by" not in resumed.told
    stage.assert_each_ended_once(2)


@pytest.mark.slow
def test_local_tasks_of_a_killed_coordinator_are_found_lost_at_the_takeover(stage: Stage, rows: Rows) -> None:
    stage.hold()
    patient = {"task__heartbeat_timeout": 60}
    run = stage.run(2, "--local", **patient)
    stage.wait_for_starts(2)
    run.process.kill()
    stage.wait_until(lambda: not stage.left(), "its task processes are gone")
    resumed = stage.start("resume", str(rows.job.id), **patient)
    stage.wait_for_starts(4)
    stage.let_go()
    assert resumed.end() == 0, resumed.told
    stage.assert_each_ended_once(2)
    assert rows.outcomes() == {"lost": 2, "success": 4}


def test_a_stopped_coordinator_leaves_its_jobs_paused(stage: Stage, rows: Rows) -> None:
    stage.hold()
    stage.worker(2)
    job_id = stage.submit(2)
    coordinator = stage.start("coordinator")
    stage.wait_for_starts(2)
    coordinator.send(signal.SIGTERM)
    assert coordinator.end() == 130
    assert f"Job {job_id} can be resumed: backfill resume {job_id}" in coordinator.told.splitlines()
    assert (rows.job.state, rows.job.lease_holder) == ("paused", None)
    stage.let_go()
    resumed = stage.start("resume", str(job_id))
    assert resumed.end() == 0, resumed.told
    stage.assert_each_started_once(2)


def test_of_two_coordinators_one_drives_and_the_other_takes_over(stage: Stage, rows: Rows) -> None:
    stage.hold()
    stage.worker(2)
    coordinators = [stage.start("coordinator") for _ in range(2)]
    stage.submit(3)
    stage.wait_for_starts(2)
    holder = rows.job.lease_holder.split(":")[1]
    [driving] = [each for each in coordinators if str(each.process.pid) == holder]
    [other] = [each for each in coordinators if each is not driving]
    assert rows.job.lease_epoch == 1
    driving.kill_all()
    wait_for_epoch(stage, rows, 2)
    assert rows.job.lease_holder.split(":")[1] == str(other.process.pid)
    stage.let_go()
    stage.wait_until(lambda: rows.job.state == "success", "the job has ended well")
    stage.assert_each_started_once(3)
    other.send(signal.SIGTERM)
    assert other.end() == 0


def test_a_frozen_coordinator_that_wakes_up_writes_nothing_and_says_so(stage: Stage, rows: Rows) -> None:
    run = drive_with_two_running(stage)
    run.send(signal.SIGSTOP)
    resumed = stage.start("resume", str(rows.job.id))
    wait_for_epoch(stage, rows, 2)
    run.send(signal.SIGCONT)
    assert run.end() == 75
    assert run.told.splitlines()[-1].startswith("Error: Another coordinator took")
    assert rows.job.state == "running"
    stage.let_go()
    assert resumed.end() == 0, resumed.told
    stage.assert_each_started_once(3)


def test_resume_of_a_paused_job_whose_holder_lives_lifts_the_pause(stage: Stage, rows: Rows) -> None:
    run = drive_with_two_running(stage)
    stage.wait_until(lambda: rows.states()["queued"] == 1, "the third has no worker yet")
    rows.write("update job set state = 'paused'")
    stage.wait_until(lambda: rows.states() == {"running": 2, "none": 4}, "what nobody claimed is taken back")
    stage.let_go()
    stage.wait_until(lambda: rows.states() == {"success": 2, "none": 4}, "what ran has ended")
    resumed = stage.start("resume", str(rows.job.id))
    assert resumed.end() == 0, resumed.told
    assert resumed.printed == f"The pause of job {rows.job.id} is lifted; the process that drives it goes on.\n"
    assert run.end() == 0, run.told
    assert rows.job.lease_epoch == 1
    stage.assert_each_started_once(3)


@pytest.mark.slow
def test_a_frozen_command_that_wakes_up_lets_its_local_tasks_end(stage: Stage, rows: Rows) -> None:
    stage.hold()
    run = stage.run(3, "--local", worker__concurrency=2)
    stage.wait_for_starts(2)
    run.send(signal.SIGSTOP)
    resumed = stage.start("resume", str(rows.job.id), worker__concurrency=2)
    wait_for_epoch(stage, rows, 2)
    run.send(signal.SIGCONT)
    stage.wait_until(lambda: "2 task processes of this machine are left to end by themselves" in run.told, "it knows")
    stage.let_go()
    assert run.end() == 75
    assert resumed.end() == 0, resumed.told
    stage.assert_each_started_once(3)
    assert rows.outcomes() == {"success": 6}


def test_a_job_that_cannot_be_loaded_is_left_paused_with_the_reason(stage: Stage, rows: Rows) -> None:
    job_id = stage.submit(1)
    rows.write("update dag_pickle set signature = 'forged'")
    coordinator = stage.start("coordinator")
    stage.wait_until(lambda: rows.job.state == "paused", "the job is paused")
    stage.wait_until(lambda: rows.job.lease_holder is None, "the lease is free")
    assert rows.job.error.startswith("FrozenDagError: ")
    coordinator.send(signal.SIGTERM)
    assert coordinator.end() == 0
    resumed = stage.start("resume", str(job_id))
    assert resumed.end() == 1
    assert len(resumed.told.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--local"]], ids=["celery", "local"])
def test_a_coordinator_that_is_killed_again_and_again_runs_nothing_twice(
    stage: Stage, rows: Rows, flags: list[str]
) -> None:
    if not flags:
        stage.worker(2)
    driving = stage.run(15, *flags, core__parallelism=3)
    for ended in (2, 9, 17):
        stage.wait_until(lambda: stage.count("end").total() >= ended, f"{ended} tasks have ended")  # noqa: B023
        driving.process.kill()
        driving.end()
        driving = stage.start("resume", str(rows.job.id), core__parallelism=3)
    assert driving.end() == 0, driving.told
    stage.assert_each_ended_once(15)
    if not flags:
        assert stage.count("start") == stage.count("end")


@pytest.mark.slow
def test_a_coordinator_that_lost_one_job_goes_on_with_others(stage: Stage, rows: Rows) -> None:
    stage.hold()
    stage.worker(2)
    job_id = stage.submit(2)
    frozen = stage.start("coordinator")
    stage.wait_for_starts(2)
    frozen.send(signal.SIGSTOP)
    other = stage.start("coordinator")
    wait_for_epoch(stage, rows, 2)
    frozen.send(signal.SIGCONT)
    stage.wait_until(lambda: f"Job {job_id} is not driven any more: Another" in frozen.told, "the frozen one says so")
    other.send(signal.SIGTERM)
    assert other.end() == 130
    stage.let_go()
    rows.write("update job set state = 'queued'")
    stage.wait_until(lambda: rows.job.state == "success", "the one that was frozen takes it again")
    frozen.send(signal.SIGTERM)
    assert frozen.end() == 0
    stage.assert_each_started_once(2)


@pytest.mark.slow
def test_a_coordinator_that_is_told_to_stop_twice_leaves_at_once(stage: Stage, rows: Rows) -> None:
    stage.hold()
    (stage.here / "stubborn").touch()
    submitted = stage.start("submit", "sales", "-s", "2024-01-01", "--local")
    assert submitted.end() == 0
    coordinator = stage.start("coordinator")
    stage.wait_for_starts(1)
    coordinator.send(signal.SIGTERM)
    stage.wait_until(lambda: rows.outcomes()["none"] == 1, "the first is obeyed")
    coordinator.send(signal.SIGTERM)
    assert coordinator.end(5) == 130, coordinator.told
    stage.wait_until(lambda: not stage.left(), "its task processes are gone", timeout=4)
