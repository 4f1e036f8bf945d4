"""Broker and database go away while a backfill runs, and come back."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from lifecycle_stage import QUICK, Stage
from processes import Rows, rows_of

from backfill.config import Settings
from backfill.coordinator.broker import connect
from backfill.embedded import Endpoints, Servers
from backfill.embedded.processes import processes_in
from backfill.migrations import upgrade

WaitUntil = Callable[..., None]


@dataclass
class OwnServers:
    """Servers that the test may kill."""

    home: Path
    servers: Servers
    endpoints: Endpoints
    wait_until: WaitUntil

    def kill(self, name: str) -> None:
        folder = self.home / "embedded" / "data" / name
        for pid in processes_in(folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait_until(lambda: not processes_in(folder), f"{name} is gone")

    def empty(self, name: str) -> None:
        shutil.rmtree(self.home / "embedded" / "data" / name)

    def start_again(self) -> None:
        assert self.servers.acquire() == self.endpoints


@pytest.fixture
def servers(home: Path, wait_until: WaitUntil) -> Iterator[OwnServers]:
    with Servers(home, durable=False) as servers:
        yield OwnServers(home, servers, servers.acquire(), wait_until)


@pytest.fixture
def rows(servers: OwnServers) -> Iterator[Rows]:
    assert servers.endpoints.database_url
    with rows_of(servers.endpoints.database_url) as rows:
        upgrade(rows.engine)
        yield rows


@pytest.fixture
def stage(rows: Rows, servers: OwnServers, tmp_path: Path, wait_until: WaitUntil) -> Iterator[Stage]:
    """Return a stage on these servers, as servers that others run."""
    others = {
        "core.home": tmp_path / "home",
        "core.dags_folder": tmp_path / "dags",
        "database.url": servers.endpoints.database_url,
        "celery.broker_url": servers.endpoints.broker_url,
        "task.heartbeat_timeout": "30",
    }
    stage = Stage(Settings().override("the test", {**QUICK, **others}), tmp_path, wait_until)
    yield stage
    stage.close()


def test_without_a_broker_nothing_begins(stage: Stage, rows: Rows) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"redis://:deep@127.0.0.1:{nobody.getsockname()[1]}/0"
        run = stage.run(1, celery__broker_url=url)
        assert run.end() == 69
    [sentence] = run.told.splitlines()
    assert sentence.startswith("Error: The broker at redis://")
    assert "deep" not in sentence
    assert rows.job is None


def test_a_broker_that_is_killed_and_comes_back_empty_costs_only_time(
    stage: Stage, rows: Rows, servers: OwnServers
) -> None:
    stage.hold()
    worker = stage.worker(2)
    run = stage.run(4, task__queued_timeout=600)  # lost messages are sent again as soon as the broker is back
    stage.wait_for_starts(2)
    stage.wait_until(lambda: rows.states()["queued"] == 2, "two messages wait")
    servers.kill("valkey")
    servers.empty("valkey")
    stage.let_go()
    stage.wait_until(lambda: rows.states()["success"] == 2, "what runs ends without a broker")
    servers.start_again()
    assert run.end() == 0, run.told + worker.told
    stage.assert_each_started_once(4)


def test_a_database_that_is_killed_and_comes_back_costs_only_time(
    stage: Stage, rows: Rows, servers: OwnServers
) -> None:
    stage.hold()
    stage.worker(2)
    run = stage.run(3)
    stage.wait_for_starts(2)
    servers.kill("postgres")
    stage.let_go()
    stage.wait_until(lambda: stage.count("end").total() == 2, "what runs ends without a database")
    servers.start_again()
    rows.engine.dispose()
    assert run.end() == 0, run.told
    stage.assert_each_started_once(3)


@pytest.mark.slow
def test_a_coordinator_outlives_a_database_that_is_away_for_longer_than_its_lease(
    stage: Stage, rows: Rows, servers: OwnServers
) -> None:
    stage.hold()
    stage.worker(1)
    run = stage.run(2, coordinator__heartbeat_interval=0.1)
    stage.wait_for_starts(1)
    servers.kill("postgres")
    with pytest.raises(subprocess.TimeoutExpired):
        run.end(3)
    servers.start_again()
    rows.engine.dispose()
    stage.let_go()
    assert run.end() == 0, run.told
    stage.assert_each_started_once(2)
    assert rows.job.lease_epoch == 1


@pytest.mark.slow
def test_a_broker_that_forgets_everything_costs_only_time(stage: Stage, rows: Rows, servers: OwnServers) -> None:
    stage.hold()
    stage.worker(2)
    run = stage.run(5, task__queued_timeout=600)
    stage.wait_for_starts(2)
    stage.wait_until(lambda: rows.states()["queued"] == 3, "three messages wait")
    assert servers.endpoints.broker_url
    with connect(servers.endpoints.broker_url) as client:
        client.flushall()
    stage.let_go()
    assert run.end() == 0, run.told
    stage.assert_each_started_once(5)
