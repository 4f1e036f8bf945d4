"""A process that another command started ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CHILD = (
    "import signal, sys, os\n"
    "if '--without-pidfd' in sys.argv: del os.pidfd_open\n"
    "from backfill.cli.parent import stop_with_parent\n"
    "signal.signal(signal.SIGTERM, lambda *_: os._exit(17))\n"
    "stop_with_parent()\n"
    "print(os.getpid(), flush=True)\n"
    "signal.pause()\n"
)
PARENT = (
    "import os, subprocess, sys, signal\n"
    "environment = {**os.environ, 'BACKFILL_PARENT_PID': str(os.getpid())}\n"
    f"subprocess.Popen([sys.executable, '-c', {CHILD!r}, *sys.argv[1:]], env=environment)\n"
    "signal.pause()\n"
)


@pytest.mark.parametrize("arguments", [[], ["--without-pidfd"]])
def test_it_ends_when_its_parent_is_killed(wait_until: Callable[..., None], arguments: list[str]) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, *arguments], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    wait_until(lambda: not is_running(child), "the child has gone with its parent")


def is_running(pid: int) -> bool:
    """Tell whether a process runs; one that ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_without_a_parent_nothing_is_watched() -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True) as alone:
        assert alone.stdout is not None
        pid = int(alone.stdout.readline())
        assert is_running(pid)
        os.kill(pid, signal.SIGTERM)
        assert alone.wait(30) == 17
