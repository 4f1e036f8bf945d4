"""Where the coordinator's time goes per task instance: its Python, its statements, its memory. No workers, no broker.

    python benchmarks/coordinator_profile.py --tasks 10 --dates 1000
    python benchmarks/coordinator_profile.py --tasks 100 --dates 10000 --schedule @hourly
    python benchmarks/coordinator_profile.py --shape layers --tasks 600 --dates 50

A job is driven by the real loop on a real, durable PostgreSQL, started for the occasion. Attempts go to an executor that ends
them from a thread of its own as a group of fast workers would: `--rate` a second at most, `--group` in one statement. What this
thread and its connection cost is not counted. Figures are of the thread that runs the loop (its CPU time) and of the database
process that serves it (from /proc, where there is one); times of single statements are wall times as the loop sees them.
`--profile` adds the functions that take most of the loop's time, and slows it down by half.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import queue
import resource
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event, text

from backfill import DAG, migrations
from backfill.config import Settings
from backfill.embedded import Servers
from backfill.executors import BaseExecutor, QueuedAttempt, Unsent
from backfill.jobs import BackfillJob
from backfill.jobs.request import BackfillRequest
from backfill.messages import Attempt, ExecutorEvent
from backfill.operators import PythonOperator
from backfill.states import TaskInstanceState
from backfill.store.database import create_engine
from backfill.testing.stage import Stage

START = datetime(2001, 1, 1, tzinfo=UTC)
STEPS = {"@hourly": timedelta(hours=1), "@daily": timedelta(days=1)}

# What claim and finish leave in the row, in one statement; a worker's own take two.
END = text(
    """
    update task_instance ti
    set state = 'success', try_open = false, start_date = statement_timestamp(), end_date = statement_timestamp(),
        first_start_date = coalesce(first_start_date, statement_timestamp()), duration = 0, hostname = 'bench', pid = 1,
        heartbeat_at = statement_timestamp()
    from unnest(cast(:ids as bigint[]), cast(:attempts as uuid[])) as given (id, attempt_id)
    where ti.id = given.id and ti.external_executor_id = given.attempt_id and ti.state = 'queued'
    """
)


class FastWorkers(BaseExecutor):
    """Ends attempts successfully, from a thread of its own."""

    name = "fast"

    def __init__(self, engine: Engine, *, rate: float, group: int, seconds: float) -> None:
        super().__init__()
        self._engine = engine
        self._rate = rate
        self._group = group
        self._seconds = seconds
        self._ended_at: float | None = None
        #: Seconds from the end of a group to the next hand-over: what the loop takes to react.
        self.reactions: list[float] = []
        self._attempts: queue.SimpleQueue[QueuedAttempt | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def queue_task_instances(self, attempts: Sequence[QueuedAttempt]) -> list[Unsent]:
        """Take attempts; the thread ends them."""
        if self._ended_at is not None:
            self.reactions.append(time.perf_counter() - self._ended_at)
            self._ended_at = None
        for attempt in attempts:
            self._attempts.put(attempt)
        return []

    def _work(self) -> None:
        free_at = time.monotonic()
        while True:
            group = [self._attempts.get()]
            while len(group) < self._group and not self._attempts.empty():
                group.append(self._attempts.get())
            given = [queued.attempt for queued in group if queued is not None]
            if len(given) < len(group):
                return
            free_at = max(free_at, time.monotonic()) + len(given) / self._rate
            time.sleep(max(0.0, free_at - time.monotonic(), self._seconds))
            self._end(given)

    def _end(self, attempts: Sequence[Attempt]) -> None:
        with self._engine.begin() as tx:
            ids, given = [a.task_instance_id for a in attempts], [a.attempt_id for a in attempts]
            tx.execute(END, {"ids": ids, "attempts": given})
        self._ended_at = time.perf_counter()
        for each in attempts:
            self.context.mailbox.put(ExecutorEvent(each.task_instance_id, each.attempt_id, TaskInstanceState.SUCCESS))

    def holds(self, attempt_ids: Iterable[str]) -> set[str]:
        """Return all of them."""
        return set(attempt_ids)

    def adopt(self, attempts: Sequence[QueuedAttempt]) -> set[str]:
        """Return all of them."""
        return {queued.attempt.attempt_id for queued in attempts}

    def revoke(self, attempt_ids: Iterable[str]) -> None:
        """Do nothing: they end all the same."""

    def terminate(self, attempt_ids: Iterable[str]) -> None:
        """Do nothing: they end all the same."""

    def end(self) -> None:
        """End the thread."""
        self._attempts.put(None)
        self._thread.join()


class Statements:
    """Counts what one engine sends, and takes the time until each is answered. Transactions are counted as statements, too."""

    def __init__(self, engine: Engine) -> None:
        self.counts: Counter[str] = Counter()
        self.seconds: dict[str, float] = defaultdict(float)
        self.backends: set[int] = set()
        self._begun = 0.0
        event.listen(engine, "before_cursor_execute", self._before)
        event.listen(engine, "after_cursor_execute", self._after)
        event.listen(engine, "commit", self._committed)
        event.listen(engine, "connect", self._connected)

    @property
    def total(self) -> int:
        """Statements, with those that begin and commit."""
        return sum(self.counts.values())

    def _before(self, *_: Any) -> None:
        self._begun = time.perf_counter()

    def _after(self, _: Any, __: Any, statement: str, ___: Any, context: Any, *____: Any) -> None:
        full = (
            statement if context.compiled is None else str(context.compiled)
        )  # not the name that it was prepared under
        name = " ".join(full.split())[:110]
        self.counts[name] += 1
        self.seconds[name] += time.perf_counter() - self._begun

    def _committed(self, connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":  # else neither is sent
            self.counts.update(["begin", "commit"])

    def _connected(self, connection: Any, _: Any) -> None:
        self.backends.add(connection.info.backend_pid)


def cpu_of(pids: Iterable[int]) -> float:
    """Return the CPU seconds that processes have used; 0 where the system does not say."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def nothing() -> None:
    """Be the body of tasks that nobody runs."""


def make_dag(given: argparse.Namespace) -> DAG:
    """Return the DAG of the shape asked for."""
    limits = {"max_active_runs": given.active_runs, "max_active_tasks": given.active_tasks}
    with DAG("bench", schedule=given.schedule, start_date=START, **limits) as dag:
        if given.shape == "mapped":
            PythonOperator.partial(task_id="mapped", python_callable=nothing).expand(
                op_args=[[n] for n in range(given.tasks)]
            )
            return dag
        tasks = [PythonOperator(task_id=f"t{n}", python_callable=nothing) for n in range(given.tasks)]
        if given.shape == "chain":
            for upstream, downstream in pairwise(tasks):
                upstream >> downstream
        elif given.shape == "layers":
            half = given.tasks // 2
            for upstream in tasks[:half]:
                upstream >> tasks[half:]
    return dag


def measure(given: argparse.Namespace, engine: Engine, workers_engine: Engine) -> dict[str, Any]:
    """Drive the job, print where its time went, and return the figures."""
    with workers_engine.begin() as tx:
        tx.execute(text("update slot_pool set slots = -1"))
    statements = Statements(engine)
    dag = make_dag(given)
    executor = FastWorkers(workers_engine, rate=given.rate, group=given.group, seconds=given.seconds)
    step = STEPS[given.schedule]
    request = BackfillRequest(
        start_date=START, end_date=START + (given.dates - 1) * step, executor=executor.name, run_backwards=False
    )
    cast = Stage(engine=engine, settings=Settings()).put_on(dag, request, executor)
    ticks = watch_ticks(cast.job)
    statements.counts.clear()
    statements.seconds.clear()
    profiler = cProfile.Profile(time.thread_time) if given.profile else None
    database_before, cpu_before, began = cpu_of(statements.backends), time.thread_time(), time.perf_counter()
    if profiler:
        profiler.enable()
    report = cast.drive()
    if profiler:
        profiler.disable()
    wall, cpu = time.perf_counter() - began, time.thread_time() - cpu_before
    database = cpu_of(statements.backends) - database_before
    total = report.tasks["total"]
    assert report.tasks["success"] == total, report
    print(f"{'calls':>8} {'ms':>9} {'µs/TI':>7}  statement")
    for name, seconds in sorted(statements.seconds.items(), key=itemgetter(1), reverse=True)[: given.lines]:
        print(f"{statements.counts[name]:8} {1e3 * seconds:9.1f} {1e6 * seconds / total:7.1f}  {name}")
    if profiler:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(45)
    return {
        "task_instances": total,
        "seconds": round(wall, 2),
        "per_second": round(total / wall),
        "loop_ms_per_ti": round(1e3 * cpu / total, 4),
        "database_ms_per_ti": round(1e3 * database / total, 4),
        "statements_per_ti": round(
            (statements.total - statements.counts["begin"] - statements.counts["commit"]) / total, 4
        ),
        "statements_with_begin_and_commit_per_ti": round(statements.total / total, 4),
        "reaction_ms": {"median": quantile(executor.reactions, 0.5), "99 %": quantile(executor.reactions, 0.99)},
        "ticks": len(ticks),
        "longest_ticks_ms": [round(1e3 * each, 1) for each in sorted(ticks)[-3:]],
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def quantile(seconds: Sequence[float], share: float) -> float | None:
    """Return the time in milliseconds that so great a share of `seconds` does not exceed."""
    return round(1e3 * sorted(seconds)[int(share * (len(seconds) - 1))], 1) if seconds else None


def watch_ticks(job: BackfillJob) -> list[float]:
    """Return a list that takes the CPU seconds of each round of the loop, from one wait to the next."""
    ticks: list[float] = []
    wait, go_round, begun = job._wait, job._execute_for_run_dates, [0.0]  # noqa: SLF001  # names of the interface

    def timed_wait() -> None:
        ticks.append(time.thread_time() - begun[0])
        wait()
        begun[0] = time.thread_time()

    def timed_rounds(*given: Any) -> None:
        begun[0] = time.thread_time()
        go_round(*given)

    job._wait, job._execute_for_run_dates = timed_wait, timed_rounds  # type: ignore[method-assign, assignment]  # noqa: SLF001
    return ticks


def main() -> None:
    """Measure on servers of its own, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--dates", type=int, default=1000)
    parser.add_argument("--shape", choices=["wide", "chain", "layers", "mapped"], default="wide")
    parser.add_argument("--schedule", choices=sorted(STEPS), default="@daily")
    parser.add_argument("--active-runs", type=int, default=64)
    parser.add_argument("--active-tasks", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=1e9, help="task instances that the workers end in a second")
    parser.add_argument("--group", type=int, default=20, help="task instances that end in one statement")
    parser.add_argument("--seconds", type=float, default=0.0, help="how long each group takes")
    parser.add_argument("--lines", type=int, default=25, help="statements to list")
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Servers(Path(folder)) as servers:
        Path(folder).chmod(0o755)
        url = servers.acquire(broker=False).database_url
        assert url
        engine, workers_engine = (create_engine(url, application_name=name) for name in ("loop", "workers"))
        migrations.upgrade(workers_engine)
        print(json.dumps(measure(given, engine, workers_engine), indent=2))
        engine.dispose()
        workers_engine.dispose()


if __name__ == "__main__":
    main()
