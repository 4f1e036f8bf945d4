"""Rows drawn at random, whether or not a job could ever leave them so: on them each statement meets all of its guards, alone and together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import count
from random import Random
from typing import Any, TypeVar
from uuid import UUID

from frozen_time import BEGINNING
from model_database import Row, Tables
from scripts import DAY, FIRST

from backfill.keys import backfill_run_id
from backfill.states import DagRunState, JobState, RunType, TaskInstanceState

T = TypeVar("T")

NOW = BEGINNING + timedelta(days=1)
#: The second is a subdag of the first.
DAGS = ("alpha", "alpha.sub", "beta")
#: Of the last two one is mapped, the other stands for a subdag.
TASKS = ("one", "two", "each", "sub")
POOLS = ("default_pool", "narrow")
DAYS = 4
#: Ages of heartbeats, starts and the like: on both sides of each timeout that is asked with, and at it.
AGES = tuple(timedelta(seconds=seconds) for seconds in (0, 1, 10, 29, 30, 31, 90, 400))
NEVER = datetime.fromtimestamp(0, BEGINNING.tzinfo)


class Dice(Random):
    """A source of chance with the draws that rows are made of; the same seed draws the same."""

    def often(self) -> bool:
        return self.random() < 0.7

    def rarely(self) -> bool:
        return self.random() < 0.15

    def or_none(self, value: T) -> T | None:
        return value if self.often() else None

    def ago(self) -> datetime:
        return NOW - self.choice(AGES)

    def some(self, values: Sequence[T]) -> list[T]:
        """Return some of them in any order, mostly more than one."""
        return self.sample(values, self.randint(min(len(values), 1), len(values)))

    def attempt_id(self) -> str:
        return str(UUID(int=self.getrandbits(128)))


def random_tables(seed: int) -> Tables:
    """Return all tables full of rows."""
    dice, tables = Dice(seed), Tables()
    for name in dice.some(DAGS):
        tables.dag[name] = Row(dag_id=name, fileloc=dice.or_none(f"{name}.py"))
    for name in POOLS:
        if dice.often():
            tables.pool[name] = Row(pool=name, slots=dice.randint(-1, 3))
    tables.job = {job_id: _job(dice, job_id) for job_id in (1, 2, 3)}
    tables.run = {run.id: run for run in _runs(dice)}
    tables.date = {(date.job_id, date.dag_id, date.ordinal): date for date in _dates(dice, tables)}
    ids = iter(dice.sample(range(1, 1000), 999))  # which run comes first, or which index, is not to be seen in them
    tables.ti = {ti.id: ti for run in tables.run.values() for ti in _task_instances(dice, run, ids)}
    tables.attempt = {attempt.attempt_id: attempt for attempt in _attempts(dice, tables)}
    tables.xcom = {(xcom.task_instance_id, xcom.key): xcom for xcom in _xcoms(dice, tables)}
    tables.restore({name: _shuffled(dice, rows) for name, rows in tables.snapshot().items()})
    return fresh_ids(tables)


def _shuffled(dice: Dice, rows: dict[Any, Row]) -> dict[Any, Row]:
    return dict(dice.sample(list(rows.items()), len(rows)))


def fresh_ids(tables: Tables) -> Tables:
    """Let new rows have the ids after those that are there."""
    tables.job_ids, tables.run_ids = count(max(tables.job) + 1), count(max(tables.run, default=0) + 1)
    tables.ti_ids = count(max(tables.ti, default=0) + 1)
    return tables


def copy_of(tables: Tables) -> Tables:
    """Return the same rows in tables that may be changed."""
    copy = Tables()
    copy.restore(tables.snapshot())
    return fresh_ids(copy)


def _job(dice: Dice, job_id: int) -> Row:
    state = dice.choice([JobState.RUNNING, JobState.RUNNING, JobState.QUEUED, JobState.PAUSED, *JobState])
    holder = dice.or_none(f"coordinator {job_id}")
    return Row(
        id=job_id,
        job_type="BackfillJob",
        dag_id=dice.choice(["alpha", "alpha", "beta"]),
        state=state.value,
        params=dice.choice([{}, {"task_ids": ["one", "sub"]}, {"verbose": True, "task_ids": None}]),
        dag_pickle_hash=None,
        dag_source=dice.choice([{}, {"fileloc": "alpha.py"}]),
        total_runs=dice.randint(0, 4),
        submitted=dice.often(),
        cancel_requested=dice.rarely(),
        lease_holder=holder,
        lease_epoch=dice.randint(0, 2),
        latest_heartbeat=dice.ago() if holder else dice.or_none(dice.ago()),
        created_at=NOW - DAY,
        start_date=dice.or_none(dice.ago()),
        end_date=dice.or_none(dice.ago()),
        hostname="here",
        unixname="me",
        error=None if dice.often() else "it broke",
    )


def _runs(dice: Dice) -> Iterator[Row]:
    ids = count(1)
    for dag_id in DAGS:
        for day in range(DAYS):
            if dice.often():
                yield _run(dice, next(ids), dag_id, FIRST + day * DAY)


def _run(dice: Dice, run_id: int, dag_id: str, date: datetime) -> Row:
    return Row(
        id=run_id,
        dag_id=dag_id,
        run_id=backfill_run_id(date),
        logical_date=date,
        data_interval_start=date,
        data_interval_end=date + DAY,
        run_type=dice.choice([RunType.BACKFILL, RunType.BACKFILL, *RunType]).value,
        state=dice.choice([DagRunState.RUNNING, DagRunState.RUNNING, DagRunState.FAILED, *DagRunState]).value,
        conf=dice.choice([{}, {"key": [1, None]}]),
        external_trigger=not dice.often(),
        creating_job_id=dice.or_none(dice.randint(1, 3)),
        job_id=dice.or_none(dice.randint(1, 2)),
        start_date=dice.or_none(dice.ago()),
        end_date=None if dice.often() else dice.ago(),
        idle_seconds=float(dice.choice([0, 0, 20])),
    )


def _dates(dice: Dice, tables: Tables) -> Iterator[Row]:
    runs = {(run.dag_id, run.logical_date): run for run in tables.run.values()}
    owned = set()
    for job_id in tables.job:
        for dag_id in DAGS:
            for ordinal in range(DAYS):
                date = FIRST + (ordinal if job_id != 2 else DAYS - 1 - ordinal) * DAY  # the second job runs backwards
                run = runs.get((dag_id, date))
                if dice.rarely():
                    continue
                active = (dag_id, date) not in owned and not dice.rarely()
                owned |= {(dag_id, date)} if active else set()
                yield Row(
                    job_id=job_id,
                    dag_id=dag_id,
                    ordinal=ordinal,
                    logical_date=date,
                    data_interval_start=date,
                    data_interval_end=date + DAY,
                    action=dice.choice(["create", "take", "clear", "done"]),
                    dag_run_id=run.id if run is not None and dice.often() else None,
                    progress=dice.choice(["pending", "pending", "admitted", "finished"]),
                    active=active,
                )


def _task_instances(dice: Dice, run: Row, ids: Iterator[int]) -> Iterator[Row]:
    places = [(task_id, -1) for task_id in TASKS] + [("each", 0), ("each", 1), ("each", 2), ("two", 0)]
    for place in dice.some(places) if dice.often() else []:
        yield _task_instance(dice, run, next(ids), *place)


def _task_instance(dice: Dice, run: Row, ti_id: int, task_id: str, map_index: int) -> Row:
    states = TaskInstanceState
    likely = [states.QUEUED, states.RUNNING, states.RUNNING, states.REMOVED, states.SKIPPED, states.SKIPPED]
    start, attempt_id = dice.or_none(dice.ago()), dice.or_none(dice.attempt_id())
    return Row(
        id=ti_id,
        dag_run_id=run.id,
        dag_id=run.dag_id,
        run_id=run.run_id,
        task_id=task_id,
        map_index=map_index,
        state=dice.choice([*likely, *states]).value,
        try_number=dice.randint(0, 2),
        max_tries=dice.randint(0, 2),
        try_open=dice.often(),
        external_executor_id=attempt_id,
        queued_by_job_id=dice.or_none(dice.randint(1, 4)),  # the fourth was deleted
        queued_at=dice.or_none(dice.ago()),
        start_date=start,
        end_date=dice.or_none(dice.ago()),
        duration=dice.or_none(1.5),
        first_start_date=start if dice.often() else dice.or_none(dice.ago()),
        next_attempt_at=dice.or_none(NOW + DAY),
        heartbeat_at=dice.choice([dice.ago(), dice.ago(), dice.ago(), None, NEVER]),
        infrastructure_failures=dice.randint(0, 2),
        pool=dice.choice(POOLS),
        pool_slots=dice.randint(1, 2),
        queue=dice.choice(["default", "other"]),
        executor=dice.choice(["celery", "local"]),
        operator="SubDagOperator" if task_id == "sub" else dice.choice(["BashOperator", "PythonOperator"]),
        priority_weight=dice.randint(1, 2),
        hostname=dice.choice(["worker 1", "worker 2", None]),
        pid=dice.choice([1, 2, None]),
        skips=dice.choice([None, [], ["two"]]),
        error=dice.choice([None, "it broke", "dagrun_timeout of 1:00 is over", "dagrun_timeout of 2:00 is over"]),
    )


def _attempts(dice: Dice, tables: Tables) -> Iterator[Row]:
    for ti in tables.ti.values():
        if ti.external_executor_id is not None and dice.often():
            yield _attempt(dice, ti, ti.external_executor_id)
        if dice.rarely():  # an earlier one
            yield _attempt(dice, ti, dice.attempt_id())


def _attempt(dice: Dice, ti: Row, attempt_id: str) -> Row:
    is_open = dice.often()
    return Row(
        attempt_id=attempt_id,
        task_instance_id=ti.id,
        try_number=ti.try_number,
        job_id=ti.queued_by_job_id,
        start_date=ti.start_date or dice.ago(),
        end_date=None if is_open else dice.ago(),
        outcome=None if is_open else "failed",
        hostname=ti.hostname,
        pid=ti.pid,
        error=None if is_open else "it had ended",
    )


def _xcoms(dice: Dice, tables: Tables) -> Iterator[Row]:
    values: list[Any] = [[], [1, 2], {"a": 1, "b": 2, "c": 3}, "text", 5, None]
    for ti in tables.ti.values():
        for key in ("return_value", "other"):
            if not dice.often():
                yield Row(task_instance_id=ti.id, key=key, value=dice.choice(values))
