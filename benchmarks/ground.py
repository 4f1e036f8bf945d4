"""The ground that all measures stand on: the embedded servers with a home of their own, workers, commands, and the rows."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from redis import Redis
from sqlalchemy import Engine, text

from backfill.embedded import Servers
from backfill.exceptions import UsageError
from backfill.migrations import upgrade
from backfill.store.database import create_engine
from benchmarks.processes import call, running, wait_for

ROOT = Path(__file__).resolve().parent.parent
DAGS = Path(__file__).parent / "dags"
#: First date of every measured range.
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
#: Seconds within which a worker has to listen.
_WORKER_START = 60.0

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Run:
    """One `backfill run` that has ended."""

    dag_id: str
    #: From the start of the process to its end.
    seconds: float
    #: When the process was started, by the wall clock.
    began: float
    #: What `benchmarks.observed` counted; empty if nobody looked.
    observed: Mapping[str, Any]


def _folder_of_homes() -> Path | None:
    """Return the folder in which homes are made, $BENCH_FOLDER; None for that of temporary files."""
    named = os.environ.get("BENCH_FOLDER")
    if named and not Path(named).is_dir():
        raise UsageError(f"BENCH_FOLDER names {named!r}, which is no folder: make it, or name another one.")
    return Path(named).absolute() if named else None


class Ground:
    """A home with servers of its own; to be entered. Removed with all its processes when it is left.

    Commands and workers are those of the checkout at `root`, which may be another than this one.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._folder = _folder_of_homes()
        self._at_the_end = ExitStack()
        self._servers: Servers
        self.home = Path()
        self.engine: Engine
        self.broker_url = ""
        self.database_url = ""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # PostgreSQL does not run as root: where root started it, another user has to get through
            self.home = Path(tempfile.mkdtemp(prefix="backfill-bench-", dir=self._folder))
            self.home.chmod(0o755)
            (self.home / "bench").mkdir()
            stack.callback(shutil.rmtree, self.home, ignore_errors=True)
            self._servers = stack.enter_context(Servers(self.home))
            self._reach_servers()
            stack.callback(self._disconnect)
            self._make_schema()
            self._at_the_end = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._at_the_end.close()

    # -- processes ------------------------------------------------------------------------------------------------------

    def environment(self, more: Mapping[str, object] | None = None) -> dict[str, str]:
        """Return the environment of a process of this home: no settings but its folder, the checkout's code."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BACKFILL")}
        path = os.pathsep.join([str(self._root), *filter(None, [os.environ.get("PYTHONPATH")])])
        own = {"BACKFILL__CORE__HOME": str(self.home), "PYTHONPATH": path}
        return {**inherited, **own, **{name: str(value) for name, value in (more or {}).items()}}

    def log(self, name: str) -> Path:
        """Return a fresh file for what a process says."""
        return self.home / "bench" / f"{next(_numbers)}-{name}.log"

    @contextmanager
    def instant_workers(self, *, items: int = 0) -> Iterator[int]:
        """Run `benchmarks.instant` in place of workers while the block lasts; `items`: length of the lists that tasks return.

        Yields the process id.
        """
        log = self.log("instant")
        command = [sys.executable, "-m", "benchmarks.instant", self.database_url, self.broker_url, str(items)]
        with running(command, self.environment(), log, cwd=self.home) as process:
            wait_for(process, log, "listens", within=_WORKER_START)
            yield process.pid

    @contextmanager
    def worker(self, children: int, *, processes: int = 1) -> Iterator[list[int]]:
        """Run `backfill worker -c CHILDREN`, once or several times; all of them listen while the block lasts. Yields their pids."""
        command = [sys.executable, "-m", "backfill", "worker", "-c", str(children)]
        more = {"BACKFILL_PARENT_PID": os.getpid(), "BACKFILL__WORKER__SOFT_SHUTDOWN_TIMEOUT": 1}
        with ExitStack() as stack:
            logs = [self.log("worker") for _ in range(processes)]
            started = [
                stack.enter_context(running(command, self.environment(more), log, cwd=self.home)) for log in logs
            ]
            for process, log in zip(started, logs, strict=True):
                wait_for(process, log, "listens to", within=_WORKER_START)
            yield [process.pid for process in started]

    def run(
        self,
        dag: str,
        dates: int,
        *arguments: str,
        every: timedelta = timedelta(days=1),
        parameters: Mapping[str, object] | None = None,
        observe: bool = False,
    ) -> Run:
        """Backfill `dates` dates of the DAG in `dags/DAG.py` by `backfill run`; its own DAG id keeps runs apart."""
        number = next(_numbers)
        dag_id = f"{dag}_{number}"
        last = FIRST + (dates - 1) * every
        command = [
            "run",
            str(DAGS / f"{dag}.py"),
            "-s",
            FIRST.isoformat(),
            "-e",
            last.isoformat(),
            "-o",
            "json",
            *arguments,
        ]
        report = self.log("observed")
        module = ["benchmarks.observed", str(report)] if observe else ["backfill"]
        environment = self.environment({"BENCH_DAG_ID": dag_id, **(parameters or {})})
        began = datetime.now(UTC).timestamp()
        seconds = call([sys.executable, "-m", *module, *command], environment, self.log("run"), cwd=self.home)
        return Run(dag_id, seconds, began, json.loads(report.read_text()) if observe else {})

    # -- the servers ----------------------------------------------------------------------------------------------------

    def broker(self, database: int = 0) -> Redis:
        """Return a client for one database of the broker."""
        return Redis(unix_socket_path=self.broker_url.removeprefix("redis+socket://"), db=database)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Have no server run while the block lasts, but those that a command starts for itself."""
        self.engine.dispose()
        self._servers.release()
        try:
            yield
        finally:
            self._reach_servers()

    def rows(self, statement: str, **values: object) -> Sequence[Any]:
        """Return what a statement finds."""
        with self.engine.connect() as tx:
            return tx.execute(text(statement), values).all()

    def postmaster(self) -> int:
        """Return the process id of the database server, from which all its other processes descend."""
        [(backend,)] = self.rows("select pg_backend_pid()")
        return int(Path(f"/proc/{backend}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])

    def empty(self) -> None:
        """Forget all jobs, runs and messages, so that no measure finds what another left."""
        with self.engine.begin() as tx:
            tx.execute(
                text("truncate job, job_run_date, dag, dag_run, task_instance, task_attempt, xcom, dag_pickle cascade")
            )
        with self.broker() as client:
            client.flushall()

    def _make_schema(self) -> None:
        if self._root == ROOT:
            upgrade(self.engine)
        else:
            call(
                [sys.executable, "-m", "backfill", "db", "upgrade"],
                self.environment(),
                self.log("schema"),
                cwd=self.home,
            )

    def _disconnect(self) -> None:
        self.engine.dispose()  # the one of the last start

    def _reach_servers(self) -> None:
        """Start the servers; each start gives them other sockets."""
        found = self._servers.acquire()
        self.database_url, self.broker_url = found.database_url or "", found.broker_url or ""
        self.engine = create_engine(self.database_url, application_name="backfill bench")
