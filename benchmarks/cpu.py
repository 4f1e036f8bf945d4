"""CPU time by the parts of the system: on a machine that others use too it tells more than the clock."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.ground import Ground


def threads_seconds(pid: int) -> float:
    """Return the CPU time that the living threads of a process have used, by the scheduler's own count in nanoseconds."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text(encoding="utf-8").split()[0]) for thread in threads) / 1e9


def process_seconds(pid: int) -> float:
    """Return the CPU time of one process and of those of its children that have ended and been waited for."""
    return _ticks(_stat(pid)) / os.sysconf("SC_CLK_TCK")


def tree_seconds(pid: int) -> float:
    """Return the CPU time of a process and of all that descend from it, those that have ended included."""
    stats = {int(folder.name): _stat(int(folder.name)) for folder in Path("/proc").iterdir() if folder.name.isdecimal()}
    family, found = {pid}, 0
    while len(family) > found:
        found = len(family)
        family |= {child for child, fields in stats.items() if fields and int(fields[1]) in family}
    return sum(_ticks(stats[member]) for member in family if member in stats) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """Return the fields of `/proc/PID/stat` from the third on; none for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _ticks(fields: list[str]) -> int:
    """Return user and system time, own and that of children that were waited for."""
    return sum(int(each) for each in fields[11:15])


class CpuByPart:
    """Takes the CPU time of each part of the system between two moments."""

    def __init__(self, ground: Ground, workers: Mapping[str, int]) -> None:
        """Look at these workers, process ids by name, at the servers of `ground`, and at what this process itself does and starts."""
        self._workers = dict(workers)
        with ground.broker() as client:
            info: Any = client.info("server")
        self._servers = {"PostgreSQL": ground.postmaster(), "Valkey": int(info["process_id"])}
        self._before = self._now()

    def start(self) -> None:
        """Count from now on."""
        self._before = self._now()

    def taken(self) -> dict[str, float]:
        """Return the seconds since the start, by part."""
        return {part: seconds - self._before[part] for part, seconds in self._now().items()}

    def _now(self) -> dict[str, float]:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = {"command": children.ru_utime + children.ru_stime, "client": time.process_time()}
        found |= {name: tree_seconds(pid) for name, pid in self._servers.items()}
        for name, pid in self._workers.items():
            main = process_seconds(pid)
            found |= {name: main, f"{name}'s children": tree_seconds(pid) - main}
        return found
