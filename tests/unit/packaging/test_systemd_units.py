"""The systemd units fit the program."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from project import ROOT, command_of_unit, read, seconds, understood

from backfill.config import Settings

FOLDER = "config/systemd"
UNITS = {
    "backfill-coordinator.service": "coordinator",
    "backfill-worker@.service": "worker",
    "backfill-flower.service": "flower",
}


@pytest.mark.parametrize("name", UNITS)
def test_each_unit_runs_a_command_that_exists(name: str) -> None:
    assert understood(command_of_unit(read(f"{FOLDER}/{name}"))) == UNITS[name]


def test_there_is_a_test_for_each_unit() -> None:
    assert {file.name for file in (ROOT / FOLDER).iterdir()} == set(UNITS)


def test_the_coordinator_does_not_start_on_a_schema_that_does_not_fit() -> None:
    assert understood(command_of_unit(read(f"{FOLDER}/backfill-coordinator.service"), "ExecStartPre")) == "db check"


def test_a_worker_has_time_to_hand_its_tasks_back() -> None:
    timeout = re.search(r"^TimeoutStopSec=(\d+)$", read(f"{FOLDER}/backfill-worker@.service"), re.MULTILINE)
    assert timeout is not None
    assert seconds(timeout[1]) >= Settings().worker.soft_shutdown_timeout.total_seconds() + 15


@pytest.mark.parametrize("name", UNITS)
def test_no_unit_runs_as_root(name: str) -> None:
    assert "\nUser=backfill\n" in read(f"{FOLDER}/{name}")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_each_unit(name: str, tmp_path: Path) -> None:
    unit = tmp_path / name.replace("@", "@1")
    text = read(f"{FOLDER}/{name}")
    text = re.sub(r"^(ExecStart(?:Pre)?)=\S+", r"\1=/bin/true", text, flags=re.MULTILINE)
    unit.write_text(text.replace("User=backfill\n", ""))
    verdict = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert [line for line in verdict.stderr.splitlines() if unit.name in line] == []
