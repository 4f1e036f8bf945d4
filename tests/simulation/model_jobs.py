"""The model's answers to statements about jobs, leases and dates."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from model_database import Row, Tables, answers, record

from backfill.states import ACTIVE_JOB, FINISHED_JOB
from backfill.store import dags, database, dates, job_rows, jobs, leases
from backfill.store.dates import PlannedDate
from backfill.store.jobs import JobRow


@answers(database._NOW)
def now_(t: Tables, now: datetime) -> list[Any]:
    return [(now,)]


@answers(dags._TOUCH_DAG)
def touch_dag(t: Tables, now: datetime, *, dag_id: str, fileloc: str | None) -> list[Any]:
    t.dag[dag_id] = Row(dag_id=dag_id, fileloc=fileloc)
    return []


@answers(job_rows._INSERT)
def insert_job(t: Tables, now: datetime, **values: Any) -> list[Any]:
    job_id = next(t.job_ids)
    empty = dict.fromkeys(("lease_holder", "latest_heartbeat", "start_date", "end_date", "error"))
    t.job[job_id] = Row(id=job_id, cancel_requested=False, lease_epoch=0, created_at=now, **empty, **values)
    return [(job_id,)]


# -- leases -------------------------------------------------------------------------------------------------------------


def add_idle_time(t: Tables, now: datetime, job: Row) -> None:
    for run in list(t.run.values()):
        if run.job_id == job.id and run.state == "running":
            since = max(moment for moment in (job.latest_heartbeat, run.start_date) if moment is not None)
            t.change("run", run.id, idle_seconds=run.idle_seconds + (now - since).total_seconds())


@answers(leases._CLAIM)
def claim_lease(
    t: Tables, now: datetime, *, job_id: int, holder: str, timeout: timedelta, from_states: Sequence[str]
) -> list[Any]:
    job = t.job.get(job_id)
    if job is None or job.state not in from_states:
        return []
    silent = job.latest_heartbeat is None or job.latest_heartbeat < now - timeout
    if job.lease_holder is not None and not silent:
        return []
    if job.latest_heartbeat is not None:
        add_idle_time(t, now, job)
    t.change("job", job_id, lease_holder=holder, lease_epoch=job.lease_epoch + 1, latest_heartbeat=now)
    return [record(id=job_id, lease_epoch=job.lease_epoch + 1)]


def held(t: Tables, job_id: int, epoch: int) -> Row | None:
    job = t.job.get(job_id)
    return job if job is not None and job.lease_epoch == epoch and job.lease_holder is not None else None


@answers(leases._RENEW)
def renew_lease(t: Tables, now: datetime, *, job_id: int, epoch: int) -> list[Any]:
    job = held(t, job_id, epoch)
    if job is None:
        return []
    if job.state == "paused":
        add_idle_time(t, now, job)
    t.change("job", job_id, latest_heartbeat=now)
    return [record(state=job.state, cancel_requested=job.cancel_requested, latest_heartbeat=now)]


@answers(leases._FENCE)
def fence(t: Tables, now: datetime, *, job_id: int, epoch: int) -> list[Any]:
    job = held(t, job_id, epoch)
    return [] if job is None else [record(state=job.state, cancel_requested=job.cancel_requested)]


@answers(leases._RELEASE)
def release_lease(t: Tables, now: datetime, *, job_id: int, epoch: int) -> list[Any]:
    if held(t, job_id, epoch) is None:
        return []
    t.change("job", job_id, lease_holder=None, latest_heartbeat=now)
    return [record(id=job_id)]


# -- jobs ---------------------------------------------------------------------------------------------------------------


def release_dates(t: Tables, job_id: int, state: str) -> None:
    for key, date in list(t.date.items()):
        if date.job_id == job_id and state in FINISHED_JOB:
            t.change("date", key, active=False)


@answers(jobs._SET_STATE)
def set_job_state(
    t: Tables,
    now: datetime,
    *,
    job_id: int,
    from_states: Sequence[str],
    to_state: str,
    epoch: int | None,
    error: str | None,
) -> list[Any]:
    job = t.job.get(job_id)
    if job is None or job.state not in from_states or not (epoch is None or held(t, job_id, epoch)):
        return []
    runs = to_state == "running"
    t.change(
        "job",
        job_id,
        state=str(to_state),
        start_date=job.start_date or now if runs else job.start_date,
        end_date=now if to_state in FINISHED_JOB else None,
        error=None if runs else error or job.error,
    )
    release_dates(t, job_id, to_state)
    return [record(id=job_id)]


@answers(jobs._PAUSE)
def pause(t: Tables, now: datetime, *, job_id: int) -> list[Any]:
    job = t.job.get(job_id)
    if job is None or job.state not in {"queued", "running"} or job.cancel_requested:
        return []
    t.change("job", job_id, state="paused")
    return [record(id=job_id)]


@answers(jobs._REQUEST_CANCEL)
def request_cancel(t: Tables, now: datetime, *, job_id: int) -> list[Any]:
    job = t.job.get(job_id)
    if job is None or job.state not in ACTIVE_JOB:
        return []
    at_once = job.state == "queued" and job.lease_holder is None
    state = "cancelled" if at_once else job.state
    t.change("job", job_id, cancel_requested=True, state=state, end_date=now if at_once else None)
    release_dates(t, job_id, state)
    return [record(state=state, cancel_requested=True)]


@answers(jobs._SELECT)
def select_job(t: Tables, now: datetime, *, job_id: int) -> list[Any]:
    job = t.job.get(job_id)
    if job is None:
        return []
    age = now - job.latest_heartbeat if job.lease_holder is not None else None
    return [JobRow(*(age if name == "heartbeat_age" else getattr(job, name) for name in JobRow._fields))]


# -- dates --------------------------------------------------------------------------------------------------------------


@answers(dates._OWN)
def own_dates(t: Tables, now: datetime, *, job_id: int, dag_id: str, **given: Sequence[Any]) -> list[Any]:
    planned = zip(*(given[name] for name in _OWNED), strict=True)
    owned = []
    for ordinal, date, start, end, action, run_id in planned:
        if any(other.dag_id == dag_id and other.logical_date == date and other.active for other in t.date.values()):
            continue
        t.date[job_id, dag_id, ordinal] = Row(
            job_id=job_id,
            dag_id=dag_id,
            ordinal=ordinal,
            logical_date=date,
            data_interval_start=start,
            data_interval_end=end,
            action=action,
            dag_run_id=run_id,
            progress="pending",
            active=True,
        )
        owned.append(record(logical_date=date))
    return owned


_OWNED = ("ordinals", "logical_dates", "starts", "ends", "actions", "dag_run_ids")


def run_at(t: Tables, dag_id: str, logical_date: datetime) -> Row | None:
    return next((run for run in t.run.values() if run.dag_id == dag_id and run.logical_date == logical_date), None)


@answers(dates._SELECT_PENDING)
def pending_dates(t: Tables, now: datetime, *, job_id: int, dag_id: str | None, limit: int | None) -> list[Any]:
    of_dag = dag_id or t.job[job_id].dag_id
    pending = sorted(
        (d for d in t.date.values() if d.job_id == job_id and d.dag_id == of_dag and d.progress == "pending"),
        key=lambda date: date.ordinal,
    )
    return [_pending(date, run_at(t, date.dag_id, date.logical_date)) for date in pending[:limit]]


def _pending(date: Row, run: Row | None) -> PlannedDate:
    return PlannedDate(
        ordinal=date.ordinal,
        logical_date=date.logical_date,
        data_interval_start=date.data_interval_start,
        data_interval_end=date.data_interval_end,
        action=date.action,
        dag_run_id=date.dag_run_id if run is None else run.id,
        counts_as_running=run is not None and run.state == "running" and not run.external_trigger,
    )
