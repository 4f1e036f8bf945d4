"""Attempts that were lost or that disagree with their row, and task instances that nobody holds (semantics, section 8)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast

from sqlalchemy import TextClause

from backfill.facts import TaskInstanceFacts
from backfill.states import TaskInstanceState
from backfill.store.database import Tx
from backfill.store.statements import as_facts, columns, fetch, statement
from backfill.store.values import storable_text

_WIDTH = len(TaskInstanceFacts._fields)


class InFlight(NamedTuple):
    """A task instance that is `queued` or `running`, and where."""

    facts: TaskInstanceFacts
    executor: str
    #: Celery queue that its message went to.
    queue: str
    #: Host of the worker that claimed it.
    hostname: str | None
    #: When it was queued, or gave its last sign of life; None if the row does not say.
    since: datetime | None

    @property
    def given_up(self) -> bool:
        """Whether its own process let the heartbeat run out (`store.attempts.give_up_heartbeats`)."""
        return self.since is not None and self.since.timestamp() == 0


# The run's start stands in where the row does not say: it was set by hand.
_IN_FLIGHT = """
    select $facts, ti.executor, ti.queue, ti.hostname, moment.since
    from dag_run run
    join task_instance ti on ti.dag_run_id = run.id
    cross join lateral (
        select coalesce(case ti.state when 'running' then ti.heartbeat_at else ti.queued_at end, run.start_date) as since
    ) moment
    where run.job_id = :job_id and run.state = 'running'
      and not (ti.operator = 'SubDagOperator' and ti.external_executor_id is null)
"""
_SILENT = "coalesce(moment.since, '-infinity') < statement_timestamp() - cast(:timeout as interval)"

_SELECT_IN_FLIGHT = statement("$rows and ti.state in $in_flight order by ti.id", rows=_IN_FLIGHT)


def select_in_flight(tx: Tx, job_id: int) -> list[InFlight]:
    """Return all that is in flight in the job's window, whoever dispatched it: what a new holder adopts (S8.6)."""
    return _read(tx, _SELECT_IN_FLIGHT, job_id=job_id)


_SELECT_ZOMBIES = statement(
    "$rows and ti.state = 'running' and $silent order by ti.id", rows=_IN_FLIGHT, silent=_SILENT
)


def select_zombies(tx: Tx, job_id: int, heartbeat_timeout: timedelta) -> list[InFlight]:
    """Return what is `running` in the job's window without a heartbeat for `heartbeat_timeout` (S8.4)."""
    return _read(tx, _SELECT_ZOMBIES, job_id=job_id, timeout=heartbeat_timeout)


class Swept(NamedTuple):
    """What a look at whole runs found."""

    #: All rows of the runs, `removed` ones too, run by run.
    rows: list[TaskInstanceFacts]
    #: What is `running` without a heartbeat for too long (S8.4).
    zombies: list[InFlight]
    #: What is `queued` without a claim for too long; lost are those of which the executor knows no message (S8.4).
    unclaimed: list[InFlight]


_SWEEP = statement(
    """
    select $facts, ti.executor, ti.queue, ti.hostname, moment.since,
           moment.is_watched and coalesce(moment.since, '-infinity') < statement_timestamp() - moment.patience as is_silent
    from dag_run run
    join task_instance ti on ti.dag_run_id = run.id
    cross join lateral (
        select coalesce(case ti.state when 'running' then ti.heartbeat_at else ti.queued_at end, run.start_date) as since,
               cast(case ti.state when 'running' then :heartbeat_timeout else :queued_timeout end as interval) as patience,
               ti.state in $in_flight and run.state = 'running' and run.job_id is not distinct from :job_id
                   and not (ti.operator = 'SubDagOperator' and ti.external_executor_id is null) as is_watched
    ) moment
    where run.id = any(cast(:dag_run_ids as bigint[]))
    order by run.id, ti.id
    """
)


def sweep_runs(
    tx: Tx, job_id: int, dag_run_ids: Collection[int], *, heartbeat_timeout: timedelta, queued_timeout: timedelta
) -> Swept:
    """Return all rows of runs of the job's window, and which of them have been silent for too long (S8.4)."""
    parameters = {
        "job_id": job_id,
        "dag_run_ids": list(dag_run_ids),
        "heartbeat_timeout": heartbeat_timeout,
        "queued_timeout": queued_timeout,
    }
    rows = fetch(tx.execute(_SWEEP, parameters))
    facts = _facts(rows)
    silent = [InFlight(known, *row[_WIDTH:-1]) for known, row in zip(facts, rows, strict=True) if row[-1]]
    return Swept(
        facts,
        zombies=[each for each in silent if each.facts.state == TaskInstanceState.RUNNING],
        unclaimed=[each for each in silent if each.facts.state == TaskInstanceState.QUEUED],
    )


_LOCK_UNCLAIMED = statement(
    """
    select ti.id
    from unnest(cast(:ti_ids as bigint[]), cast(:attempt_ids as uuid[])) as given (id, attempt_id)
    join task_instance ti on ti.id = given.id
    where ti.state = 'queued' and ti.external_executor_id is not distinct from given.attempt_id
    order by ti.id
    for no key update of ti
    """
)


def lock_unclaimed(tx: Tx, attempts: Collection[tuple[int, str | None]]) -> set[int]:
    """Return the ids of those (id, attempt id) that no worker has claimed, and let none do so until `tx` ends.

    That an attempt is lost with its message was found a moment before that is written: a worker may have had the message in hand.
    """
    if not attempts:
        return set()
    ti_ids, attempt_ids = zip(*attempts, strict=True)
    return set(tx.execute(_LOCK_UNCLAIMED, {"ti_ids": list(ti_ids), "attempt_ids": list(attempt_ids)}).scalars())


class Holder(NamedTuple):
    """The process that claimed an attempt."""

    hostname: str | None
    pid: int
    #: How many attempts it holds by the rows; what it has given up itself is not counted.
    held: int


_SELECT_HOLDERS = statement(
    """
    with running as (
        select ti.id, ti.hostname, ti.pid, count(*) over (partition by ti.hostname, ti.pid) as held
        from dag_run run
        join task_instance ti on ti.dag_run_id = run.id
        where run.job_id = :job_id and run.state = 'running'
          and ti.state = 'running' and ti.pid is not null and ti.heartbeat_at > to_timestamp(0)
    )
    select id, hostname, pid, held from running where id = any(cast(:ti_ids as bigint[]))
    """
)


def select_holders(tx: Tx, job_id: int, ti_ids: Collection[int]) -> dict[int, Holder]:
    """Return which process of how many attempts in the job's window holds each of these, where the rows tell (S8.3)."""
    found = tx.execute(_SELECT_HOLDERS, {"job_id": job_id, "ti_ids": list(ti_ids)})
    return {row.id: Holder(row.hostname, row.pid, row.held) for row in found}


_SELECT_HOSTS = statement(
    "select id, hostname from task_instance where id = any(cast(:ti_ids as bigint[])) and hostname is not null"
)


def select_hosts(tx: Tx, ti_ids: Collection[int]) -> dict[int, str]:
    """Return the host of the worker that last claimed each task instance, where there was one."""
    return {row.id: row.hostname for row in tx.execute(_SELECT_HOSTS, {"ti_ids": list(ti_ids)})}


def _read(tx: Tx, sql: TextClause, **parameters: Any) -> list[InFlight]:
    rows = fetch(tx.execute(sql, parameters))
    return [InFlight(known, *row[_WIDTH:]) for known, row in zip(_facts(rows), rows, strict=True)]


def _facts(rows: Iterable[tuple[Any, ...]]) -> list[TaskInstanceFacts]:
    return as_facts(row[:_WIDTH] for row in rows)


class Failure(NamedTuple):
    """An attempt that counts as failed, written by the coordinator."""

    task_instance_id: int
    attempt_id: str | None
    error: str
    #: From now to the next try (S6.3); None: there is none, the task instance is `failed`.
    retry_delay: timedelta | None


# An attempt that was never claimed began and ended now.
_FAIL = statement(
    """
    with lost as (
        select ti.id, given.attempt_id, given.error, given.retry_delay,
               case ti.state when 'running' then coalesce(ti.start_date, statement_timestamp())
                             else statement_timestamp() end as start_date
        from unnest(
            cast(:ti_ids as bigint[]), cast(:attempt_ids as uuid[]), cast(:errors as text[]), cast(:retry_delays as interval[])
        ) as given (id, attempt_id, error, retry_delay)
        join task_instance ti on ti.id = given.id
        where ti.state in $in_flight and ti.external_executor_id is not distinct from given.attempt_id
        order by ti.id
        for no key update of ti
    ),
    failed as (
        update task_instance ti
        set state = case when lost.retry_delay is null then 'failed' else 'up_for_retry' end,
            next_attempt_at = statement_timestamp() + lost.retry_delay, try_open = false, error = lost.error, skips = null,
            start_date = lost.start_date, end_date = statement_timestamp(),
            duration = extract(epoch from statement_timestamp() - lost.start_date)
        from lost
        where ti.id = lost.id
        returning ti.id, ti.state, lost.attempt_id, lost.error
    ),
    closed as (
        update task_attempt
        set end_date = statement_timestamp(), outcome = failed.state, error = failed.error
        from failed
        where task_attempt.attempt_id = failed.attempt_id
    )
    select id from failed
    """
)


def fail_if_current(tx: Tx, failures: Iterable[Failure]) -> set[int]:
    """Fail attempts that are still in flight under their attempt id (S3.14, S3.16), with a retry or for good.

    The try is closed; the infrastructure counter stays. Returns the ids of the task instances that were changed.
    """
    given = list(failures)
    if not given:
        return set()
    ti_ids, attempt_ids, errors, retry_delays = columns(given)
    parameters = {
        "ti_ids": ti_ids,
        "attempt_ids": attempt_ids,
        "errors": [storable_text(error) for error in errors],
        "retry_delays": retry_delays,
    }
    return set(tx.execute(_FAIL, parameters).scalars())


class Loss(NamedTuple):
    """An attempt that was lost with its worker or its message."""

    task_instance_id: int
    attempt_id: str | None
    error: str
    #: Whether it counts against the budget.
    charged: bool = True


_LOSE = statement(
    """
    with gone as (
        select ti.id, given.attempt_id, given.error, given.charged
        from unnest(
            cast(:ti_ids as bigint[]), cast(:attempt_ids as uuid[]), cast(:errors as text[]), cast(:charged as boolean[])
        ) as given (id, attempt_id, error, charged)
        join task_instance ti on ti.id = given.id
        where ti.state in $in_flight and ti.external_executor_id is not distinct from given.attempt_id
        order by ti.id
        for no key update of ti
    ),
    lost as (
        update task_instance ti
        set state = 'none', external_executor_id = null, infrastructure_failures = ti.infrastructure_failures + cast(gone.charged as integer),
            error = gone.error, next_attempt_at = null, heartbeat_at = null
        from gone
        where ti.id = gone.id
        returning ti.id, gone.attempt_id, gone.error
    ),
    closed as (
        update task_attempt
        set end_date = statement_timestamp(), outcome = 'lost', error = lost.error
        from lost
        where task_attempt.attempt_id = lost.attempt_id
    )
    select id from lost
    """
)


def lose_if_current(tx: Tx, losses: Iterable[Loss]) -> set[int]:
    """Put attempts that are still in flight under their attempt id back to `none` after an infrastructure failure (S3.15).

    The counter grows by one if the loss is charged, the attempt id is voided, the try stays open. Returns the ids of the task instances that were changed.
    """
    given = list(losses)
    if not given:
        return set()
    ti_ids, attempt_ids, errors, charged = columns(given)
    parameters = {
        "ti_ids": ti_ids,
        "attempt_ids": attempt_ids,
        "errors": [storable_text(error) for error in errors],
        "charged": charged,
    }
    return set(tx.execute(_LOSE, parameters).scalars())


# What another live job queued, or what is in its runs, is its business.
_RESET_ORPHANS = statement(
    """
    with live as (
        select id from job
        where id <> :job_id and state in $active_job and lease_holder is not null
          and latest_heartbeat >= clock_timestamp() - cast(:lease_timeout as interval)
    ),
    orphan as (
        select ti.id
        from dag_run run
        join task_instance ti on ti.dag_run_id = run.id
        where run.state = 'running' and (cast(:dag_run_id as bigint) is null or run.id = :dag_run_id)
          and ti.state in ('scheduled', 'queued')
          and coalesce(ti.external_executor_id <> all(cast(:held as uuid[])), true)
          and not exists (
              select from live where live.id = run.job_id or (ti.state = 'queued' and live.id = ti.queued_by_job_id)
          )
        order by ti.id
        for no key update of ti
    ),
    reset as (
        update task_instance ti set state = 'none', external_executor_id = null
        from orphan
        where ti.id = orphan.id
        returning ti.id
    )
    select count(*) from reset
    """
)


def reset_orphans(
    tx: Tx, job_id: int, lease_timeout: timedelta, *, held: Collection[str], dag_run_id: int | None = None
) -> int:
    """Put `scheduled` and `queued` task instances that nobody holds back to `none`, and return their number (S8.5).

    Of one run, or of all `running` runs of any type. `held` are the attempt ids that this job's executors know; other jobs hold
    theirs while their lease was renewed within `lease_timeout`. The attempt id is voided, the try stays open.
    """
    parameters = {
        "job_id": job_id,
        "lease_timeout": lease_timeout,
        "held": list(held),
        "dag_run_id": dag_run_id,
    }
    return cast("int", tx.execute(_RESET_ORPHANS, parameters).scalar_one())
