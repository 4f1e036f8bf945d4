"""The model's answers to what workers write, and to what is said of a job."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from model_database import Row, Tables, answers, record
from model_task_instances import close_attempt, current, elapsed, forget_xcoms

from backfill.store import attempts, claims, report
from backfill.store.claims import Claim

EPOCH = datetime.fromtimestamp(0, UTC)


@answers(claims._CLAIM)
def claim(
    t: Tables,
    now: datetime,
    *,
    ids: Sequence[int],
    attempts: Sequence[str],
    tries: Sequence[int],
    hostname: str,
    pid: int,
) -> list[Any]:
    claimed: list[Any] = []
    told: set[int | None] = set()
    for ti_id, attempt_id, try_number in zip(ids, attempts, tries, strict=True):
        ti = current(t, ti_id, attempt_id, {"queued"})
        if ti is not None and ti.try_number == try_number:
            claimed.append(_claim_one(t, now, ti, hostname, pid, told))
    return claimed


def _claim_one(t: Tables, now: datetime, ti: Row, hostname: str, pid: int, told: set[int | None]) -> tuple[Any, ...]:
    """Change the row and return the answer's; of each job the first row has what belongs to it, as `told` remembers."""
    attempt_id = ti.external_executor_id
    ti = t.change(
        "ti",
        ti.id,
        state="running",
        hostname=hostname,
        pid=pid,
        start_date=now,
        heartbeat_at=now,
        first_start_date=ti.first_start_date or now,
        end_date=None,
        duration=None,
        next_attempt_at=None,
        skips=None,
    )
    forget_xcoms(t, ti.id)
    if attempt_id not in t.attempt:
        t.attempt[attempt_id] = Row(
            attempt_id=attempt_id,
            task_instance_id=ti.id,
            try_number=ti.try_number,
            job_id=ti.queued_by_job_id,
            start_date=now,
            end_date=None,
            outcome=None,
            hostname=hostname,
            pid=pid,
            error=None,
        )
    run, job = t.run[ti.dag_run_id], t.job.get(ti.queued_by_job_id)
    job_id = job.id if job else None
    of_job = None if job_id in told else [getattr(job, name, None) for name in _OF_JOB]
    told.add(job_id)
    names = Claim._fields[2 : Claim._fields.index("logical_date")]
    own = (ti.id, attempt_id, *(getattr(ti, name) for name in names))
    return (*own, *(getattr(run, name) for name in _OF_RUN), run.start_date, job_id, of_job)


_OF_JOB = ("params", "dag_pickle_hash", "dag_source")
_OF_RUN = ("logical_date", "data_interval_start", "data_interval_end", "run_type", "external_trigger", "conf")


@answers(claims._UNCLAIM)
def unclaim(t: Tables, now: datetime, *, attempt_ids: Collection[str]) -> list[Any]:
    unclaimed = []
    for ti in _mine(t, attempt_ids):
        t.change(
            "ti",
            ti.id,
            state="none",
            external_executor_id=None,
            try_open=True,
            heartbeat_at=None,
            hostname=None,
            pid=None,
            start_date=None,
            first_start_date=None if ti.first_start_date == ti.start_date else ti.first_start_date,
        )
        del t.attempt[ti.external_executor_id]
        unclaimed.append((ti.external_executor_id,))
    return unclaimed


@answers(attempts._FINISH)
def finish(
    t: Tables,
    now: datetime,
    *,
    xcom_attempts: Sequence[str],
    xcom_keys: Sequence[str],
    xcom_values: Sequence[str],
    **given: Sequence[Any],
) -> list[Any]:
    xcoms = list(zip(xcom_attempts, xcom_keys, xcom_values, strict=True))
    finished = []
    for ti_id, attempt_id, state, error, delay, date, skips, began, ago in zip(
        *(given[n] for n in _FINISH), strict=True
    ):
        ti = current(t, ti_id, attempt_id, {"running"})
        if ti is None:
            continue
        ti = _begun(t, ti, now, began)
        end = now - ago if ti.start_date is None else max(now - ago, ti.start_date)
        t.change(
            "ti",
            ti_id,
            state=state,
            try_open=state == "up_for_reschedule",
            infrastructure_failures=0,
            end_date=end,
            duration=elapsed(ti.start_date, end),
            next_attempt_at=date or (None if delay is None else end + delay),
            error=error or ti.error,
            skips=None if skips is None else json.loads(skips),
        )
        close_attempt(t, attempt_id, end, state, error)
        for _, key, value in (each for each in xcoms if each[0] == attempt_id):
            t.xcom[ti_id, key] = Row(task_instance_id=ti_id, key=key, value=json.loads(value))
        finished.append((attempt_id,))
    return finished


_FINISH = (
    "ids",
    "attempts",
    "states",
    "errors",
    "retry_delays",
    "reschedule_dates",
    "skips",
    "started_ago",
    "ended_ago",
)


def _begun(t: Tables, ti: Row, now: datetime, ago: timedelta | None) -> Row:
    """Set the start of an attempt right that began after its claim, and return its row."""
    start = max((moment for moment in (ago and now - ago, ti.start_date) if moment is not None), default=None)
    if start is None:
        return ti
    unchanged = ti.start_date is None or ti.first_start_date != ti.start_date
    first = ti.first_start_date if unchanged else start
    if ti.external_executor_id in t.attempt:
        t.change("attempt", ti.external_executor_id, start_date=start)
    return t.change("ti", ti.id, start_date=start, first_start_date=first)


def _mine(t: Tables, attempt_ids: Collection[str]) -> list[Row]:
    claimed = (t.attempt[each] for each in attempt_ids if each in t.attempt)
    found = (current(t, attempt.task_instance_id, attempt.attempt_id, {"running"}) for attempt in claimed)
    return [ti for ti in found if ti is not None]


@answers(attempts._RENEW_HEARTBEATS)
def renew_heartbeats(
    t: Tables, now: datetime, *, attempt_ids: Sequence[str], started_ago: Sequence[timedelta | None]
) -> list[Any]:
    begun = dict(zip(attempt_ids, started_ago, strict=True))
    for ti in _mine(t, attempt_ids):
        _begun(t, ti, now, begun[ti.external_executor_id])
    return [(t.change("ti", ti.id, heartbeat_at=now).external_executor_id,) for ti in _mine(t, attempt_ids)]


@answers(attempts._GIVE_UP_HEARTBEATS)
def give_up_heartbeats(t: Tables, now: datetime, *, attempt_ids: Collection[str]) -> list[Any]:
    return [(t.change("ti", ti.id, heartbeat_at=EPOCH).external_executor_id,) for ti in _mine(t, attempt_ids)]


@answers(attempts._SELECT_CANCELLED)
def select_cancelled(t: Tables, now: datetime, *, attempt_ids: Collection[str]) -> list[Any]:
    found = []
    for attempt in (t.attempt[each] for each in attempt_ids if each in t.attempt):
        ti = t.ti[attempt.task_instance_id]
        job = t.job.get(ti.queued_by_job_id)
        if ti.external_executor_id == attempt.attempt_id and job is not None and job.cancel_requested:
            found.append((attempt.attempt_id,))
    return found


@answers(attempts._HAND_BACK)
def hand_back(t: Tables, now: datetime, *, attempt_ids: Collection[str]) -> list[Any]:
    handed = []
    for ti in _mine(t, attempt_ids):
        t.change(
            "ti",
            ti.id,
            state="none",
            external_executor_id=None,
            try_open=True,
            heartbeat_at=None,
            end_date=now,
            duration=elapsed(ti.start_date, now),
        )
        t.change("attempt", ti.external_executor_id, end_date=now, outcome="none")
        handed.append((ti.external_executor_id,))
    return handed


# -- what is said of a job ----------------------------------------------------------------------------------------------


def _dates(t: Tables, job_id: int, *, of_dag: bool = True) -> list[Row]:
    dag_id = t.job[job_id].dag_id
    return [date for date in t.date.values() if date.job_id == job_id and (date.dag_id == dag_id or not of_dag)]


def _state(t: Tables, date: Row) -> str | None:
    return None if date.dag_run_id is None else t.run[date.dag_run_id].state


def _is_admitted(date: Row) -> bool:
    return date.progress != "pending" or date.action == "done"


def _tis(t: Tables, job_id: int, dates: Collection[Row], task_ids: Collection[str] | None) -> list[Row]:
    found = t.tis_of([date.dag_run_id for date in dates])
    return [ti for ti in found if task_ids is None or ti.dag_id != t.job[job_id].dag_id or ti.task_id in task_ids]


def _counted(runs: Collection[str | None], tis: Collection[Row]) -> list[Any]:
    counted = [("run", word, number) for word, number in Counter(runs).items()]
    return counted + [("task instance", word, number) for word, number in Counter(ti.state for ti in tis).items()]


@answers(report._JOB_COUNTS)
def job_counts(t: Tables, now: datetime, *, job_id: int, task_ids: Collection[str] | None) -> list[Any]:
    runs = [
        t.run[date.dag_run_id].state if date.dag_run_id is not None and _is_admitted(date) else "pending"
        for date in _dates(t, job_id)
    ]
    admitted = [date for date in _dates(t, job_id, of_dag=False) if _is_admitted(date)]
    return _counted(runs, _tis(t, job_id, admitted, task_ids))


@answers(report._DEPARTED)
def departed(t: Tables, now: datetime, *, job_id: int, task_ids: Collection[str] | None) -> list[Any]:
    runs = [_state(t, date) for date in _dates(t, job_id) if date.progress == "finished"]
    gone = {date.ordinal for date in _dates(t, job_id) if date.progress == "finished"}
    finished = [
        date for date in _dates(t, job_id, of_dag=False) if date.progress == "finished" and date.ordinal in gone
    ]
    return _counted(runs, _tis(t, job_id, finished, task_ids))


@answers(report._SELECT_ERRORS)
def select_errors(
    t: Tables,
    now: datetime,
    *,
    job_id: int,
    task_ids: Collection[str] | None,
    order_dags: Sequence[str | None],
    order: Sequence[str],
) -> list[Any]:
    own = t.job[job_id].dag_id
    places = {(dag_id or own, task_id): n for n, (dag_id, task_id) in enumerate(zip(order_dags, order, strict=True))}
    dates = [date for date in _dates(t, job_id, of_dag=False) if _is_admitted(date)]
    bad = [ti for ti in _tis(t, job_id, dates, task_ids) if ti.state in {"failed", "upstream_failed"}]

    def place(ti: Row) -> tuple[Any, ...]:
        known = places.get((ti.dag_id, ti.task_id), len(order))
        return t.run[ti.dag_run_id].logical_date, known, ti.dag_id, ti.task_id, ti.map_index

    return [
        (
            ti.id,
            ti.dag_id,
            ti.task_id,
            ti.run_id,
            ti.map_index,
            t.run[ti.dag_run_id].logical_date,
            ti.try_number,
            ti.state,
            ti.error,
            ti.hostname,
        )
        for ti in sorted(bad, key=place)
    ]


@answers(report._SELECT_TIMED_OUT)
def select_timed_out(t: Tables, now: datetime, *, job_id: int, beginning: str) -> list[Any]:
    runs = {date.dag_run_id for date in _dates(t, job_id, of_dag=False) if _is_admitted(date)} - {None}
    errors: dict[int, list[str]] = {}
    for ti in t.ti.values():
        is_late = ti.dag_run_id in runs and ti.state == "skipped" and (ti.error or "").startswith(beginning)
        if is_late and t.run[ti.dag_run_id].state == "failed":
            errors.setdefault(ti.dag_run_id, []).append(ti.error)
    found = sorted((t.run[run_id].logical_date, run_id) for run_id in errors)
    return [(t.run[run_id].dag_id, t.run[run_id].run_id, date, min(errors[run_id])) for date, run_id in found]


@answers(report._FAILURES)
def failures(t: Tables, now: datetime, *, job_id: int, task_ids: Collection[str] | None) -> list[Any]:
    before = own = False
    for date in _dates(t, job_id, of_dag=False):
        if date.dag_run_id is None or not _is_admitted(date):
            continue
        bad = [ti for ti in _tis(t, job_id, [date], task_ids) if ti.state in {"failed", "upstream_failed"}]
        if bad or t.run[date.dag_run_id].state == "failed":
            before, own = before or date.action == "done", own or date.action != "done"
    return [record(before=before, own=own)]


@answers(report._SELECT_ERROR_TEXTS)
def select_error_texts(t: Tables, now: datetime, *, ti_ids: Collection[int]) -> list[Any]:
    return [record(id=ti_id, error=t.ti[ti_id].error) for ti_id in ti_ids if ti_id in t.ti]


@answers(report._SELECT_RUNNING)
def select_running(t: Tables, now: datetime, *, job_id: int, limit: int | None) -> list[Any]:
    runs = [run.id for run in t.run.values() if run.job_id == job_id and run.state == "running"]
    running = [
        ti
        for ti in t.tis_of(runs)
        if ti.state == "running"
        and ti.start_date is not None
        and not (ti.operator == "SubDagOperator" and ti.external_executor_id is None)
    ]
    return [
        (
            ti.id,
            ti.dag_id,
            ti.task_id,
            ti.run_id,
            ti.map_index,
            t.run[ti.dag_run_id].logical_date,
            ti.try_number,
            ti.start_date,
            now - ti.start_date,
            ti.hostname,
        )
        for ti in sorted(running, key=lambda ti: (ti.start_date, ti.id))[:limit]
    ]


@answers(report._FINISHED_SINCE)
def finished_since(t: Tables, now: datetime, *, job_id: int, window: timedelta) -> list[Any]:
    job = t.job[job_id]
    if job.start_date is None:
        return []
    until = job.end_date or now
    since = max(job.start_date, until - window)
    dates = [
        date
        for date in _dates(t, job_id, of_dag=False)
        if date.progress != "pending" and date.action != "done" and date.dag_run_id is not None
        if (ended := t.run[date.dag_run_id].end_date) is None or ended >= since
    ]
    finished = [
        ti
        for ti in _tis(t, job_id, dates, None)
        if ti.end_date is not None and since <= ti.end_date <= until
        if ti.state in {"success", "skipped", "failed", "upstream_failed"}
    ]
    return [(len(finished), until - since)]
