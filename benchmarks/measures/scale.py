"""The coordinator alone, with few and with many task instances: CPU and statements for each, and peak memory.

`backfill run` of a DAG of 100 tasks (ten chains of ten), hourly runs, `max_active_runs` 64, 128 in flight (the default pool), with
instant workers: a process that takes the coordinator's real messages, writes the rows as workers do and reports on the real stream, so that
a million task instances are feasible and only the coordinator is looked at. CPU is the time of the coordinator's process (all threads)
while it drives the job, by the task instance. Memory is the largest resident size (`VmHWM`) of that process, from its start to its
end. Statements are those that SQLAlchemy sends while the job is driven; BEGIN, COMMIT and the pings of the connection pool are
counted beside. The small size is measured before, between and after the runs of the large one.
"""

from __future__ import annotations

import os
from datetime import timedelta

from benchmarks.cpu import CpuByPart
from benchmarks.figures import median
from benchmarks.ground import Ground, Run
from benchmarks.measurement import Figure, Found, Mode, at_most, middle
from benchmarks.processes import MeasureFailed

KEY = "scale"
TITLE = "Coordinator: CPU, memory and statements"
LIMITS = {Mode.FULL: 7200, Mode.QUICK: 90}

TASKS = 100
#: Task instances of the small and the large size.
_SIZES = {Mode.FULL: (10_000, 1_000_000), Mode.QUICK: (500, 5_000)}
#: How often the large size is measured.
_ROUNDS = {Mode.FULL: 3, Mode.QUICK: 1}
#: How often the small one is measured, at least.
_SMALLS = {Mode.FULL: 3, Mode.QUICK: 2}


#: Parts of the system whose CPU time is told.
_PARTS = ("command", "PostgreSQL", "Valkey", "instant workers")


def measure(ground: Ground, mode: Mode) -> Found:
    """Return the cost of a task instance at both sizes; BENCH_LARGE and BENCH_LARGE_ROUNDS change the large one."""
    small, large = _SIZES[mode]
    large = int(os.environ.get("BENCH_LARGE", large))
    rounds = int(os.environ.get("BENCH_LARGE_ROUNDS", _ROUNDS[mode]))
    smalls, larges, kept, parts = [], [], [], []
    with ground.instant_workers() as pid:
        cpu = CpuByPart(ground, {"instant workers": pid})
        smalls.append(_drive(ground, small))
        for _ in range(rounds):
            cpu.start()
            larges.append(_drive(ground, large))
            parts.append({part: 1000 * seconds / large for part, seconds in cpu.taken().items() if part in _PARTS})
            kept.append(_bytes(ground) / large)
            smalls.append(_drive(ground, small))
        while len(smalls) < _SMALLS[mode]:
            smalls.append(_drive(ground, small))
    cpu_small, cpu_large = (_each(runs, "cpu_seconds", 1000, n) for runs, n in ((smalls, small), (larges, large)))
    mib_small, mib_large = ([run.observed["peak_mib"] for run in runs] for runs in (smalls, larges))
    sent = [_statements(run) / large for run in larges]
    wall = _each(larges, "wall_seconds", 1, large)
    names = f"{large:,}".replace(",", " "), f"{small:,}".replace(",", " ")
    return Found(
        figures=[
            Figure(
                f"CPU by the task instance at {names[0]} against {names[1]}",
                median(cpu_large) / median(cpu_small),
                "×",
                [each / median(cpu_small) for each in cpu_large],
                at_most(1.15),
            ),
            middle(f"CPU by the task instance at {names[0]}", cpu_large, "ms"),
            middle(f"CPU by the task instance at {names[1]}", cpu_small, "ms"),
            middle(f"peak memory at {names[0]}", mib_large, "MiB", goal=at_most(200)),
            Figure(
                f"peak memory at {names[0]} against {names[1]}",
                median(mib_large) / median(mib_small),
                "×",
                [each / median(mib_small) for each in mib_large],
                at_most(1.3),
            ),
            middle(f"peak memory at {names[1]}", mib_small, "MiB"),
            middle("statements by the task instance, busy", sent, "", goal=at_most(0.05)),
            middle("BEGIN, COMMIT and pings by the task instance", [_control(run) / large for run in larges], ""),
            middle("task instances per second", [1 / each for each in wall], "1/s", note="instant workers"),
            middle(
                "CPU of a task instance, all processes",
                [sum(each.values()) for each in parts],
                "ms",
                note=", ".join(f"{part} {median([each[part] for each in parts]):.3f}" for part in _PARTS),
            ),
            middle("bytes in the database by the task instance", kept, "B", note="tables and indexes, as they grew"),
        ],
        sizes={"tasks": TASKS, "small": small, "large": large, "rounds of the large": rounds},
        raw={
            "small": [dict(run.observed, statement_times=[], cpu_notes=[]) for run in smalls],
            "large": [
                dict(run.observed, statement_times=[], cpu_notes=run.observed["cpu_notes"][::20]) for run in larges
            ],
        },
    )


def _drive(ground: Ground, count: int) -> Run:
    ground.empty()
    run = ground.run("columns", count // TASKS, "--workers", "0", every=timedelta(hours=1), observe=True)
    [(ended,)] = ground.rows("select count(*) from task_instance where state = 'success'")
    if ended != count:
        raise MeasureFailed(f"{ended} of {count} task instances succeeded")
    return run


def _bytes(ground: Ground) -> float:
    """Return what all tables of the schema take on disk."""
    [(size,)] = ground.rows(
        "select sum(pg_total_relation_size(oid)) from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
    )
    return float(size)


def _each(runs: list[Run], name: str, factor: float, count: int) -> list[float]:
    return [factor * run.observed["execute"][name] / count for run in runs]


def _statements(run: Run) -> float:
    return float(run.observed["execute"]["counts"]["statement"])


def _control(run: Run) -> float:
    counts = run.observed["execute"]["counts"]
    return float(sum(counts.get(name, 0) for name in ("begin", "commit", "rollback", "ping")))
