"""What `doctor` thinks of what it finds."""

from __future__ import annotations

import platform
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import pytest

from backfill.cli.doctor import judge_clock, judge_workers
from backfill.executors.presences import WorkerPresence
from backfill.messages import WIRE_VERSION

NOW = datetime(2024, 1, 1, tzinfo=UTC)
WORKER = WorkerPresence(
    hostname="w@host",
    version=version("backfill"),
    python=platform.python_version(),
    concurrency=2,
    queues=("backfill", "small"),
    wire_version=WIRE_VERSION,
    time=NOW - timedelta(seconds=3),
)


def test_a_worker_like_this_installation_is_fine() -> None:
    [found] = judge_workers([WORKER], "backfill", NOW)
    assert (found.check, found.state, found.exit_code) == ("worker w@host", "ok", 0)
    assert found.detail.startswith("2 processes for backfill, small, backfill ")


@pytest.mark.parametrize(
    ("worker", "fault"),
    [
        (replace(WORKER, version="0.0.1"), f"it has backfill 0.0.1, this machine {version('backfill')}"),
        (replace(WORKER, python="3.9.1"), "it has Python 3.9.1, which loads no DAG shipped by "),
        (replace(WORKER, wire_version=0), f"it reads messages of version 0, {WIRE_VERSION} are sent"),
        (replace(WORKER, time=NOW - timedelta(minutes=5)), "its clock is 300 s off"),
        (replace(WORKER, time=NOW + timedelta(minutes=5)), "its clock is 300 s off"),
    ],
)
def test_a_worker_that_differs_is_a_warning_that_says_how(worker: WorkerPresence, fault: str) -> None:
    [found] = judge_workers([worker], "backfill", NOW)
    assert (found.state, found.exit_code) == ("warning", 0)
    assert fault in found.detail


def test_all_faults_of_a_worker_are_named() -> None:
    [found] = judge_workers([replace(WORKER, version="0.0.1", wire_version=0)], "backfill", NOW)
    assert found.detail.count("; ") == 1


@pytest.mark.parametrize("workers", [[], [replace(WORKER, queues=("small",))]])
def test_that_nobody_listens_to_the_queue_is_a_warning(workers: list[WorkerPresence]) -> None:
    *_, found = judge_workers(workers, "backfill", NOW)
    assert (found.check, found.state) == ("workers", "warning")
    assert found.detail == "None listens to the queue 'backfill'; start one with `backfill worker`."


@pytest.mark.parametrize(
    ("seconds", "state", "detail"),
    [
        (0.0123, "ok", "0.012 s ahead of this machine's"),
        (-0.5, "ok", "0.500 s behind this machine's"),
        (-90.0, "warning", "90.000 s behind"),
        (2.0, "warning", "2.000 s ahead"),
    ],
)
def test_clocks_that_differ_by_more_than_a_second_are_a_warning(seconds: float, state: str, detail: str) -> None:
    found = judge_clock("broker", timedelta(seconds=seconds))
    assert (found.check, found.state) == ("clock of the broker", state)
    assert found.detail.startswith(detail)
