"""Rows as the coordinator leaves them for a worker: a job with its frozen DAG, a run, and queued attempts."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import sqlalchemy as sa

from backfill import DAG
from backfill.config import Settings, signing_key
from backfill.dag.freeze import freeze
from backfill.keys import TaskInstanceKey, backfill_run_id
from backfill.messages import Attempt, Bundle, DagSource, event_stream
from backfill.models import dag_run, task_attempt, task_instance, xcom
from backfill.store import dags, pickles
from workers.log_paths import log_path

FIRST = datetime(2024, 1, 1, tzinfo=UTC)


class Row(NamedTuple):
    """What the tests look at in a task instance."""

    state: str
    error: str | None
    try_number: int
    attempt_id: str | None
    infrastructure_failures: int


class Stage:
    """One job of one DAG, with one run for each day that is asked for."""

    def __init__(
        self,
        engine: sa.Engine,
        settings: Settings,
        dag: DAG,
        *,
        params: dict[str, Any] | None = None,
        from_file: dict[str, Any] | None = None,
        conf: dict[str, Any] | None = None,
        key: bytes | None = None,
    ) -> None:
        self.engine = engine
        self.settings = settings
        self.dag = dag
        self._conf = conf or {}
        self._runs: dict[int, int] = {}
        with engine.begin() as tx:
            dags.touch_dag(tx, dag.dag_id, None)
            frozen = None if from_file is not None else freeze(dag, key or signing_key(settings))
            if frozen is not None:
                pickles.save_pickle(
                    tx, frozen.hash, frozen.dag_id, frozen.payload, frozen.signature, frozen.python_version
                )
            self.job_id: int = tx.execute(
                sa.text(
                    "insert into job (job_type, dag_id, state, params, dag_pickle_hash, dag_source)"
                    " values ('BackfillJob', :dag_id, 'running', :params, :hash, :source) returning id"
                ).bindparams(
                    sa.bindparam("params", type_=sa.JSON),
                    sa.bindparam("source", type_=sa.JSON),
                ),
                {
                    "dag_id": dag.dag_id,
                    "params": params or {},
                    "hash": frozen.hash if frozen else None,
                    "source": from_file or {},
                },
            ).scalar_one()

    def queue(
        self, task_id: str, *, map_index: int = -1, day: int = 0, try_number: int = 1, max_tries: int | None = None
    ) -> Attempt:
        """Make a queued task instance and return its attempt."""
        date = FIRST + timedelta(days=day)
        run_id, attempt_id = backfill_run_id(date), str(uuid4())
        if max_tries is None:
            max_tries = self.dag.task_dict[task_id].retries if task_id in self.dag.task_dict else 0
        with self.engine.begin() as tx:
            row = sa.insert(task_instance).values(
                dag_run_id=self._run(tx, day),
                dag_id=self.dag.dag_id,
                task_id=task_id,
                run_id=run_id,
                map_index=map_index,
                state="queued",
                try_number=try_number,
                try_open=True,
                max_tries=max_tries,
                external_executor_id=attempt_id,
                queued_by_job_id=self.job_id,
                queued_at=sa.func.now(),
                pool="default_pool",
                queue="backfill",
                executor="celery",
            )
            ti_id: int = tx.execute(row.returning(task_instance.c.id)).scalar_one()
        return Attempt(ti_id, TaskInstanceKey(self.dag.dag_id, task_id, run_id, map_index), attempt_id, try_number)

    def bundle(self, *attempts: Attempt) -> Bundle:
        """Return the message for these attempts."""
        return Bundle(self.job_id, DagSource(self.dag.dag_id), attempts, event_stream(self.job_id))

    def row(self, attempt: Attempt) -> Row:
        """Return the task instance as it is now."""
        columns = task_instance.c
        statement = sa.select(
            columns.state,
            columns.error,
            columns.try_number,
            columns.external_executor_id,
            columns.infrastructure_failures,
        ).where(columns.id == attempt.task_instance_id)
        with self.engine.connect() as tx:
            return Row(*tx.execute(statement).one())

    def state(self, attempt: Attempt) -> str:
        """Return its state."""
        return self.row(attempt).state

    def column(self, attempt: Attempt, name: str) -> Any:
        """Return one column of its row."""
        with self.engine.connect() as tx:
            return tx.execute(
                sa.select(task_instance.c[name]).where(task_instance.c.id == attempt.task_instance_id)
            ).scalar_one()

    def xcoms(self, attempt: Attempt) -> dict[str, Any]:
        """Return its XComs by key."""
        with self.engine.connect() as tx:
            found = tx.execute(
                sa.select(xcom.c.key, xcom.c.value).where(xcom.c.task_instance_id == attempt.task_instance_id)
            )
            return {row.key: row.value for row in found}

    def outcome(self, attempt: Attempt) -> str | None:
        """Return the outcome in the history of tries."""
        with self.engine.connect() as tx:
            return tx.execute(
                sa.select(task_attempt.c.outcome).where(task_attempt.c.attempt_id == attempt.attempt_id)
            ).scalar_one_or_none()

    def log(self, attempt: Attempt) -> str:
        """Return the log of its try."""
        return self.log_path(attempt).read_text()

    def log_path(self, attempt: Attempt) -> Path:
        """Return where that log is."""
        return log_path(self.settings.log_folder, attempt.key, attempt.try_number)

    def set(self, attempt: Attempt, **values: Any) -> None:
        """Change its row by hand."""
        with self.engine.begin() as tx:
            tx.execute(sa.update(task_instance).where(task_instance.c.id == attempt.task_instance_id).values(**values))

    def _run(self, tx: sa.Connection, day: int) -> int:
        if day not in self._runs:
            date = FIRST + timedelta(days=day)
            self._runs[day] = tx.execute(
                sa.insert(dag_run)
                .values(
                    dag_id=self.dag.dag_id,
                    run_id=backfill_run_id(date),
                    logical_date=date,
                    data_interval_start=date,
                    data_interval_end=date + timedelta(days=1),
                    run_type="backfill",
                    state="running",
                    conf=self._conf,
                    job_id=self.job_id,
                    start_date=sa.func.now(),
                )
                .returning(dag_run.c.id)
            ).scalar_one()
        return self._runs[day]


def states(stage: Stage, attempts: Sequence[Attempt]) -> list[str]:
    """Return the states of several."""
    return [stage.state(attempt) for attempt in attempts]
