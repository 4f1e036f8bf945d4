"""From the end of a task to the start of the one behind it, on a system that does nothing else.

A chain of 50 no-op tasks, one run at a time, one `backfill worker -c 2`: there is never more than one task instance to run. A gap is
the `start_date` of an attempt less the `end_date` of the one before it in the chain, both by the database's clock, from
`task_attempt`. It holds everything between the tasks: the commit of the end, the event, the coordinator's round with its dispatch, the
message, the claim. Percentiles are over all gaps of all runs, by nearest rank; the samples are the medians of the single runs.
"""

from __future__ import annotations

from benchmarks import rows
from benchmarks.figures import median, percentile
from benchmarks.ground import Ground
from benchmarks.measurement import Figure, Found, Mode, at_most

KEY = "latency"
TITLE = "Upstream's end to downstream's start, idle system"
LIMITS = {Mode.FULL: 600, Mode.QUICK: 60}

LENGTH = 50
_DATES = {Mode.FULL: 4, Mode.QUICK: 1}
_RUNS = {Mode.FULL: 5, Mode.QUICK: 1}


def measure(ground: Ground, mode: Mode) -> Found:
    """Return median and 99th percentile of the gaps in a chain."""
    runs = []
    with ground.worker(2):
        for _ in range(_RUNS[mode]):
            run = ground.run("chain", _DATES[mode], "--workers", "0", parameters={"BENCH_TASKS": LENGTH})
            runs.append([1000 * gap for gap in rows.gaps(ground, run.dag_id)])
    gaps = [gap for run in runs for gap in run]
    note = f"{len(gaps)} gaps, the longest {max(gaps):.1f} ms"
    return Found(
        figures=[
            Figure("median", median(gaps), "ms", [median(run) for run in runs], at_most(10), note),
            Figure("99 %", percentile(gaps, 0.99), "ms", [percentile(run, 0.99) for run in runs], at_most(40)),
        ],
        sizes={"chain": LENGTH, "dates": _DATES[mode], "commands": _RUNS[mode], "worker children": 2},
        raw={"gaps_ms": [round(gap, 3) for gap in gaps]},
    )
