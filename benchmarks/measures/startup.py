"""How long an operator waits: `backfill run` until its first task instance starts, and `backfill --help`.

`backfill run` of one no-op task with nothing configured, in a home whose servers were made and stopped before, and no worker anywhere:
the command starts PostgreSQL, Valkey and a worker itself, and stops them at its end. Time is from the start of the process (wall clock)
to the `start_date` of the first attempt (the database's clock, which is the same machine's). Then the same while the servers run already.
`backfill --help` is timed from the start of the process to its end.
"""

from __future__ import annotations

import sys

from benchmarks import rows
from benchmarks.ground import Ground
from benchmarks.measurement import Found, Mode, at_most, middle
from benchmarks.processes import call

KEY = "startup"
TITLE = "Start of a command"
LIMITS = {Mode.FULL: 300, Mode.QUICK: 60}

_RUNS = {Mode.FULL: 5, Mode.QUICK: 1}
_HELPS = {Mode.FULL: 15, Mode.QUICK: 3}


def measure(ground: Ground, mode: Mode) -> Found:
    """Return the times to the first task instance and to the help."""
    cold, warm = [], []
    for _ in range(_RUNS[mode]):
        with ground.stopped():
            run = ground.run("tasks", 1, parameters={"BENCH_TASKS": 1})
        cold.append(rows.first_start(ground, run.dag_id) - run.began)
        if mode is Mode.QUICK:
            continue
        run = ground.run("tasks", 1, parameters={"BENCH_TASKS": 1})
        warm.append(rows.first_start(ground, run.dag_id) - run.began)
    log = ground.log("help")
    command = [sys.executable, "-m", "backfill", "--help"]
    helps = [call(command, ground.environment(), log, cwd=ground.home) for _ in range(_HELPS[mode])]
    return Found(
        figures=[
            middle("`backfill run`, first task instance started, servers stopped before", cold, "s", goal=at_most(2.5)),
            *([middle("the same with the servers running", warm, "s")] if warm else []),
            middle("`backfill --help`", helps, "s", goal=at_most(0.25)),
        ],
        sizes={"runs": _RUNS[mode], "helps": _HELPS[mode]},
    )
