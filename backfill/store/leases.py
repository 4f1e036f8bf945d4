"""The lease: the right of exactly one process to drive a job (S1.4), with an epoch that each takeover raises.

Time in which a run's job was paused or nobody drove it is added to the run's `idle_seconds` when the lease is claimed or
renewed, to within one heartbeat: it is no part of `dagrun_timeout` (S6.6).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, cast

from backfill.exceptions import LeaseLost
from backfill.states import JobState
from backfill.store.database import Tx
from backfill.store.statements import fetch, statement
from backfill.store.task_instances import LOCKED_LIMITS, lock_limits


class JobControl(NamedTuple):
    """What operators want of a job, which its holder looks at whenever it writes."""

    state: JobState
    cancel_requested: bool


class TakenJob(NamedTuple):
    """A job whose lease was taken, and the epoch under which its new holder writes."""

    job_id: int
    epoch: int


_FREE = """(lease_holder is null or coalesce(latest_heartbeat, '-infinity') < clock_timestamp() - cast(:timeout as interval))"""

_TAKE = """
    nobody_drove as (
        update dag_run
        set idle_seconds = idle_seconds
            + extract(epoch from clock_timestamp() - greatest(free.latest_heartbeat, dag_run.start_date))
        from free
        where dag_run.job_id = free.id and dag_run.state = 'running' and free.latest_heartbeat is not null
    )
    update job
    set lease_holder = :holder, lease_epoch = lease_epoch + 1, latest_heartbeat = clock_timestamp()
    from free
    where job.id = free.id
    returning job.id, job.lease_epoch
"""

_CLAIM = statement(
    """
    with free as (
        select id, latest_heartbeat from job
        where id = :job_id and state = any(cast(:from_states as text[])) and $is_free
        for no key update
    ),
    $take
    """,
    is_free=_FREE,
    take=_TAKE,
)


def claim_lease_if_free(
    tx: Tx, job_id: int, holder: str, timeout: timedelta, from_states: Collection[JobState]
) -> int | None:
    """Give the lease to `holder` if nobody holds it, or it was not renewed for `timeout`; return the new epoch.

    None: the job is not in one of `from_states`, or somebody holds it. The state stays.
    """
    parameters = {"job_id": job_id, "holder": holder, "timeout": timeout, "from_states": list(from_states)}
    row = tx.execute(_CLAIM, parameters).one_or_none()
    return None if row is None else cast("int", row.lease_epoch)


_TAKE_WAITING = statement(
    """
    with free as (
        select id, latest_heartbeat from job
        where state in $active_job and (state = 'queued' or (state = 'running' and submitted)) and $is_free
        order by id
        limit 1
        for no key update skip locked
    ),
    $take
    """,
    is_free=_FREE,
    take=_TAKE,
)


def take_waiting_job(tx: Tx, holder: str, timeout: timedelta) -> TakenJob | None:
    """Give `holder` the lease of the oldest job that waits for a coordinator (S1.5); None if there is none.

    Those are `queued` jobs, and submitted `running` ones whose lease was not renewed for `timeout`. The state stays.
    """
    row = tx.execute(_TAKE_WAITING, {"holder": holder, "timeout": timeout}).one_or_none()
    return None if row is None else TakenJob(row.id, row.lease_epoch)


_RENEW = statement(
    """
    with held as (
        select id, state, cancel_requested, latest_heartbeat from job
        where id = :job_id and lease_epoch = :epoch and lease_holder is not null
        for no key update
    ),
    paused as (
        update dag_run
        set idle_seconds = idle_seconds
            + extract(epoch from clock_timestamp() - greatest(held.latest_heartbeat, dag_run.start_date))
        from held
        where held.state = 'paused' and dag_run.job_id = held.id and dag_run.state = 'running'
    )
    update job set latest_heartbeat = clock_timestamp()
    from held
    where job.id = held.id
    returning held.state, held.cancel_requested, job.latest_heartbeat
    """
)


class Renewal(NamedTuple):
    """What the holder learns with its heartbeat."""

    control: JobControl
    #: When it was written, by the database's clock.
    at: datetime


def renew_lease_if_held(tx: Tx, job_id: int, epoch: int) -> Renewal | None:
    """Write the holder's heartbeat; None: the lease was released or taken over.

    A lease that ran out but that nobody took is renewed too: whoever takes it raises the epoch.
    """
    row = tx.execute(_RENEW, {"job_id": job_id, "epoch": epoch}).one_or_none()
    if row is None:
        return None
    return Renewal(JobControl(JobState(row.state), row.cancel_requested), row.latest_heartbeat)


# No `for share`: the same transaction may go on to change the job, and two shared locks that both want more are a deadlock.
_HELD = """
    select state, cancel_requested from job
    where id = :job_id and lease_epoch = :epoch and lease_holder is not null
    for no key update
"""
_FENCE = statement("$held", held=_HELD)


def fence(tx: Tx, job_id: int, epoch: int) -> JobControl:
    """Hold the lease to the end of the transaction; every transaction in which the holder writes begins with this (S1.4).

    Raises `LeaseLost` if the lease was released or taken over.
    """
    row = tx.execute(_FENCE, {"job_id": job_id, "epoch": epoch}).one_or_none()
    if row is None:
        raise _taken_over(job_id)
    return JobControl(JobState(row.state), row.cancel_requested)


def _taken_over(job_id: int) -> LeaseLost:
    return LeaseLost(f"Another coordinator took over job {job_id}; `backfill status {job_id}` shows how it goes on.")


# The job is locked before DAGs and pools, as everywhere.
_FENCE_AND_LOCK = statement(
    """
    with held as materialized ($held), $locked_limits
    select held.state, held.cancel_requested, null as pool, (select count(*) from dag) as slots from held
    union all
    select null, null, pool, slots from pool
    """,
    held=_HELD,
    locked_limits=LOCKED_LIMITS,
)


class UnderLimits(NamedTuple):
    """What a fence that also locked limits found."""

    control: JobControl
    #: Of each pool that exists: -1 is unlimited, 0 is closed.
    pool_sizes: dict[str, int]


def fence_and_lock_limits(tx: Tx, job_id: int, epoch: int, dag_ids: Sequence[str], pools: Sequence[str]) -> UnderLimits:
    """Do what `fence` and `task_instances.lock_limits` do, in one statement; raises `LeaseLost` as `fence` does."""
    wanted = sorted(set(dag_ids))
    parameters = {"job_id": job_id, "epoch": epoch, "dag_ids": wanted, "pools": sorted(set(pools))}
    found = fetch(tx.execute(_FENCE_AND_LOCK, parameters))
    if not found:
        raise _taken_over(job_id)
    (state, cancel_requested, _, dags), *sizes = found
    control = JobControl(JobState(state), cancel_requested)
    if dags < len(wanted):
        return UnderLimits(control, lock_limits(tx, dag_ids, pools))
    return UnderLimits(control, {pool: slots for _, _, pool, slots in sizes})


_RELEASE = statement(
    """
    update job set lease_holder = null, latest_heartbeat = clock_timestamp()
    where id = :job_id and lease_epoch = :epoch and lease_holder is not null
    returning id
    """
)


def release_lease_if_held(tx: Tx, job_id: int, epoch: int) -> bool:
    """Give the lease back, so that anybody may take it at once; False: it was not held any more."""
    return tx.execute(_RELEASE, {"job_id": job_id, "epoch": epoch}).one_or_none() is not None
