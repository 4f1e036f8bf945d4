"""What an operator asks about one task instance, one date, and who takes up the room. Reads only, and takes no locks."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from backfill.facts import RunFacts
from backfill.store.database import Tx
from backfill.store.statements import read, statement


class RunDateRow(NamedTuple):
    """One date of a job, and the run that is there."""

    ordinal: int
    logical_date: datetime
    action: str
    #: pending, admitted or finished
    progress: str
    #: None: there is no run at the date yet.
    dag_run_id: int | None
    run_id: str | None
    run_state: str | None


_SELECT_DATES = statement(
    """
    select date.ordinal, date.logical_date, date.action, date.progress, run.id, run.run_id, run.state
    from job_run_date date
    left join dag_run run on run.dag_id = date.dag_id and run.logical_date = date.logical_date
    where date.job_id = :job_id and date.dag_id = :dag_id
      and date.logical_date >= :first and date.logical_date < :until
    order by date.logical_date
    """
)


def select_run_dates(tx: Tx, job_id: int, dag_id: str, first: datetime, span: timedelta) -> list[RunDateRow]:
    """Return the dates of a job's DAG, or of one of its subdags, from `first` on, for the length of `span`."""
    parameters = {"job_id": job_id, "dag_id": dag_id, "first": first, "until": first + span}
    return read(RunDateRow, tx.execute(_SELECT_DATES, parameters))


_SELECT_BOUNDS = statement(
    """
    select min(date.logical_date) as first, max(date.logical_date) as last
    from job_run_date date
    join job on job.id = date.job_id
    where date.job_id = :job_id and date.dag_id = job.dag_id
    """
)


def select_bounds(tx: Tx, job_id: int) -> tuple[datetime, datetime] | None:
    """Return the first and the last date of a job; None: it has none."""
    row = tx.execute(_SELECT_BOUNDS, {"job_id": job_id}).one()
    return None if row.first is None else (row.first, row.last)


class TaskInstanceDetail(NamedTuple):
    """All that one row says, with ages by the database's clock."""

    id: int
    dag_run_id: int
    task_id: str
    run_id: str
    map_index: int
    #: A `TaskInstanceState` word.
    state: str
    try_number: int
    max_tries: int
    attempt_id: str | None
    queued_at: datetime | None
    start_date: datetime | None
    end_date: datetime | None
    #: Since it was queued, since its attempt was claimed, since its worker was heard of.
    queued_age: timedelta | None
    running_age: timedelta | None
    heartbeat_age: timedelta | None
    next_attempt_at: datetime | None
    infrastructure_failures: int
    pool: str
    pool_slots: int
    queue: str
    executor: str
    operator: str
    hostname: str | None
    pid: int | None
    skips: list[str] | None
    error: str | None
    now: datetime


_SELECT_DETAILS = statement(
    """
    select ti.id, ti.dag_run_id, ti.task_id, ti.run_id, ti.map_index, ti.state, ti.try_number, ti.max_tries,
           ti.external_executor_id::text, ti.queued_at, ti.start_date, ti.end_date,
           statement_timestamp() - ti.queued_at, statement_timestamp() - ti.start_date, statement_timestamp() - ti.heartbeat_at,
           ti.next_attempt_at, ti.infrastructure_failures, ti.pool, ti.pool_slots, ti.queue, ti.executor, ti.operator,
           ti.hostname, ti.pid, ti.skips, ti.error, statement_timestamp()
    from task_instance ti
    where ti.dag_run_id = :dag_run_id
    order by ti.task_id, ti.map_index
    """
)


def select_details(tx: Tx, dag_run_id: int) -> list[TaskInstanceDetail]:
    """Return the task instances of a run by task id and map index, `removed` ones too."""
    return read(TaskInstanceDetail, tx.execute(_SELECT_DETAILS, {"dag_run_id": dag_run_id}))


class AttemptRow(NamedTuple):
    """One attempt that a worker claimed."""

    attempt_id: str
    try_number: int
    start_date: datetime
    end_date: datetime | None
    outcome: str | None
    hostname: str | None


_SELECT_ATTEMPTS = statement(
    """
    select attempt_id::text, try_number, start_date, end_date, outcome, hostname from task_attempt
    where task_instance_id = :ti_id
    order by start_date, try_number
    """
)


def select_attempts(tx: Tx, ti_id: int) -> list[AttemptRow]:
    """Return the history of a task instance, the earliest attempt first."""
    return read(AttemptRow, tx.execute(_SELECT_ATTEMPTS, {"ti_id": ti_id}))


class Occupant(NamedTuple):
    """A task instance that is in flight, and so takes up room under limits."""

    dag_run_id: int
    dag_id: str
    task_id: str
    logical_date: datetime
    map_index: int
    state: str
    pool: str
    pool_slots: int
    #: The job that queued it.
    job_id: int | None
    #: Since it was claimed or, where it was not, queued.
    age: timedelta | None
    queue: str
    executor: str
    attempt_id: str | None


_SELECT_OCCUPANTS = statement(
    """
    select ti.dag_run_id, ti.dag_id, ti.task_id, run.logical_date, ti.map_index, ti.state, ti.pool, ti.pool_slots,
           ti.queued_by_job_id,
           statement_timestamp() - case ti.state when 'running' then ti.start_date else ti.queued_at end,
           ti.queue, ti.executor, ti.external_executor_id::text
    from task_instance ti
    join dag_run run on run.id = ti.dag_run_id
    where ti.state in $in_flight
      and (ti.dag_id = any(cast(:dag_ids as text[])) or ti.pool = any(cast(:pools as text[])))
      and not (ti.operator = 'SubDagOperator' and ti.external_executor_id is null)
    order by ti.state = 'running' desc, ti.start_date, ti.queued_at, ti.id
    """
)


def select_occupants(tx: Tx, dag_ids: Iterable[str], pools: Iterable[str]) -> list[Occupant]:
    """Return what is in flight in these DAGs or pools, whoever queued it; what runs the longest first (S5)."""
    return read(Occupant, tx.execute(_SELECT_OCCUPANTS, {"dag_ids": list(dag_ids), "pools": list(pools)}))


class RunningRun(NamedTuple):
    """A run that counts for `max_active_runs` (S5)."""

    logical_date: datetime
    run_type: str
    #: The job that drives it.
    job_id: int | None


_SELECT_RUNNING_RUNS = statement(
    """
    select logical_date, run_type, job_id from dag_run
    where dag_id = :dag_id and state = 'running' and not external_trigger
    order by logical_date
    """
)


def select_running_runs(tx: Tx, dag_id: str) -> list[RunningRun]:
    """Return the runs of a DAG that count for `max_active_runs`, by date."""
    return read(RunningRun, tx.execute(_SELECT_RUNNING_RUNS, {"dag_id": dag_id}))


_SELECT_CLOSED_RUNS = statement(
    """
    with closed as (
        select run.id, date.ordinal, date.dag_id
        from job
        join job_run_date date on date.job_id = job.id and date.progress = 'finished'
        join dag_run run on run.id = date.dag_run_id and run.state = 'failed' and run.job_id is null
        where job.id = :job_id and job.state not in $active_job
    ),
    unfinished as (
        select distinct closed.ordinal from closed
        join task_instance ti on ti.dag_run_id = closed.id and ti.state in $unfinished
    )
    select $run_facts, closed.ordinal
    from closed
    join unfinished on unfinished.ordinal = closed.ordinal
    join dag_run run on run.id = closed.id
    order by closed.ordinal, closed.dag_id
    """,
    run_facts=", ".join(f"run.{name}" for name in RunFacts._fields[:-1]),
)


def select_closed_runs(tx: Tx, job_id: int) -> list[RunFacts]:
    """Return the runs of a job that has ended which were closed unfinished (S9.4), unless somebody took them since.

    They come in their order of admission, each with the failed runs of its subdags after it; also where only one of these was
    closed unfinished.
    """
    return read(RunFacts, tx.execute(_SELECT_CLOSED_RUNS, {"job_id": job_id}))
