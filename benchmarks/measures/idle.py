"""What the coordinator costs while it waits for one long task.

A DAG of one task that waits until the measure lets it end, one `backfill worker -c 2`. When the task has run for a few seconds the
coordinator's process is observed for a while: CPU time of all its threads by `/proc`, statements by the times at which SQLAlchemy sent
them. CPU is in per cent of one core. Progress is not displayed, as no terminal is there.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.cpu import threads_seconds
from benchmarks.ground import Ground, Run
from benchmarks.measurement import Found, Mode, at_most, middle
from benchmarks.processes import wait_until

KEY = "idle"
TITLE = "Coordinator that waits"
LIMITS = {Mode.FULL: 240, Mode.QUICK: 40}

#: Seconds of one look.
_LOOK = {Mode.FULL: 20.0, Mode.QUICK: 4.0}
_LOOKS = {Mode.FULL: 3, Mode.QUICK: 1}
#: Seconds that the start of the job has to settle.
_SETTLING = 2.0


def measure(ground: Ground, mode: Mode) -> Found:
    """Return CPU and statements of a coordinator that waits."""
    pipe = ground.home / "bench" / "pipe"
    shares: list[float] = []
    moments: list[float] = []
    runs: list[Run] = []
    with ground.worker(2):
        os.mkfifo(pipe)
        runner = threading.Thread(target=lambda: runs.append(_run(ground, pipe)))
        runner.start()
        try:
            wait_until(lambda: _runs(ground), "the task runs", within=20)
            pid = _coordinator()
            time.sleep(_SETTLING)
            moments.append(time.monotonic())
            for _ in range(_LOOKS[mode]):
                used = threads_seconds(pid)
                time.sleep(_LOOK[mode])
                moments.append(time.monotonic())
                shares.append(100 * (threads_seconds(pid) - used) / (moments[-1] - moments[-2]))
        finally:
            _let_end(pipe)
            runner.join()
    sent = runs[0].observed["statement_times"]
    rates = [
        sum(begin <= moment < end for moment in sent) / (end - begin) for begin, end in itertools.pairwise(moments)
    ]
    return Found(
        figures=[
            middle("CPU of a core", shares, "%", goal=at_most(0.5)),
            middle("statements per second", rates, "1/s", goal=at_most(1)),
        ],
        sizes={"looks": _LOOKS[mode], "seconds each": _LOOK[mode]},
    )


def _run(ground: Ground, pipe: Path) -> Run:
    return ground.run("waiting", 1, "--workers", "0", parameters={"BENCH_PIPE": pipe}, observe=True)


def _runs(ground: Ground) -> bool:
    return bool(ground.rows("select 1 from task_instance where task_id = 'wait' and state = 'running'"))


def _coordinator() -> int:
    """Return the process of the command: the child of this one that runs `benchmarks.observed`."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8").split()
    threads = [
        child
        for task in Path("/proc/self/task").iterdir()
        for child in (task / "children").read_text(encoding="utf-8").split()
    ]
    for child in {*children, *threads}:
        if b"benchmarks.observed" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise RuntimeError("the command is no child of this process")


def _let_end(pipe: Path) -> None:
    with suppress(OSError):  # nobody reads: the task has not begun, and the worker's end takes care of it
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
