"""Wide DAGs: two layers of 300 tasks with an edge between any two of them (90,000 edges), and a task mapped over 10,000 items.

`backfill run` with instant workers (see the coordinator's row), 128 in flight, 16 runs at a time. A tick is one round of the loop less the
time that it slept; the worst is by the wall clock, so that the database's answers and whatever else the machine does count. CPU
by the edge is that of the coordinator's process while it drives the job by the number of edges and dates; it is compared between 300, 100 and
one edge into each task of the second layer, with the same number of task instances, so that the cost of those does not differ.
"""

from __future__ import annotations

from benchmarks.figures import median, ratios
from benchmarks.ground import Ground, Run
from benchmarks.measurement import Found, Mode, at_most, middle

KEY = "layers"
TITLE = "Wide DAGs: edges and ticks"
LIMITS = {Mode.FULL: 3600, Mode.QUICK: 60}

WIDTH = 300
_DATES = {Mode.FULL: 50, Mode.QUICK: 1}
_ITEMS = {Mode.FULL: 10_000, Mode.QUICK: 3_000}
_ROUNDS = {Mode.FULL: 3, Mode.QUICK: 1}
_FANS = (300, 100, 1)


def measure(ground: Ground, mode: Mode) -> Found:
    """Return the worst ticks of both DAGs, and the cost of an edge."""
    dates, items = _DATES[mode], _ITEMS[mode]
    layered: dict[int, list[Run]] = {fan: [] for fan in _FANS}
    mapped = []
    with ground.instant_workers(items=items):
        for _ in range(_ROUNDS[mode]):
            for fan in _FANS:
                ground.empty()
                parameters = {"BENCH_WIDTH": WIDTH, "BENCH_FAN": fan}
                layered[fan].append(ground.run("layers", dates, "--workers", "0", parameters=parameters, observe=True))
            ground.empty()
            mapped.append(ground.run("mapped", 1, "--workers", "0", parameters={"BENCH_ITEMS": items}, observe=True))
    cpu = {fan: [run.observed["execute"]["cpu_seconds"] for run in runs] for fan, runs in layered.items()}
    by_edge = {fan: [1e6 * each / (fan * WIDTH * dates) for each in seconds] for fan, seconds in cpu.items()}
    worst = _worst(layered[300])
    return Found(
        figures=[
            middle("worst tick, 300 × 300 tasks", worst, "ms", goal=at_most(100), note=_beside(layered[300])),
            middle(
                f"worst tick, a task mapped over {items} items",
                _worst(mapped),
                "ms",
                goal=at_most(200),
                note=_beside(mapped),
            ),
            middle(
                "CPU by the edge, 90,000 edges against 30,000",
                ratios(by_edge[300], by_edge[100]),
                "×",
                goal=at_most(1.05),
                note="1 or less is flat",
            ),
            middle("CPU of the whole job, 90,000 edges against 300", ratios(cpu[300], cpu[1]), "×"),
            middle("CPU by the edge, 90,000 edges", by_edge[300], "µs"),
        ],
        sizes={"width": WIDTH, "dates": dates, "items": items, "rounds": _ROUNDS[mode]},
        raw={
            "layers": {str(fan): [run.observed["ticks"] for run in runs] for fan, runs in layered.items()},
            "mapped": [run.observed["ticks"] for run in mapped],
            "cpu_seconds": {str(fan): each for fan, each in cpu.items()},
        },
    )


def _worst(runs: list[Run]) -> list[float]:
    return [1000 * run.observed["ticks"]["worst_seconds"] for run in runs]


def _beside(runs: list[Run]) -> str:
    """Return what else the ticks were, medians over the runs."""
    ticks = [run.observed["ticks"] for run in runs]
    usual, rare, cpu = (
        1000 * median([tick[name] for tick in ticks]) for name in ("median_seconds", "p99_seconds", "worst_cpu_seconds")
    )
    return f"median tick {usual:.1f} ms, 99 % {rare:.1f} ms; most CPU in one {cpu:.0f} ms"
