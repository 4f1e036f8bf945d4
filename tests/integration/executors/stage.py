"""A job's rows, an executor that works for it, and a real worker; what the loop would do between them, the tests do by hand."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from backfill.config import Settings, signing_key
from backfill.dag.freeze import freeze
from backfill.dag.loader import load_file
from backfill.executors import BaseExecutor, ExecutorContext, Mailbox, QueuedAttempt, load
from backfill.executors.environment import settings_environment
from backfill.keys import TaskInstanceKey, backfill_run_id
from backfill.messages import Attempt, DagSource, ExecutorEvent
from backfill.models import dag_run, job, task_instance
from backfill.states import IN_FLIGHT
from backfill.store.pickles import save_pickle

DATE = datetime(2024, 1, 1, tzinfo=UTC)
WaitUntil = Callable[..., None]


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def a_context(settings: Settings, job_id: int, pickle_hash: str) -> ExecutorContext:
    return ExecutorContext(
        job_id=job_id,
        settings=settings,
        database_url=settings.database.url,
        broker_url=settings.celery.broker_url,
        dag_source=DagSource("conformance", pickle_hash=pickle_hash),
        mailbox=Mailbox(),
    )


class Worker:
    """A Celery worker with one child, as `backfill worker` is one."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "workers", "worker", "--concurrency", "1"],
                # what it would leave in the system's folder for temporary files when it is killed
                env=settings_environment(settings, {**os.environ, "TMPDIR": str(log.parent)}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def stop(self) -> None:
        """End it and its child the quick way: how a worker leaves in good order is not what is tested here."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Stage:
    """One job with one run of the DAG `conformance`."""

    def __init__(self, name: str, engine: sa.Engine, settings: Settings, folder: Path, wait_until: WaitUntil) -> None:
        self.name = name
        self.settings = settings
        self.folder = folder
        self.wait_until = wait_until
        self.events: list[ExecutorEvent] = []
        self._engine = engine
        self._log = folder / "worker.log"
        self._plant()
        self.executor = self.another_executor()

    def another_executor(self) -> BaseExecutor:
        """Return a started executor for the job, as another process would have it after a takeover."""
        executor = load(self.name)
        executor.start(a_context(self.settings, self.job_id, self.pickle_hash))
        return executor

    def worker(self) -> Worker | None:
        """Start what the executor does not start by itself."""
        return Worker(self.settings, self._log) if self.name == "celery" else None

    def queue(self, task_id: str) -> QueuedAttempt:
        """Write a queued task instance; S7.1 without its limits."""
        attempt_id = str(uuid4())
        row = {
            "dag_run_id": self.dag_run_id,
            "dag_id": "conformance",
            "task_id": task_id,
            "run_id": backfill_run_id(DATE),
            "map_index": len(self._rows()),
            "state": "queued",
            "try_number": 1,
            "try_open": True,
            "external_executor_id": attempt_id,
            "queued_by_job_id": self.job_id,
            "pool": "default_pool",
            "queue": "backfill",
        }
        with self._engine.begin() as tx:
            number = tx.execute(sa.insert(task_instance).values(row).returning(task_instance.c.id)).scalar_one()
        key = TaskInstanceKey("conformance", task_id, backfill_run_id(DATE), row["map_index"])  # type: ignore[arg-type]
        return QueuedAttempt(Attempt(number, key, attempt_id, 1), "backfill", DATE)

    def send(self, *task_ids: str) -> list[QueuedAttempt]:
        """Queue task instances and hand them over."""
        attempts = [self.queue(task_id) for task_id in task_ids]
        assert self.executor.queue_task_instances(attempts) == []
        return attempts

    def row(self, attempt: QueuedAttempt) -> Any:
        return next(row for row in self._rows() if row.id == attempt.attempt.task_instance_id)

    def void(self, attempt: QueuedAttempt) -> None:
        """Take the row back (S3.8)."""
        table = task_instance
        with self._engine.begin() as tx:
            tx.execute(
                sa.update(table)
                .where(table.c.id == attempt.attempt.task_instance_id)
                .values(state="none", external_executor_id=None)
            )

    def wait_for_end(self, *attempts: QueuedAttempt) -> list[ExecutorEvent]:
        """Wait as the loop does until each attempt is reported as over; return those reports."""
        wanted = {attempt.attempt.attempt_id for attempt in attempts}
        self.wait_until(lambda: wanted <= self._ended(), self._waiting_for(attempts), timeout=60)
        by_id = {event.attempt_id: event for event in self.events if event.state not in IN_FLIGHT}
        return [by_id[attempt.attempt.attempt_id] for attempt in attempts]

    def wait_for_journal(self, line: str) -> None:
        self.wait_until(lambda: line in self.journal(), f"a task notes {line!r}; {self.log()}", timeout=60)

    def journal(self) -> list[str]:
        journal = self.folder / "journal"
        return journal.read_text().splitlines() if journal.exists() else []

    def process_of(self, attempt: QueuedAttempt) -> int:
        """Return the id of the process that runs `attempt`, on this machine for both executors here."""
        return int(self.row(attempt).pid)

    def let_go(self) -> None:
        (self.folder / "go").touch()

    def log(self) -> str:
        return f"the worker's log:\n{self._log.read_text()[-3000:]}" if self._log.exists() else ""

    def _ended(self) -> set[str]:
        self.executor.wait(0.05)
        self.events += self.executor.get_event_buffer()
        return {event.attempt_id for event in self.events if event.state not in IN_FLIGHT}

    def _waiting_for(self, attempts: tuple[QueuedAttempt, ...]) -> str:
        return f"{[attempt.attempt.key.task_id for attempt in attempts]} are reported as over; {self.log()}"

    def _rows(self) -> list[Any]:
        with self._engine.connect() as tx:
            return list(tx.execute(sa.select(task_instance)))

    def _plant(self) -> None:
        (dag,) = load_file(Path(__file__).with_name("conformance_dag.py"))
        frozen = freeze(dag, signing_key(self.settings))
        run = {
            "dag_id": "conformance",
            "run_id": backfill_run_id(DATE),
            "logical_date": DATE,
            "data_interval_start": DATE,
            "data_interval_end": DATE + timedelta(days=1),
            "run_type": "backfill",
            "state": "running",
            "start_date": DATE,
            "conf": {"folder": str(self.folder)},
        }
        row = {"job_type": "BackfillJob", "dag_id": "conformance", "state": "running", "dag_pickle_hash": frozen.hash}
        with self._engine.begin() as tx:
            save_pickle(tx, **{name: getattr(frozen, name) for name in frozen.__dataclass_fields__})
            self.job_id = tx.execute(sa.insert(job).values(row).returning(job.c.id)).scalar_one()
            run["job_id"] = self.job_id
            self.dag_run_id = tx.execute(sa.insert(dag_run).values(run).returning(dag_run.c.id)).scalar_one()
        self.pickle_hash = frozen.hash
