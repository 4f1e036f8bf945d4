"""Which processes exist, and whether one is still the one that it was."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: Seconds between two looks at something that has no event to wait for.
_POLL = 0.01


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Return True as soon as `condition` holds, False when it did not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL)
    return True


@dataclass(frozen=True, slots=True)
class Process:
    """A process that lives: one that has ended but is not reaped yet does not."""

    #: Name of the program, without its folder.
    program: str
    #: A text that no process of the same pid has had before or will have later.
    birth: str


def find_process(pid: int) -> Process | None:
    """Return the process `pid`; None when there is none."""
    return _find_by_proc(pid) if sys.platform == "linux" else _find_by_ps(pid)


def _find_by_proc(pid: int) -> Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    program, _, rest = stat.partition("(")[2].rpartition(")")  # the name may hold blanks and parentheses
    state, *fields = rest.split()
    start_ticks = fields[18]
    return None if state in "ZX" else Process(program, f"{_namespace()} {start_ticks}")


def _namespace() -> str:
    """Return what a pid and a start time are relative to: this boot, and this container."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _find_by_ps(pid: int) -> Process | None:
    answer = subprocess.run(
        ["/bin/ps", "-o", "stat=,lstart=,comm=", "-p", str(pid)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={"LC_ALL": "C"},
    )
    state, *fields = answer.stdout.split() or ["Z"]
    start, command = fields[:5], fields[5:]  # "Sun Nov 22 09:00:00 2026", then the program, whose path may hold blanks
    return None if state.startswith("Z") else Process(Path(" ".join(command)).name, " ".join(start))


def processes_in(folder: Path) -> list[int]:
    """Return the pids whose working folder is `folder`: a server's own, and only they.

    Those that this process may not look into are left out, and all of them where there is no /proc.
    """
    return [pid for pid in _all_pids() if _working_folder(pid) == folder]


def may_work_in(pid: int, folder: Path) -> bool:
    """Whether the working folder of process `pid` is `folder`, or cannot be told."""
    return _working_folder(pid) in {folder, None}


def _all_pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208  # names, of folders that vanish
    except FileNotFoundError:
        return []


def _working_folder(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:  # ended meanwhile, or out of sight
        return None
