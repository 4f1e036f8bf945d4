"""`backfill up`: everything in one terminal, and nothing of it left behind."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from lifecycle_stage import Stage
from pages import asked
from processes import Command, Rows

from backfill.embedded.users import UserRegister

WaitUntil = Callable[..., None]


def pids_of(stage: Stage, command: str) -> list[int]:
    """Return the processes that run a command of the household."""
    return sorted(pid for pid, line in stage.left().items() if f" -m backfill {command} " in line)


def started(stage: Stage, *arguments: str, workers: int = 1, **settings: object) -> Command:
    """Start `up`, and wait until worker and coordinator are ready."""
    up = stage.start("up", "--workers", str(workers), *arguments, **settings)
    for ready in ("│ The coordinator waits for submitted jobs", " listens to backfill with 1 process")[: 1 + workers]:
        stage.wait_until(
            lambda text=ready: text in up.told or up.process.poll() is not None, f"it says {ready!r}", timeout=60
        )
    assert up.process.poll() is None, up.told
    return up


def test_a_submitted_job_is_run_and_ctrl_c_ends_all_in_order(stage: Stage, rows: Rows, port: int) -> None:
    up = started(stage, "--flower-port", str(port))
    stage.submit(2)
    stage.wait_until(lambda: rows.job.state == "success", "the job has ended", timeout=60)
    stage.assert_each_started_once(2)
    stage.wait_until(lambda: asked(port, "/healthcheck"), "Flower answers")
    assert f"Flower: http://127.0.0.1:{port} (user backfill, password: see " in up.told
    assert "  backfill submit TARGET -s DATE -e DATE " in up.told
    assert "\x1b[" not in up.told
    assert up.printed == ""
    up.send(signal.SIGINT)
    assert up.end() == 0, up.told
    assert "Stopping, in order; Ctrl-C once more kills at once." in up.told
    assert stage.left() == {}


def test_a_process_that_dies_is_started_again(stage: Stage, rows: Rows) -> None:
    up = started(stage, "--no-flower")
    (first, *_) = pids_of(stage, "worker")
    os.kill(first, signal.SIGKILL)
    stage.wait_until(lambda: up.told.count(" listens to backfill with 1 process") == 2, "there is a worker again")
    assert "worker      │ was killed by SIGKILL; it is started again now\n" in up.told
    assert first not in pids_of(stage, "worker")
    stage.submit(1)
    stage.wait_until(lambda: rows.job.state == "success", "the job has ended", timeout=60)
    up.send(signal.SIGTERM)
    assert up.end() == 0, up.told


def test_jobs_that_are_left_paused_are_told_and_make_the_exit_code(stage: Stage, rows: Rows) -> None:
    stage.hold()
    up = started(stage, "--no-flower")
    stage.submit(1)
    stage.wait_for_starts(1)
    up.send(signal.SIGINT)
    assert up.end() == 130, up.told
    assert f"coordinator │ Job {rows.job.id} can be resumed: backfill resume {rows.job.id}\n" in up.told
    assert (rows.job.state, stage.left()) == ("paused", {})


def test_a_second_ctrl_c_kills_at_once(stage: Stage, rows: Rows) -> None:
    stage.hold()
    up = started(stage, "--no-flower", worker__soft_shutdown_timeout=100)
    stage.submit(1)
    stage.wait_for_starts(1)
    up.send(signal.SIGINT)
    stage.wait_until(lambda: "its tasks have 0:01:40 to end" in up.told, "the worker waits for its task")
    up.send(signal.SIGINT)
    assert up.end() == 130, up.told
    stage.wait_until(lambda: not stage.left(), "nothing is left")
    assert rows.job.state == "paused"


def test_where_flowers_port_is_held_all_else_goes_on_without_it(stage: Stage, rows: Rows) -> None:
    job_id = stage.submit(1)
    rows.write("update job set state = 'paused'")
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        up = started(stage, "--flower-port", str(port), workers=0)
        assert (
            f"Flower is left out: it cannot listen on 127.0.0.1 port {port} (Address already in use); "
            "give it another with --flower-port.\n"
        ) in up.told
        assert pids_of(stage, "flower") == []
        assert f"Job {job_id} of sales is paused: backfill resume {job_id}\n" in up.told
        up.send(signal.SIGINT)
        assert up.end() == 0, up.told


@pytest.mark.slow
def test_nothing_is_left_behind_where_it_was_killed(stage: Stage, home: Path) -> None:
    stage.hold()
    embedded = {"database__url": "", "celery__broker_url": "", "core__home": home}
    up = started(stage, "--no-flower", **embedded)
    submitted = stage.start("submit", "sales", "-s", "2024-01-01", **embedded)
    assert submitted.end() == 0, submitted.told
    stage.wait_for_starts(1)
    up.send(signal.SIGKILL)
    up.end()
    stage.wait_until(lambda: not stage.left(), "its processes have ended, and the servers with them", timeout=60)
    assert UserRegister(home / "embedded" / "users.json").living() == []
    told = stage.start("why", "1", **embedded)
    assert told.end() == 0, told.told
    assert told.printed.startswith("Job 1 of sales is paused, and nobody drives it; `backfill resume 1` goes on.")
