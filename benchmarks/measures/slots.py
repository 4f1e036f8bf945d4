"""The share of the workers' time that tasks get: tasks that sleep for a second, on 64 worker children.

One `backfill worker -c 64`, a DAG of 64 independent tasks that sleep for one second each, N dates, 128 in flight (the default pool). The
share is the seconds slept (the number of tasks) by the seconds that 64 slots had from the first start to the last end: what is
missing are claims, ends, waits for the next message, and the slots that have nothing left at the end.
"""

from __future__ import annotations

from benchmarks import rows
from benchmarks.figures import median
from benchmarks.ground import Ground
from benchmarks.measurement import Found, Mode, at_least, middle

KEY = "slots"
TITLE = "Share of slot time spent in user code"
LIMITS = {Mode.FULL: 600, Mode.QUICK: 60}

SLOTS = 64
_DATES = {Mode.FULL: 20, Mode.QUICK: 2}
_RUNS = {Mode.FULL: 3, Mode.QUICK: 1}


def measure(ground: Ground, mode: Mode) -> Found:
    """Return the share of slot time in user code."""
    dates = _DATES[mode]
    shares, idle = [], []
    with ground.worker(SLOTS):
        ground.run(
            "tasks", 2, "--workers", "0", parameters={"BENCH_TASKS": SLOTS}
        )  # every child has imported everything
        for _ in range(_RUNS[mode]):
            run = ground.run("tasks", dates, "--workers", "0", parameters={"BENCH_TASKS": SLOTS, "BENCH_SECONDS": 1})
            idle.append(1000 * median(rows.idle_times(ground, run.dag_id)))
            shares.append(100 * dates / rows.seconds_from_start(ground, run.dag_id, SLOTS * dates))
    return Found(
        figures=[
            middle("64 slots, tasks of one second", shares, "%", goal=at_least(97)),
            middle("end of a task to the start of the next one in the same child", idle, "ms"),
        ],
        sizes={"slots": SLOTS, "tasks": SLOTS * dates, "runs": _RUNS[mode]},
    )
