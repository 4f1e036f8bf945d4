"""How a worker takes attempts, and gives back those that it never began.

A claim is one statement for any number of attempts, each guarded by its own row: `queued` under the attempt id and try of the
message (S3.7, S7.4).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from backfill.keys import TaskInstanceKey
from backfill.messages import Attempt
from backfill.store.database import Tx
from backfill.store.statements import named, statement


class Claim(NamedTuple):
    """All that a worker needs to know to run the attempt that it claimed; read from the row, never from the message."""

    task_instance_id: int
    attempt_id: str
    dag_run_id: int
    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int
    max_tries: int
    infrastructure_failures: int
    #: Start of this attempt.
    start_date: datetime
    #: Start of the first attempt since the last clear (S6.7).
    first_start_date: datetime
    queued_at: datetime | None
    pool: str
    pool_slots: int
    queue: str
    executor: str
    operator: str
    priority_weight: int
    logical_date: datetime
    data_interval_start: datetime
    data_interval_end: datetime
    run_type: str
    external_trigger: bool
    conf: dict[str, Any]
    run_start_date: datetime | None
    #: The job that queued the attempt; None if it was deleted since.
    job_id: int | None
    #: All that the job was called with; empty without a job.
    job_params: dict[str, Any]
    dag_pickle_hash: str | None
    dag_source: dict[str, Any]

    @property
    def key(self) -> TaskInstanceKey:
        """Identity of the task instance."""
        return TaskInstanceKey(self.dag_id, self.task_id, self.run_id, self.map_index)


# What belongs to the job comes with the first of its attempts only: it is the same for all of them.
_CLAIM = named(
    statement(
        """
with mine as (
    select t.id, g.position
    from unnest(cast(:ids as bigint[]), cast(:attempts as uuid[]), cast(:tries as int[]))
        with ordinality as g (id, attempt_id, try_number, position)
    join task_instance t
        on t.id = g.id and t.state = 'queued' and t.external_executor_id = g.attempt_id and t.try_number = g.try_number
    order by t.id for no key update of t
), claimed as (
    update task_instance t
    set state = 'running', hostname = :hostname, pid = :pid,
        start_date = statement_timestamp(), heartbeat_at = statement_timestamp(),
        first_start_date = coalesce(t.first_start_date, statement_timestamp()),
        end_date = null, duration = null, next_attempt_at = null, skips = null
    from mine where t.id = mine.id
    returning t.*, mine.position
), forgotten as (
    delete from xcom using claimed where xcom.task_instance_id = claimed.id
), begun as (
    insert into task_attempt (attempt_id, task_instance_id, try_number, job_id, start_date, hostname, pid)
    select external_executor_id, id, try_number, queued_by_job_id, start_date, hostname, pid from claimed
    on conflict (attempt_id) do nothing
)
select t.id, cast(t.external_executor_id as text), t.dag_run_id, t.dag_id, t.task_id, t.run_id, t.map_index,
       t.try_number, t.max_tries, t.infrastructure_failures, t.start_date, t.first_start_date, t.queued_at,
       t.pool, t.pool_slots, t.queue, t.executor, t.operator, t.priority_weight,
       r.logical_date, r.data_interval_start, r.data_interval_end, r.run_type, r.external_trigger, r.conf, r.start_date,
       j.id, case when row_number() over same_job = 1 then jsonb_build_array(j.params, j.dag_pickle_hash, j.dag_source) end
from claimed t join dag_run r on r.id = t.dag_run_id left join job j on j.id = t.queued_by_job_id
window same_job as (partition by j.id order by t.position)
order by t.position
""",
    ),
    *Claim._fields[:-3],
    "job",
)


def claim_if_queued(tx: Tx, attempts: Sequence[Attempt], *, hostname: str, pid: int) -> list[Claim]:
    """Turn `queued` into `running` where attempt and try are still those of the message (S3.7, S7.4); in the order given.

    With it the XComs of earlier attempts are deleted (S7.5) and the attempts enter the history of tries. One that is missing is
    stale or came twice, and nothing of it was changed.
    """
    if not attempts:
        return []
    unique = {attempt.attempt_id: attempt for attempt in attempts}.values()
    values = {
        "ids": [attempt.task_instance_id for attempt in unique],
        "attempts": [attempt.attempt_id for attempt in unique],
        "tries": [attempt.try_number for attempt in unique],
        "hostname": hostname,
        "pid": pid,
    }
    claims: list[Claim] = []
    jobs: dict[int | None, Sequence[Any]] = {None: ({}, None, {})}
    for row in tx.execute(_CLAIM, values):
        *own, job_id, job = row
        params, pickle_hash, source = jobs.setdefault(job_id, job)
        claims.append(Claim._make((*own, job_id, params or {}, pickle_hash, source or {})))
    return claims


# Host and process id have namesakes, and a message may come twice: only the start date is this one claim's own.
_RENEW_CLAIMED = statement("""
with mine as (
    select t.id
    from unnest(cast(:ids as bigint[]), cast(:attempts as uuid[]), cast(:starts as timestamptz[])) as g (id, attempt_id, start_date)
    join task_instance t
        on t.id = g.id and t.state = 'running' and t.external_executor_id = g.attempt_id and t.start_date = g.start_date
    where t.hostname = :hostname and t.pid = :pid
    order by t.id for no key update of t
)
update task_instance t set heartbeat_at = statement_timestamp() from mine where t.id = mine.id
returning cast(t.external_executor_id as text)
""")


def renew_if_claimed(tx: Tx, claims: Sequence[Claim], *, hostname: str, pid: int) -> set[str]:
    """Return the attempt ids of `claims` that were written, with their heartbeats renewed.

    For whoever made them in a transaction of which it is not known whether it was committed.
    """
    if not claims:
        return set()
    values = {
        "ids": [claim.task_instance_id for claim in claims],
        "attempts": [claim.attempt_id for claim in claims],
        "starts": [claim.start_date for claim in claims],
        "hostname": hostname,
        "pid": pid,
    }
    return set(tx.execute(_RENEW_CLAIMED, values).scalars())


_UNCLAIM = statement("""
with mine as (
    select t.id, a.attempt_id
    from task_attempt a
    join task_instance t on t.id = a.task_instance_id and t.external_executor_id = a.attempt_id
    where a.attempt_id = any(cast(:attempt_ids as uuid[])) and t.state = 'running'
    order by t.id for no key update of t
), unclaimed as (
    update task_instance t
    set state = 'none', external_executor_id = null, try_open = true, heartbeat_at = null, hostname = null, pid = null,
        start_date = null, first_start_date = nullif(t.first_start_date, t.start_date)
    from mine where t.id = mine.id
    returning mine.attempt_id
), forgotten as (
    delete from task_attempt a using unclaimed u where a.attempt_id = u.attempt_id
)
select cast(attempt_id as text) from unclaimed
""")


def unclaim_if_running(tx: Tx, attempt_ids: Collection[str]) -> set[str]:
    """Put attempts that were claimed but never begun back to `none`, at no cost (S3.15).

    As if they had not been claimed: the attempt id is voided, the try stays open, and the history, which is of attempts that
    began, forgets them. Returns the attempt ids that took effect.
    """
    if not attempt_ids:
        return set()
    return set(tx.execute(_UNCLAIM, {"attempt_ids": list(attempt_ids)}).scalars())
