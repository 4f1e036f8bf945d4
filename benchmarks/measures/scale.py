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
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from benchmarks.cpu import CpuByPart
from benchmarks.figures import median
from benchmarks.ground import Ground, Run
from benchmarks.measurement import Figure, Found, Goal, Mode, at_most, middle
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


@dataclass(frozen=True, slots=True)
class _Series:
    """The runs of one size."""

    #: Task instances of each run.
    count: int
    runs: list[Run] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The size, for the reader."""
        return f"{self.count:,}".replace(",", " ")

    def drive(self, ground: Ground) -> None:
        """Let one more run go."""
        self.runs.append(_drive(ground, self.count))

    def cpu(self) -> list[float]:
        """Return the CPU milliseconds of each run by the task instance."""
        return [1000 * run.observed["execute"]["cpu_seconds"] / self.count for run in self.runs]

    def rates(self) -> list[float]:
        """Return the task instances per second of each run."""
        return [self.count / run.observed["execute"]["wall_seconds"] for run in self.runs]

    def peaks(self) -> list[float]:
        """Return the largest resident size of each run in MiB."""
        return [run.observed["peak_mib"] for run in self.runs]


@dataclass(frozen=True, slots=True)
class _Besides:
    """What else is looked at in the runs of the large size, by the task instance."""

    #: CPU milliseconds of each part of the system.
    parts: list[dict[str, float]] = field(default_factory=list)
    #: Bytes on disk.
    kept: list[float] = field(default_factory=list)


def measure(ground: Ground, mode: Mode) -> Found:
    """Return the cost of a task instance at both sizes; BENCH_LARGE and BENCH_LARGE_ROUNDS change the large one."""
    count, large_count = _SIZES[mode]
    small, large, besides = _Series(count), _Series(int(os.environ.get("BENCH_LARGE", large_count))), _Besides()
    rounds = int(os.environ.get("BENCH_LARGE_ROUNDS", _ROUNDS[mode]))
    with ground.instant_workers() as pid:
        cpu = CpuByPart(ground, {"instant workers": pid})
        small.drive(ground)
        for _ in range(rounds):
            cpu.start()
            large.drive(ground)
            taken = cpu.taken().items()
            besides.parts.append({part: 1000 * seconds / large.count for part, seconds in taken if part in _PARTS})
            besides.kept.append(_bytes(ground) / large.count)
            small.drive(ground)
        while len(small.runs) < _SMALLS[mode]:
            small.drive(ground)
    return Found(
        figures=[*_of_cpu(small, large), *_of_memory(small, large), *_of_the_large(large, besides)],
        sizes={"tasks": TASKS, "small": small.count, "large": large.count, "rounds of the large": rounds},
        raw={
            "small": [dict(run.observed, statement_times=[], cpu_notes=[]) for run in small.runs],
            "large": [
                dict(run.observed, statement_times=[], cpu_notes=run.observed["cpu_notes"][::20]) for run in large.runs
            ],
        },
    )


def _of_cpu(small: _Series, large: _Series) -> list[Figure]:
    name = "CPU by the task instance at"
    return [
        _against(f"{name} {large.name} against {small.name}", large.cpu(), small.cpu(), at_most(1.15)),
        middle(f"{name} {large.name}", large.cpu(), "ms"),
        middle(f"{name} {small.name}", small.cpu(), "ms"),
    ]


def _of_memory(small: _Series, large: _Series) -> list[Figure]:
    name = "peak memory at"
    return [
        middle(f"{name} {large.name}", large.peaks(), "MiB", goal=at_most(200)),
        _against(f"{name} {large.name} against {small.name}", large.peaks(), small.peaks(), at_most(1.3)),
        middle(f"{name} {small.name}", small.peaks(), "MiB"),
    ]


def _of_the_large(large: _Series, besides: _Besides) -> list[Figure]:
    sent, control = ([count(run) / large.count for run in large.runs] for count in (_statements, _control))
    told = (f"{part} {median([each[part] for each in besides.parts]):.3f}" for part in _PARTS)
    return [
        middle("statements by the task instance, busy", sent, "", goal=at_most(0.05)),
        middle("BEGIN, COMMIT and pings by the task instance", control, ""),
        middle("task instances per second", large.rates(), "1/s", note="instant workers"),
        middle(
            "CPU of a task instance, all processes",
            [sum(each.values()) for each in besides.parts],
            "ms",
            note=", ".join(told),
        ),
        middle(
            "bytes in the database by the task instance", besides.kept, "B", note="tables and indexes, as they grew"
        ),
    ]


def _against(name: str, ours: Sequence[float], theirs: Sequence[float], goal: Goal) -> Figure:
    """Return the figure that is the median of `ours` by that of `theirs`."""
    return Figure(name, median(ours) / median(theirs), "×", [each / median(theirs) for each in ours], goal)


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


def _statements(run: Run) -> float:
    return float(run.observed["execute"]["counts"]["statement"])


def _control(run: Run) -> float:
    counts = run.observed["execute"]["counts"]
    return float(sum(counts.get(name, 0) for name in ("begin", "commit", "rollback", "ping")))
