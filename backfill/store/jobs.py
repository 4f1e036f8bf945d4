"""Rows of `job`: state changes with a guard, and what is read of them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from backfill.states import JobState
from backfill.store.database import Tx
from backfill.store.leases import JobControl
from backfill.store.statements import read, statement


class JobRow(NamedTuple):
    """One job as it is in the database."""

    id: int
    job_type: str
    dag_id: str
    #: A `JobState` word.
    state: str
    params: dict[str, Any]
    dag_pickle_hash: str | None
    dag_source: dict[str, Any]
    total_runs: int
    submitted: bool
    cancel_requested: bool
    lease_holder: str | None
    lease_epoch: int
    latest_heartbeat: datetime | None
    created_at: datetime
    start_date: datetime | None
    end_date: datetime | None
    hostname: str | None
    unixname: str | None
    error: str | None
    #: Age of the holder's last heartbeat by the database's clock; None: nobody holds the lease.
    heartbeat_age: timedelta | None


_COLUMNS = ", ".join(
    "case when lease_holder is not null then clock_timestamp() - latest_heartbeat end as heartbeat_age"
    if name == "heartbeat_age"
    else name
    for name in JobRow._fields
)

# A job that is not active any more owns no date (S2.6), in whichever way it ended.
_RELEASED = """
    released as (
        update job_run_date set active = false
        from moved
        where job_run_date.job_id = moved.id and job_run_date.active and moved.state in $finished_job
    )
"""

_SET_STATE = statement(
    """
    with moved as (
        update job
        set state = :to_state,
            start_date = case when :to_state = 'running' then coalesce(start_date, statement_timestamp()) else start_date end,
            end_date = case when :to_state in $finished_job then statement_timestamp() end,
            error = case when :to_state <> 'running' then coalesce(:error, error) end
        where id = :job_id and state = any(cast(:from_states as text[]))
          and (cast(:epoch as bigint) is null or (lease_epoch = :epoch and lease_holder is not null))
        returning id, state
    ),
    $released
    select id from moved
    """,
    released=_RELEASED,
)


def set_job_state_if(
    tx: Tx,
    job_id: int,
    from_states: Collection[JobState],
    to_state: JobState,
    *,
    epoch: int | None = None,
    error: str | None = None,
) -> bool:
    """Move the job to `to_state` if it is in one of `from_states` and, where given, the lease is held under `epoch`.

    The first move to `running` sets start_date, a final state sets end_date and releases the job's dates. `error` is kept until
    the job is `running` again.
    """
    parameters = {
        "job_id": job_id,
        "from_states": list(from_states),
        "to_state": to_state,
        "epoch": epoch,
        "error": error,
    }
    return tx.execute(_SET_STATE, parameters).one_or_none() is not None


_PAUSE = statement(
    """
    update job set state = 'paused'
    where id = :job_id and state in ('queued', 'running') and not cancel_requested
    returning id
    """
)


def pause_if_going_on(tx: Tx, job_id: int) -> bool:
    """Pause a job that is `queued` or `running` and not being cancelled (S11.1); return whether it was."""
    return tx.execute(_PAUSE, {"job_id": job_id}).one_or_none() is not None


_REQUEST_CANCEL = statement(
    """
    with moved as (
        update job
        set cancel_requested = true,
            state = case when state = 'queued' and lease_holder is null then 'cancelled' else state end,
            end_date = case when state = 'queued' and lease_holder is null then statement_timestamp() end
        where id = :job_id and state in $active_job
        returning id, state, cancel_requested
    ),
    $released
    select state, cancel_requested from moved
    """,
    released=_RELEASED,
)


def request_cancel_if_active(tx: Tx, job_id: int) -> JobControl | None:
    """Ask the holder to cancel the job; one that is `queued`, and that nobody is about to drive, is `cancelled` at once (S11.5).

    Returns what the job is now; None: it is not active.
    """
    row = tx.execute(_REQUEST_CANCEL, {"job_id": job_id}).one_or_none()
    return None if row is None else JobControl(JobState(row.state), row.cancel_requested)


_SET_TOTAL_RUNS = statement("update job set total_runs = :total_runs where id = :job_id")


def set_total_runs(tx: Tx, job_id: int, total_runs: int) -> None:
    """Write how many dates the job has taken on."""
    tx.execute(_SET_TOTAL_RUNS, {"job_id": job_id, "total_runs": total_runs})


_SELECT = statement("select $columns from job where id = :job_id", columns=_COLUMNS)


def select_job(tx: Tx, job_id: int) -> JobRow | None:
    """Return one job; None: there is none of that id."""
    row = tx.execute(_SELECT, {"job_id": job_id}).one_or_none()
    return None if row is None else JobRow(*row)


_LIST = statement("select $columns from job order by id desc limit :limit", columns=_COLUMNS)


def list_jobs(tx: Tx, limit: int) -> list[JobRow]:
    """Return the latest `limit` jobs, the latest first."""
    return read(JobRow, tx.execute(_LIST, {"limit": limit}))
