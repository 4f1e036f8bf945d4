"""No-op Python tasks per second with two worker processes, against bare Celery.

Ours is `backfill run` of ten tasks on each of N dates with one `backfill worker -c 2`; the tasks do not depend on each other, as those of the
peer do not. The peer is a `group` of as many no-op tasks for one `celery worker -c 2` on the same Valkey, with Celery's own settings,
in three ways: with results in Redis, which `get()` collects; with results that nobody reads; with `ignore_result=True`. All workers
listen before the clock starts; the workers of both sides run, and those whose turn it is not are idle. Time is from the first dispatch
(ours: the first `queued_at`; the peer's: the call of `apply_async`) to the last end (ours: the last `end_date` of an attempt; the
peer's: the return of `get()`, or else a last task that says so, so that nothing polls). A ratio is taken in each round, in which the
sides take turns; the figure is the median of the rounds. CPU is the time of all processes that take part, by `/proc`: of ours the
command from its start to its end, of the peer the client that sends; the parts stand beside it in milliseconds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks import rows
from benchmarks.cpu import CpuByPart
from benchmarks.figures import median, ratios
from benchmarks.ground import Ground
from benchmarks.measurement import Figure, Found, Mode, at_least, middle
from benchmarks.peers import BareCelery, bare_celery

KEY = "throughput"
TITLE = "No-op tasks per second, two worker processes"
LIMITS = {Mode.FULL: 1800, Mode.QUICK: 120}

TASKS = 10
CHILDREN = 2
_DATES = {Mode.FULL: 1000, Mode.QUICK: 50}
_ROUNDS = {Mode.FULL: 5, Mode.QUICK: 1}


def measure(ground: Ground, mode: Mode) -> Found:
    """Return throughput of both sides and their ratios; BENCH_DATES changes the number of dates."""
    dates = int(os.environ.get("BENCH_DATES", _DATES[mode]))
    rounds = _ROUNDS[mode]
    with ground.worker(CHILDREN) as [worker], bare_celery(ground, CHILDREN) as celery:
        ground.run("tasks", 1, "--workers", "0")  # connections and imports of both sides, once
        celery.seconds_with_results(TASKS)
        cpu = CpuByPart(ground, {"worker": worker, "Celery worker": celery.pid})
        taken = [_round(ground, celery, cpu, dates) for _ in range(rounds)]
    ours = [each.ours.rate for each in taken]
    return Found(
        figures=[
            middle("against bare Celery with results", ratios(ours, [r.results for r in taken]), "×", goal=at_least(5)),
            middle("against bare Celery with results that nobody reads", ratios(ours, [r.unread for r in taken]), "×"),
            middle(
                "against bare Celery, results ignored",
                ratios(ours, [r.ignored for r in taken]),
                "×",
                goal=at_least(2.5),
            ),
            middle("task instances per second", ours, "1/s"),
            middle("the same over the whole command, its start included", [r.ours.command for r in taken], "1/s"),
            middle("bare Celery with results, tasks per second", [r.results for r in taken], "1/s"),
            middle("bare Celery with results that nobody reads, tasks per second", [r.unread for r in taken], "1/s"),
            middle("bare Celery, results ignored, tasks per second", [r.ignored for r in taken], "1/s"),
            middle("commits by the task instance, of all processes", [r.ours.commits for r in taken], ""),
            _cpu("CPU of a task instance, all processes", [r.ours.cpu for r in taken]),
            _cpu(
                "CPU of a bare Celery task with results that nobody reads, all processes", [r.their_cpu for r in taken]
            ),
        ],
        sizes={"tasks": TASKS, "dates": dates, "worker children": CHILDREN, "rounds": rounds},
        raw={"cpu_ms_ours": [r.ours.cpu for r in taken], "cpu_ms_theirs": [r.their_cpu for r in taken]},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OurSide:
    """What one `backfill run` took: rates by the second, CPU in milliseconds by the task instance and the part."""

    rate: float
    command: float
    commits: float
    cpu: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """What one round of all sides found."""

    ours: OurSide
    results: float
    unread: float
    ignored: float
    their_cpu: dict[str, float]


def our_side(ground: Ground, cpu: CpuByPart, dates: int, parameters: Mapping[str, object] | None = None) -> OurSide:
    """Backfill `dates` dates of ten tasks with the worker that listens: no-op ones, unless `parameters` of the DAG say otherwise."""
    count, before = TASKS * dates, _commits(ground)
    cpu.start()
    run = ground.run("tasks", dates, "--workers", "0", parameters=parameters)
    taken = cpu.taken()
    return OurSide(
        rate=count / rows.seconds_from_dispatch(ground, run.dag_id, count),
        command=count / run.seconds,
        commits=(_commits(ground) - before) / count,
        cpu=_milliseconds(taken, count, ("command", "worker", "worker's children", "PostgreSQL", "Valkey")),
    )


def _round(ground: Ground, celery: BareCelery, cpu: CpuByPart, dates: int) -> _Round:
    count = TASKS * dates
    ours = our_side(ground, cpu, dates)
    results = celery.seconds_with_results(count)
    cpu.start()
    unread = celery.seconds_with_results_unread(count)
    return _Round(
        ours=ours,
        results=count / results,
        unread=count / unread,
        their_cpu=_milliseconds(cpu.taken(), count, ("client", "Celery worker", "Celery worker's children", "Valkey")),
        ignored=count / celery.seconds_without_results(count),
    )


def _milliseconds(seconds: Mapping[str, float], count: int, parts: Sequence[str]) -> dict[str, float]:
    return {part: round(1000 * seconds[part] / count, 3) for part in parts}


def _cpu(name: str, rounds: Sequence[Mapping[str, float]]) -> Figure:
    """Return the sum over all parts, with the parts in the note."""
    parts = {part: median([each[part] for each in rounds]) for part in rounds[0]}
    told = ", ".join(f"{part} {milliseconds:.2f}" for part, milliseconds in parts.items())
    return middle(name, [sum(each.values()) for each in rounds], "ms", note=told)


def _commits(ground: Ground) -> float:
    """Return the commits of the database so far, as its statistics know them: some may come a second late."""
    [(count,)] = ground.rows("select xact_commit from pg_stat_database where datname = current_database()")
    return float(count)
