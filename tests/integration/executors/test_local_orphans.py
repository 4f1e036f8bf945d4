"""Local processes do not outlive the coordinator, however that ends."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import pytest
import sqlalchemy as sa
from stage import Stage, WaitUntil, is_running

from backfill.config import Settings
from backfill.executors.environment import settings_environment

SCRIPT = Path(__file__).with_name("coordinator_to_kill.py")


@pytest.fixture
def stage(engine: sa.Engine, settings: Settings, tmp_path: Path, wait_until: WaitUntil) -> Iterator[Stage]:
    stage = Stage("local", engine, settings, tmp_path, wait_until)
    yield stage
    stage.executor.end()


def test_a_local_process_does_not_outlive_a_coordinator_that_is_killed(stage: Stage, wait_until: WaitUntil) -> None:
    attempt = stage.queue("wait_for_file")
    order = json.dumps([stage.job_id, stage.pickle_hash, list(astuple(attempt.attempt))])
    environment = settings_environment(stage.settings, os.environ)
    with subprocess.Popen([sys.executable, str(SCRIPT), order], env=environment) as coordinator:
        stage.wait_for_journal("started")
        coordinator.kill()
    pid = stage.process_of(attempt)
    wait_until(lambda: not is_running(pid), "the process of the task is gone")
    stage.let_go()
    assert stage.journal() == ["started"]
