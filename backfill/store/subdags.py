"""Runs of subdags, and the task instances that stand for them (S13): started and ended by the coordinator, without a worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from backfill.facts import RunFacts, TaskInstanceFacts
from backfill.states import TaskInstanceState
from backfill.store.database import Tx
from backfill.store.statements import columns, read, read_facts, statement
from backfill.store.values import encode, storable_text

_START = statement(
    """
    with run as (
        select id from dag_run
        where job_id = :job_id and state = 'running' and exists (select from job where id = :job_id and state = 'running')
          and id in (select ti.dag_run_id from task_instance ti where ti.id = any(cast(:ti_ids as bigint[])))
        order by id
        for share
    ),
    idle as (
        select ti.id from task_instance ti
        where ti.id = any(cast(:ti_ids as bigint[])) and ti.state in $idle and ti.dag_run_id in (select id from run)
        order by ti.id
        for no key update of ti
    ),
    ti as (
        update task_instance
        set state = 'running', try_number = try_number + case when try_open then 0 else 1 end, try_open = true,
            external_executor_id = null, queued_by_job_id = :job_id, next_attempt_at = null, skips = null,
            start_date = statement_timestamp(), first_start_date = coalesce(first_start_date, statement_timestamp()),
            end_date = null, duration = null, heartbeat_at = null, hostname = null, pid = null
        from idle
        where task_instance.id = idle.id
        returning task_instance.*
    )
    select $facts from ti order by ti.id
    """
)


def start_if_idle(tx: Tx, job_id: int, ti_ids: Sequence[int]) -> list[TaskInstanceFacts]:
    """Let idle task instances of running runs of the job stand for their subdags: `running`, without an attempt (S3.24).

    This opens a try (S6.1). Returns the rows that were idle.
    """
    if not ti_ids:
        return []
    return read_facts(tx.execute(_START, {"job_id": job_id, "ti_ids": list(ti_ids)}))


class SubdagEnd(NamedTuple):
    """How a task instance ends that stands for a subdag."""

    task_instance_id: int
    #: `success`, `up_for_retry` or `failed`.
    state: TaskInstanceState
    error: str | None = None
    #: From now to the next try: given with `up_for_retry`, and only then.
    retry_delay: timedelta | None = None
    #: Task ids that it decides to skip (S4.8).
    skips: Sequence[str] | None = None


_END = statement(
    """
    with given as (
        select * from unnest(
            cast(:ti_ids as bigint[]), cast(:states as text[]), cast(:errors as text[]), cast(:retry_delays as interval[]),
            cast(:skips as jsonb[])
        ) as g (id, state, error, retry_delay, skips)
    ),
    ended as (
        select given.* from given
        join task_instance ti on ti.id = given.id
        where ti.state = 'running' and ti.external_executor_id is null
        order by ti.id
        for no key update of ti
    ),
    ti as (
        update task_instance
        set state = ended.state, try_open = false, end_date = statement_timestamp(),
            duration = extract(epoch from statement_timestamp() - coalesce(task_instance.start_date, statement_timestamp())),
            next_attempt_at = statement_timestamp() + ended.retry_delay, error = coalesce(ended.error, task_instance.error),
            skips = case when ended.skips is not null then array(select jsonb_array_elements_text(ended.skips)) end
        from ended
        where task_instance.id = ended.id
        returning task_instance.*
    )
    select $facts from ti order by ti.id
    """
)


def end_if_running(tx: Tx, ends: Iterable[SubdagEnd]) -> list[TaskInstanceFacts]:
    """End task instances that stand for subdags, in the transaction that ends the subdags' runs (S3.24, S13.4).

    Returns the rows that were still `running`.
    """
    given = [_stored(each) for each in ends]
    if not given:
        return []
    ti_ids, states, errors, delays, skips = columns(given)
    parameters = {"ti_ids": ti_ids, "states": states, "errors": errors, "retry_delays": delays, "skips": skips}
    return read_facts(tx.execute(_END, parameters))


def _stored(end: SubdagEnd) -> tuple[int, str, str | None, timedelta | None, str | None]:
    skips = None if end.skips is None else encode("The skip decision", list(end.skips))
    return end.task_instance_id, end.state, storable_text(end.error), end.retry_delay, skips


class SubdagDate(NamedTuple):
    """A date of a subdag that a job owns."""

    dag_id: str
    ordinal: int
    #: `create`, `take`, `clear` or `done`.
    action: str
    #: `pending`, `admitted` or `finished`.
    progress: str


_DATES = """
    unnest(cast(:dag_ids as text[]), cast(:ordinals as integer[])) as asked (dag_id, ordinal)
"""
_SELECT_DATES = statement(
    """
    select date.dag_id, date.ordinal, date.action, date.progress
    from $dates
    join job_run_date date
        on date.job_id = :job_id and date.dag_id = asked.dag_id and date.ordinal = asked.ordinal and date.active
    order by date.dag_id, date.ordinal
    for no key update of date
    """,
    dates=_DATES,
)


def lock_dates(tx: Tx, job_id: int, dates: Iterable[tuple[str, int]]) -> list[SubdagDate]:
    """Lock and return dates, given as (dag_id, ordinal), that the job owns."""
    return read(SubdagDate, tx.execute(_SELECT_DATES, _asked(job_id, dates)))


_MARK = statement(
    """
    with marked as (
        select date.dag_id, date.ordinal
        from $dates
        join job_run_date date
            on date.job_id = :job_id and date.dag_id = asked.dag_id and date.ordinal = asked.ordinal and date.active
        where date.progress = any(cast(:before as text[]))
        order by date.dag_id, date.ordinal
        for no key update of date
    )
    update job_run_date date
    set progress = :after
    from marked
    where date.job_id = :job_id and date.dag_id = marked.dag_id and date.ordinal = marked.ordinal
    """,
    dates=_DATES,
)


def reopen_dates(tx: Tx, job_id: int, dates: Iterable[tuple[str, int]]) -> None:
    """Let dates of subdags that have been before, given as (dag_id, ordinal), be to come again."""
    _mark(tx, job_id, dates, before=["admitted", "finished"], after="pending")


def pass_over_dates(tx: Tx, job_id: int, dates: Iterable[tuple[str, int]]) -> None:
    """Let dates of subdags that are to come, given as (dag_id, ordinal), be done with: they get no run (S13.5)."""
    _mark(tx, job_id, dates, before=["pending"], after="finished")


def _mark(tx: Tx, job_id: int, dates: Iterable[tuple[str, int]], *, before: list[str], after: str) -> None:
    asked = _asked(job_id, dates)
    if asked["dag_ids"]:
        tx.execute(_MARK, {**asked, "before": before, "after": after})


def _asked(job_id: int, dates: Iterable[tuple[str, int]]) -> dict[str, Any]:
    given = list(dates)
    return {"job_id": job_id, "dag_ids": [dag_id for dag_id, _ in given], "ordinals": [ordinal for _, ordinal in given]}


_SELECT_ENDED = statement(
    """
    select $run_facts, date.ordinal
    from job
    join job_run_date top on top.job_id = job.id and top.dag_id = job.dag_id and top.progress = 'admitted'
    join job_run_date date
        on date.job_id = job.id and date.dag_id <> job.dag_id and date.ordinal = top.ordinal and date.progress = 'finished'
    join dag_run run on run.id = date.dag_run_id and run.state in ('success', 'failed')
    where job.id = :job_id
    order by date.ordinal, run.id
    """,
    run_facts=", ".join(f"run.{name}" for name in RunFacts._fields[:-1]),
)


def select_ended_runs(tx: Tx, job_id: int) -> list[RunFacts]:
    """Return the runs of subdags that have ended while the run of the job's DAG that they belong to goes on."""
    return read(RunFacts, tx.execute(_SELECT_ENDED, {"job_id": job_id}))


_PENDING = statement(
    """
    select date.dag_id, count(*) as count
    from job
    join job_run_date top on top.job_id = job.id and top.dag_id = job.dag_id and top.progress = 'admitted'
    join job_run_date date
        on date.job_id = job.id and date.dag_id <> job.dag_id and date.ordinal = top.ordinal and date.progress = 'pending'
    where job.id = :job_id
    group by date.dag_id
    """
)


def pending_counts(tx: Tx, job_id: int) -> dict[str, int]:
    """Return for each subdag how many of its runs are yet to begin in runs of the job's DAG that have begun."""
    return {row.dag_id: row[1] for row in tx.execute(_PENDING, {"job_id": job_id})}


_ABOVE_FAILURES = statement(
    """
    select ti.id
    from dag_run run
    join task_instance ti on ti.dag_run_id = run.id
    where run.id = any(cast(:dag_run_ids as bigint[])) and ti.state in $finished and exists (
        select from unnest(cast(:task_ids as text[]), cast(:dag_ids as text[])) as pair (task_id, dag_id)
        join dag_run below on below.dag_id = pair.dag_id and below.logical_date = run.logical_date
        join task_instance bad on bad.dag_run_id = below.id and bad.state in $ended_badly
        where pair.task_id = ti.task_id
    )
    order by ti.id
    """
)


def select_above_failures(tx: Tx, dag_run_ids: Sequence[int], subdags: Mapping[str, Sequence[str]]) -> list[int]:
    """Return the finished task instances of runs in whose subdags something ended badly at the same date.

    `subdags` gives for each task that stands for one the ids of that subdag and those below it.
    """
    pairs = [(task_id, dag_id) for task_id, dag_ids in subdags.items() for dag_id in dag_ids]
    parameters = {
        "dag_run_ids": list(dag_run_ids),
        "task_ids": [task_id for task_id, _ in pairs],
        "dag_ids": [dag_id for _, dag_id in pairs],
    }
    return list(tx.execute(_ABOVE_FAILURES, parameters).scalars())


_COUNT_DONE = statement(
    """
    with done as (
        update job_run_date date set progress = 'finished'
        from job
        where job.id = :job_id and date.job_id = job.id and date.dag_id <> job.dag_id
          and date.ordinal = any(cast(:ordinals as integer[])) and date.active and date.progress = 'pending'
        returning date.ordinal, date.dag_run_id
    )
    select done.ordinal, ti.state, count(*) as count
    from done
    join task_instance ti on ti.dag_run_id = done.dag_run_id
    where ti.state <> 'removed'
    group by done.ordinal, ti.state
    """
)


def count_as_done(tx: Tx, job_id: int, ordinals: Sequence[int]) -> Mapping[int, Counter[TaskInstanceState]]:
    """Let the subdags' dates of these ordinals be done with, as those of the job's DAG are, which count as done (S2.8).

    Returns the states of the task instances found there, by ordinal.
    """
    found: dict[int, Counter[TaskInstanceState]] = {ordinal: Counter() for ordinal in ordinals}
    for ordinal, state, count in tx.execute(_COUNT_DONE, {"job_id": job_id, "ordinals": list(ordinals)}):
        found[ordinal][TaskInstanceState(state)] += count
    return found
