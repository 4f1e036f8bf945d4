"""What every executor promises (`BaseExecutor`), with real workers and real rows."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from stage import Stage, WaitUntil, Worker, is_running

from backfill.config import Settings
from backfill.executors import QueuedAttempt
from backfill.states import TaskInstanceState

BRIEF = {"worker.soft_shutdown_timeout": 1, "task.heartbeat_interval": 0.5, "task.heartbeat_timeout": 10}


@pytest.fixture(params=["local", "celery"])
def stage(
    request: pytest.FixtureRequest, engine: sa.Engine, settings: Settings, tmp_path: Path, wait_until: WaitUntil
) -> Iterator[Stage]:
    stage = Stage(request.param, engine, settings.override("the test", BRIEF), tmp_path, wait_until)
    yield stage
    stage.let_go()
    stage.executor.end()


@pytest.fixture
def worker(stage: Stage) -> Iterator[Worker | None]:
    worker = stage.worker()
    yield worker
    if worker is not None:
        worker.stop()


def ids(*attempts: QueuedAttempt) -> set[str]:
    return {attempt.attempt.attempt_id for attempt in attempts}


def test_the_end_of_every_attempt_is_reported_once_its_row_says_it(stage: Stage, worker: Worker | None) -> None:
    attempts = stage.send("succeed", "fail", "skip", "reschedule")
    events = stage.wait_for_end(*attempts)
    expected = ["success", "failed", "skipped", "up_for_reschedule"]
    assert [event.state for event in events] == expected
    assert [stage.row(attempt).state for attempt in attempts] == expected
    assert not any(event.infrastructure for event in events)
    assert [event.task_instance_id for event in events] == [attempt.attempt.task_instance_id for attempt in attempts]


def test_a_task_that_kills_its_process_is_an_infrastructure_failure_and_the_next_attempt_runs(
    stage: Stage, worker: Worker | None
) -> None:
    killed, after = stage.send("kill_itself", "succeed")
    event, _ = stage.wait_for_end(killed, after)
    assert event.state is TaskInstanceState.FAILED
    assert event.infrastructure
    assert "SIGKILL" in (event.info or "")
    assert stage.row(killed).state == "running"  # that is for the coordinator to judge
    assert stage.row(after).state == "success"


def test_a_process_killed_from_outside_is_an_infrastructure_failure(stage: Stage, worker: Worker | None) -> None:
    (attempt,) = stage.send("wait_for_file")
    stage.wait_for_journal("started")
    os.kill(stage.process_of(attempt), signal.SIGKILL)
    (event,) = stage.wait_for_end(attempt)
    assert event.infrastructure


def test_what_waits_and_what_runs_is_held_until_it_is_over(stage: Stage, worker: Worker | None) -> None:
    (running,) = stage.send("wait_for_file")
    stage.wait_for_journal("started")
    waiting = stage.send(*["succeed"] * 4)
    stranger = stage.queue("succeed")
    assert stage.executor.holds(ids(running, *waiting, stranger)) == ids(running, *waiting)
    stage.let_go()
    stage.wait_for_end(running, *waiting)
    assert stage.executor.holds(ids(running, *waiting)) == set()


def test_an_attempt_handed_over_twice_runs_once(stage: Stage, worker: Worker | None) -> None:
    (twice,) = stage.send("succeed")
    stage.executor.queue_task_instances([twice])
    (last,) = stage.send("succeed")
    stage.wait_for_end(twice, last)
    stage.wait_until(lambda: not stage.executor.holds(ids(twice)), "the second delivery is gone")
    assert stage.journal() == ["succeed", "succeed"]
    assert sum(event.attempt_id in ids(twice) for event in stage.events if event.state == "success") == 1


def test_a_revoked_attempt_does_not_run(stage: Stage) -> None:
    revoked, kept = stage.queue("succeed"), stage.queue("succeed")
    blockers = [stage.queue("wait_for_file") for _ in range(os.cpu_count() or 1)] if stage.name == "local" else []
    stage.executor.queue_task_instances([*blockers, revoked, kept])
    stage.void(revoked)
    stage.executor.revoke(ids(revoked))
    assert stage.executor.holds(ids(revoked, kept)) == ids(kept)
    stage.let_go()
    worker = stage.worker()
    try:
        stage.wait_for_end(kept)
    finally:
        if worker is not None:
            worker.stop()
    assert stage.journal().count("succeed") == 1
    assert stage.row(revoked).state == "none"


def test_terminating_an_attempt_whose_row_says_so_ends_its_task_only(stage: Stage, worker: Worker | None) -> None:
    (attempt,) = stage.send("wait_for_file")
    stage.wait_for_journal("started")
    stage.void(attempt)
    stage.executor.terminate(ids(attempt))
    stage.wait_for_end(*stage.send("succeed"))
    assert stage.journal() == ["started", "succeed"]


def test_the_successor_of_a_coordinator_adopts_what_waits_outside_of_it(stage: Stage) -> None:
    waiting, stranger = stage.queue("succeed"), stage.queue("succeed")
    if stage.name == "celery":
        stage.executor.queue_task_instances([waiting])
    stage.executor.end()
    stage.executor = stage.another_executor()
    adopted = stage.executor.adopt([waiting, stranger])
    assert adopted == (ids(waiting) if stage.name == "celery" else set())
    assert stage.executor.adopt([]) == set()


def test_the_end_leaves_neither_thread_nor_process_and_may_come_twice(stage: Stage, worker: Worker | None) -> None:
    others = {thread for thread in threading.enumerate() if "backfill" not in thread.name}
    (attempt,) = stage.send("wait_for_file")
    stage.wait_for_journal("started")
    stage.executor.end()
    stage.executor.end()
    assert set(threading.enumerate()) <= others
    if stage.name == "local":
        assert not is_running(stage.process_of(attempt))
        assert stage.row(attempt).state == "none"  # handed back (S3.15)
    else:
        assert stage.row(attempt).state == "running"  # work on remote workers goes on (S11.4)


def test_a_report_ends_a_wait_and_a_wait_ends_by_itself(stage: Stage, worker: Worker | None) -> None:
    assert not stage.executor.wait(0)
    stage.send("succeed")
    assert stage.executor.wait(60)
    assert stage.executor.get_event_buffer()
