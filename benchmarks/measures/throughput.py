"""No-op Python tasks per second with two worker processes, against bare Celery.

Ours is `backfill run` of ten tasks on each of N dates with one `backfill worker -c 2`; the tasks do not depend on each other, as those of the
peer do not. The peer is a `group` of as many no-op tasks for one `celery worker -c 2` on the same Valkey, with Celery's own settings,
in three ways: with results in Redis, which `get()` collects; with results that nobody reads; with `ignore_result=True`. All workers
listen before the clock starts; the workers of both sides run, and those whose turn it is not are idle. Time is from the first dispatch
(ours: the first `queued_at`; the peer's: the call of `apply_async`) to the last end (ours: the last `end_date` of an attempt; the
peer's: the return of `get()`, or else a last task that says so, so that nothing polls). A ratio is taken in each round, in which the
sides take turns; the figure is the median of the rounds.
"""

from __future__ import annotations

import os

from benchmarks import rows
from benchmarks.figures import ratios
from benchmarks.ground import Ground
from benchmarks.measurement import Found, Mode, at_least, middle
from benchmarks.peers import bare_celery

KEY = "throughput"
TITLE = "No-op tasks per second, two worker processes"
LIMITS = {Mode.FULL: 900, Mode.QUICK: 120}

TASKS = 10
CHILDREN = 2
_DATES = {Mode.FULL: 1000, Mode.QUICK: 40}
_ROUNDS = {Mode.FULL: 3, Mode.QUICK: 3}


def measure(ground: Ground, mode: Mode) -> Found:
    """Return throughput of both sides and their ratios; BENCH_DATES changes the number of dates."""
    dates = int(os.environ.get("BENCH_DATES", _DATES[mode]))
    count = TASKS * dates
    taken: dict[str, list[float]] = {
        name: [] for name in ("ours", "command", "results", "unread", "ignored", "commits")
    }
    with ground.worker(CHILDREN), bare_celery(ground, CHILDREN) as celery:
        ground.run("tasks", 1, "--workers", "0")  # connections and imports of both sides, once
        celery.seconds_with_results(TASKS)
        for _ in range(_ROUNDS[mode]):
            commits = _commits(ground)
            run = ground.run("tasks", dates, "--workers", "0")
            taken["commits"].append((_commits(ground) - commits) / count)
            taken["ours"].append(count / rows.seconds_from_dispatch(ground, run.dag_id, count))
            taken["command"].append(count / run.seconds)
            taken["results"].append(count / celery.seconds_with_results(count))
            taken["unread"].append(count / celery.seconds_with_results_unread(count))
            taken["ignored"].append(count / celery.seconds_without_results(count))
    ours = taken["ours"]
    return Found(
        figures=[
            middle("against bare Celery with results", ratios(ours, taken["results"]), "×", goal=at_least(5)),
            middle("against bare Celery with results that nobody reads", ratios(ours, taken["unread"]), "×"),
            middle("against bare Celery, results ignored", ratios(ours, taken["ignored"]), "×", goal=at_least(2.5)),
            middle("task instances per second", ours, "1/s"),
            middle("the same over the whole command, its start included", taken["command"], "1/s"),
            middle("commits by the task instance, of all processes", taken["commits"], ""),
            middle("bare Celery with results, tasks per second", taken["results"], "1/s"),
            middle("bare Celery with results that nobody reads, tasks per second", taken["unread"], "1/s"),
            middle("bare Celery, results ignored, tasks per second", taken["ignored"], "1/s"),
        ],
        sizes={"tasks": TASKS, "dates": dates, "worker children": CHILDREN, "rounds": _ROUNDS[mode]},
    )


def _commits(ground: Ground) -> float:
    """Return the commits of the database so far, as its statistics know them: some may come a second late."""
    [(count,)] = ground.rows("select xact_commit from pg_stat_database where datname = current_database()")
    return float(count)
