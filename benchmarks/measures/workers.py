"""One, two and four workers on sleeping tasks, and whether throughput grows with them.

Workers of eight children each (`backfill worker -c 8`), tasks that sleep for S seconds, as many for each worker that all have the same
to do. A task uses next to no CPU, so that the machine's cores do not limit what several workers can do. Throughput is tasks by the
seconds from the first start to the last end. Rounds of one, two and (not in a quick run) four workers take turns;
the ratio is taken in each round.
"""

from __future__ import annotations

from benchmarks import rows
from benchmarks.figures import ratios
from benchmarks.ground import Ground
from benchmarks.measurement import Found, Mode, middle

KEY = "workers"
TITLE = "One, two and four workers on sleeping tasks"
LIMITS = {Mode.FULL: 600, Mode.QUICK: 60}

CHILDREN = 8
_SECONDS = {Mode.FULL: 1.0, Mode.QUICK: 0.5}
#: Tasks for each child.
_EACH = {Mode.FULL: 10, Mode.QUICK: 2}
_ROUNDS = {Mode.FULL: 3, Mode.QUICK: 1}
#: How many workers; each has to be started.
_WORKERS = {Mode.FULL: (1, 2, 4), Mode.QUICK: (1, 2)}


def measure(ground: Ground, mode: Mode) -> Found:
    """Return the throughput of two and four workers against one."""
    taken: dict[int, list[float]] = {workers: [] for workers in _WORKERS[mode]}
    for _ in range(_ROUNDS[mode]):
        for workers, rates in taken.items():
            rates.append(_tasks_per_second(ground, mode, workers))
    return Found(
        figures=[
            *(
                middle(
                    f"{workers} workers against one", ratios(rates, taken[1]), "×", note=f"{workers} is in proportion"
                )
                for workers, rates in taken.items()
                if workers > 1
            ),
            middle("one worker, tasks per second", taken[1], "1/s", note=f"at most {CHILDREN / _SECONDS[mode]:g}"),
        ],
        sizes={"children each": CHILDREN, "sleep": f"{_SECONDS[mode]} s", "tasks each": _EACH[mode] * CHILDREN},
    )


def _tasks_per_second(ground: Ground, mode: Mode, workers: int) -> float:
    tasks, dates = CHILDREN * workers, _EACH[mode]
    with ground.worker(CHILDREN, processes=workers):
        parameters = {"BENCH_TASKS": tasks, "BENCH_SECONDS": _SECONDS[mode]}
        run = ground.run("tasks", dates, "--workers", "0", parameters=parameters)
    count = tasks * dates
    return count / rows.seconds_from_start(ground, run.dag_id, count)
