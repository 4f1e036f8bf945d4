"""`make demo`, without make: what it shows, and that it stands being killed in the middle."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, str(ROOT / "examples" / "flights_demo.py")]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def environment(home: Path, tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "BACKFILL_HOME": str(home), "XDG_CACHE_HOME": str(tmp_path), "COLUMNS": "100"}


def processes_of(home: Path) -> set[int]:
    """All processes that have to do with a home: commands by their environment, servers by their arguments."""
    mark, found = str(home).encode(), set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
        except OSError:
            continue  # it has ended, or is none of ours
    return found - {os.getpid()}


def is_complete(output: str) -> bool:
    return (
        "27,004 departures on 31 days from 2013-01-01 to 2013-01-31" in output
        and "217 of 217 finished" in output
        and re.search(r"2013-01-02 .* Wednesday .* 943 ", output) is not None
    )


def test_the_demo_shows_the_warehouse_and_the_job_and_leaves_nothing_running(
    home: Path, environment: dict[str, str], wait_until: Callable[..., None]
) -> None:
    for _ in range(2):
        demo = subprocess.run(COMMAND, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert demo.returncode == 0, demo.stderr
        assert is_complete(demo.stdout), demo.stdout
        wait_until(lambda: not processes_of(home), "everything that the demo started has ended")


def test_a_demo_that_was_killed_is_gone_on_with(
    home: Path, environment: dict[str, str], wait_until: Callable[..., None]
) -> None:
    with subprocess.Popen(
        COMMAND, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as demo:
        assert demo.stderr is not None
        for line in demo.stderr:
            succeeded = re.search(rb"succeeded (\d+)", line)
            if succeeded and int(succeeded[1]) >= 20:
                break
        for pid in processes_of(home):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not processes_of(home), "everything is dead")
    again = subprocess.run(COMMAND, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "$ backfill resume " in again.stdout
    assert is_complete(again.stdout), again.stdout
