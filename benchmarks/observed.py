"""Runs a `backfill` command in this process, and writes down what it costs: `python -m benchmarks.observed FILE run …`.

Looked at is what every version of the loop has: the drive of a job (`_execute`), its rounds (`_process_backfill_task_instances` is
called once in each), what it sleeps on (`Mailbox.wait`), and what SQLAlchemy sends. A tick is one round without the sleep.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import sys
import threading
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

from backfill.executors.mailbox import Mailbox
from backfill.jobs import BackfillJob
from benchmarks.figures import median, percentile

#: Seconds between two notes of the CPU time used so far.
_NOTE_EVERY = 0.5
#: How many of the last statements are kept with their times.
_KEPT = 10_000
#: Letters of a statement by which it is told from others.
_TELLING = 160


class Observer:
    """Counts for one process that drives one job."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.statement_times: deque[float] = deque(maxlen=_KEPT)
        self.cpu_notes: list[tuple[float, float]] = []
        self.walls = array("d")
        self.cpus = array("d")
        self.execute: dict[str, Any] = {}
        #: Count and seconds of each statement, by its first letters.
        self.statements: dict[str, list[float]] = {}
        self._slept = 0.0
        self._mark: tuple[float, float] | None = None

    def install(self) -> None:
        """Put the counters into SQLAlchemy and around the steps of the loop."""
        event.listen(Engine, "before_cursor_execute", self._on_statement)
        event.listen(Engine, "after_cursor_execute", self._on_answer)
        for name in ("begin", "commit", "rollback"):
            event.listen(Engine, name, functools.partial(self._count, name))
        self._wrap(PGDialect_psycopg2, "do_ping", before=lambda: self._count("ping"))
        self._wrap(BackfillJob, "_process_backfill_task_instances", before=self._begin_tick)
        self._wrap(BackfillJob, "_execute_for_run_dates", before=self._begin_tick, after=self._end_tick)
        self._surround(BackfillJob, "_execute", self._whole_drive)
        self._surround(Mailbox, "wait", self._sleep)

    def report(self) -> dict[str, Any]:
        """Return what was counted."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "execute": self.execute,
            "ticks": self._ticks(),
            "cpu_notes": self.cpu_notes,
            "statements": self.statements,
            "statement_times": list(self.statement_times),
            "peak_mib": _peak_mib(),
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
        }

    # -- SQLAlchemy -----------------------------------------------------------------------------------------------------

    def _count(self, name: str, *_: Any) -> None:
        self.counts[name] += 1

    def _on_statement(self, *_: Any) -> None:
        self.counts["statement"] += 1
        self.statement_times.append(time.monotonic())

    def _on_answer(
        self, _connection: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, *_: Any
    ) -> None:
        """Add up what each statement took, its way there and back included; only the loop's own thread is looked at."""
        if threading.current_thread() is threading.main_thread():
            took = time.monotonic() - self.statement_times[-1]
            full = (
                statement if context.compiled is None else str(context.compiled)
            )  # not the name that it was prepared under
            entry = self.statements.setdefault(" ".join(full.split())[:_TELLING], [0, 0.0])
            entry[0] += 1
            entry[1] += took

    # -- the loop -------------------------------------------------------------------------------------------------------

    def _begin_tick(self) -> None:
        self._end_tick()
        self._mark, self._slept = (time.monotonic(), time.thread_time()), 0.0

    def _end_tick(self) -> None:
        if self._mark is None:
            return
        now, cpu = time.monotonic(), time.thread_time()
        self.walls.append(now - self._mark[0] - self._slept)
        self.cpus.append(cpu - self._mark[1])
        self._mark = None
        if not self.cpu_notes or time.time() - self.cpu_notes[-1][0] > _NOTE_EVERY:
            self.cpu_notes.append((time.time(), time.process_time()))

    def _sleep(self, wait: Callable[[], Any]) -> Any:
        began = time.monotonic()
        try:
            return wait()
        finally:
            self._slept += time.monotonic() - began

    def _whole_drive(self, execute: Callable[[], Any]) -> Any:
        before, began, cpu = Counter(self.counts), time.time(), time.process_time()
        clock = time.monotonic()
        try:
            return execute()
        finally:
            self.execute = {
                "began": began,
                "wall_seconds": time.monotonic() - clock,
                "cpu_seconds": time.process_time() - cpu,
                "counts": dict(self.counts - before),
            }

    def _ticks(self) -> dict[str, float]:
        if not self.walls:
            return {"count": 0}
        worst = max(range(len(self.walls)), key=self.walls.__getitem__)
        return {
            "count": len(self.walls),
            "median_seconds": median(self.walls),
            "p99_seconds": percentile(self.walls, 0.99),
            "worst_seconds": self.walls[worst],
            "cpu_of_worst_seconds": self.cpus[worst],
            "worst_cpu_seconds": max(self.cpus),
            "position_of_worst": worst,
        }

    # -- how ------------------------------------------------------------------------------------------------------------

    @staticmethod
    def _surround(owner: type, name: str, around: Callable[[Callable[[], Any]], Any]) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return around(functools.partial(original, *args, **kwargs))

        setattr(owner, name, wrapped)

    def _wrap(
        self, owner: type, name: str, *, before: Callable[[], None], after: Callable[[], None] = lambda: None
    ) -> None:
        def around(original: Callable[[], Any]) -> Any:
            before()
            try:
                return original()
            finally:
                after()

        self._surround(owner, name, around)


def _peak_mib() -> float:
    """Return the largest resident size that this process had, by the kernel's own count."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel does not tell VmHWM")


def main() -> None:
    """Run the command that follows the name of the file, and write the report there, however the command ends."""
    from backfill.cli.main import main as backfill  # noqa: PLC0415  # after the counters were installed

    file, arguments = Path(sys.argv[1]), sys.argv[2:]
    observer = Observer()
    observer.install()
    sys.argv = ["backfill", *arguments]
    profile = os.environ.get("BENCH_PROFILE")
    try:
        if profile:
            import cProfile  # noqa: PLC0415  # costs time, wanted rarely

            cProfile.runctx("backfill()", {"backfill": backfill}, {}, filename=profile)
        else:
            backfill()
    finally:
        file.write_text(json.dumps(observer.report()), encoding="utf-8")


if __name__ == "__main__":
    main()
