"""The model's answers to statements about task instances as the coordinator writes them: limits, dispatch, reconciliation, clearing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

from model_database import Row, Tables, answers, record
from model_jobs import held
from model_runs import facts, insert_ti

from backfill.states import ACTIVE_JOB, FINISHED, IDLE, IN_FLIGHT
from backfill.store import clearing, leases, mapping, recovery, task_instances
from backfill.store.task_instances import OccupancyRow


def seconds(since: datetime, until: datetime) -> float:
    return (until - since).total_seconds()


def elapsed(since: datetime | None, until: datetime) -> float | None:
    return None if since is None else seconds(since, until)


def close_attempt(t: Tables, attempt_id: str | None, now: datetime, outcome: str, error: str | None = None) -> None:
    """Enter the end of an attempt into the history, if it was ever claimed."""
    if attempt_id in t.attempt:
        t.change("attempt", attempt_id, end_date=now, outcome=outcome, error=error)


@answers(task_instances._SELECT)
def select(t: Tables, now: datetime, *, ti_ids: Collection[int]) -> list[Any]:
    return [facts(t.ti[ti_id]) for ti_id in sorted(set(ti_ids)) if ti_id in t.ti]


@answers(task_instances._SELECT_REPORTED)
def select_reported(t: Tables, now: datetime, *, ti_ids: Collection[int]) -> list[Any]:
    found = [t.ti[ti_id] for ti_id in sorted(set(ti_ids)) if ti_id in t.ti]
    return [
        (*facts(ti), seconds(ti.queued_at, ti.start_date) if ti.queued_at and ti.start_date else None) for ti in found
    ]


@answers(task_instances._SELECT_OF_RUNS)
def select_of_runs(t: Tables, now: datetime, *, dag_run_ids: Sequence[int]) -> list[Any]:
    return [facts(ti) for ti in sorted(t.tis_of(dag_run_ids), key=lambda ti: (ti.dag_run_id, ti.id))]


# -- limits -------------------------------------------------------------------------------------------------------------


@answers(task_instances._LOCK)
def lock(t: Tables, now: datetime, *, dag_ids: Sequence[str], pools: Sequence[str]) -> list[Any]:
    dags = sum(dag_id in t.dag for dag_id in dag_ids)
    sizes = [(name, t.pool[name].slots) for name in pools if name in t.pool]
    return [(None, dags), *(sizes if dags == len(dag_ids) else [])]


@answers(leases._FENCE_AND_LOCK)
def fence_and_lock(
    t: Tables, now: datetime, *, job_id: int, epoch: int, dag_ids: Sequence[str], pools: Sequence[str]
) -> list[Any]:
    job = held(t, job_id, epoch)
    if job is None:
        return []
    (_, dags), *sizes = lock(t, now, dag_ids=dag_ids, pools=pools)
    return [(job.state, job.cancel_requested, None, dags), *((None, None, *size) for size in sizes)]


def _stands_for_a_run(ti: Row) -> bool:
    return ti.operator == "SubDagOperator" and ti.external_executor_id is None


@answers(task_instances._SELECT_OCCUPANCY)
def select_occupancy(
    t: Tables, now: datetime, *, dag_ids: Sequence[str], pools: Sequence[str], apart: Sequence[str] | None
) -> list[Any]:
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for ti in t.ti.values():
        if ti.state in IN_FLIGHT and (ti.dag_id in dag_ids or ti.pool in pools) and not _stands_for_a_run(ti):
            place = (ti.task_id, ti.dag_run_id) if apart is None or ti.task_id in apart else ("", 0)
            groups[ti.pool, ti.dag_id, *place, ti.queued_by_job_id].append(ti)
    return [
        (pool, dag_id, task_id, run_id, len(found), sum(ti.pool_slots for ti in found), job_id)
        for (pool, dag_id, task_id, run_id, job_id), found in groups.items()
    ]


assert OccupancyRow.__match_args__[4:] == ("count", "slots", "job_id")


# -- dispatch and decisions ---------------------------------------------------------------------------------------------


@answers(task_instances._QUEUE)
def queue(
    t: Tables,
    now: datetime,
    *,
    job_id: int,
    ti_ids: Sequence[int],
    attempt_ids: Sequence[str],
    pools: Sequence[str],
    executors: Sequence[str],
    waiting: Sequence[int],
) -> list[Any]:
    scheduled = schedule(t, now, waiting=waiting)
    if t.job[job_id].state != "running":
        return scheduled
    queued = []
    for ti_id, attempt_id, pool, executor in zip(ti_ids, attempt_ids, pools, executors, strict=True):
        ti = t.ti[ti_id]
        run = t.run[ti.dag_run_id]
        if run.job_id != job_id or run.state != "running" or ti.state not in IDLE:
            continue
        changed = t.change(
            "ti",
            ti_id,
            state="queued",
            try_number=ti.try_number + (not ti.try_open),
            try_open=True,
            external_executor_id=attempt_id,
            pool=pool,
            executor=executor,
            queued_by_job_id=job_id,
            queued_at=now,
            next_attempt_at=None,
            heartbeat_at=None,
            hostname=None,
            pid=None,
        )
        queued.append(facts(changed))
    return queued + scheduled


def current(t: Tables, ti_id: int, attempt_id: str | None, states: Collection[str]) -> Row | None:
    """Return the task instance if it is in one of `states` under this attempt id."""
    ti = t.ti.get(ti_id)
    return ti if ti is not None and ti.state in states and ti.external_executor_id == attempt_id else None


@answers(task_instances._TAKE_BACK)
def take_back(t: Tables, now: datetime, *, ti_ids: Sequence[int], attempt_ids: Sequence[str | None]) -> list[Any]:
    taken = []
    for ti_id, attempt_id in zip(ti_ids, attempt_ids, strict=True):
        if current(t, ti_id, attempt_id, {"queued"}):
            t.change("ti", ti_id, state="none", external_executor_id=None)
            taken.append((ti_id,))
    return taken


@answers(task_instances._SETTLE)
def settle(
    t: Tables, now: datetime, *, ti_ids: Sequence[int], states: Sequence[str], errors: Sequence[str | None]
) -> list[Any]:
    settled = []
    for ti_id, state, error in zip(ti_ids, states, errors, strict=True):
        ti = t.ti[ti_id]
        if ti.state not in IDLE:
            continue
        t.change(
            "ti",
            ti_id,
            state=str(state),
            try_number=ti.try_number + (state == "success" and not ti.try_open),
            try_open=False,
            external_executor_id=None,
            next_attempt_at=None,
            skips=None,
            start_date=now,
            end_date=now,
            duration=0.0,
            hostname=None,
            pid=None,
            error=error or ti.error,
        )
        settled.append((ti_id,))
        if state != "success":
            forget_xcoms(t, ti_id)
    return settled


def forget_xcoms(t: Tables, ti_id: int) -> None:
    for key in [key for key in t.xcom if key[0] == ti_id]:
        del t.xcom[key]


@answers(task_instances._SCHEDULE)
def schedule(t: Tables, now: datetime, *, waiting: Sequence[int]) -> list[Any]:
    return [
        facts(t.ti[ti_id]) for (ti_id,) in _move(t, waiting, {"none", "up_for_retry", "up_for_reschedule"}, "scheduled")
    ]


@answers(task_instances._UNSCHEDULE)
def unschedule(t: Tables, now: datetime, *, ti_ids: Sequence[int]) -> list[Any]:
    return _move(t, ti_ids, {"scheduled"}, "none")


def _move(t: Tables, ti_ids: Sequence[int], sources: set[str], target: str) -> list[Any]:
    moved = [ti_id for ti_id in ti_ids if ti_id in t.ti and t.ti[ti_id].state in sources]
    for ti_id in moved:
        t.change("ti", ti_id, state=target)
    return [(ti_id,) for ti_id in moved]


# -- reconciliation -----------------------------------------------------------------------------------------------------


def _in_flight(t: Tables, job_id: int, states: Collection[str], silent_since: datetime | None = None) -> list[Any]:
    found = []
    for ti in t.tis_of([run.id for run in t.run.values() if run.job_id == job_id and run.state == "running"]):
        since = (ti.heartbeat_at if ti.state == "running" else ti.queued_at) or t.run[ti.dag_run_id].start_date
        silent = silent_since is None or since is None or since < silent_since
        if ti.state in states and silent and not _stands_for_a_run(ti):
            found.append((*facts(ti), ti.executor, ti.queue, ti.hostname, since))
    return found


@answers(recovery._SELECT_IN_FLIGHT)
def select_in_flight(t: Tables, now: datetime, *, job_id: int) -> list[Any]:
    return _in_flight(t, job_id, IN_FLIGHT)


@answers(recovery._SELECT_ZOMBIES)
def select_zombies(t: Tables, now: datetime, *, job_id: int, timeout: timedelta) -> list[Any]:
    return _in_flight(t, job_id, {"running"}, now - timeout)


@answers(recovery._SWEEP)
def sweep(
    t: Tables,
    now: datetime,
    *,
    job_id: int,
    dag_run_ids: Sequence[int],
    heartbeat_timeout: timedelta,
    queued_timeout: timedelta,
) -> list[Any]:
    found = []
    for ti in sorted(t.tis_of(dag_run_ids), key=lambda ti: (ti.dag_run_id, ti.id)):
        run, runs = t.run[ti.dag_run_id], ti.state == "running"
        since = (ti.heartbeat_at if runs else ti.queued_at) or run.start_date
        watched = ti.state in IN_FLIGHT and run.state == "running" and run.job_id == job_id
        late = since is None or since < now - (heartbeat_timeout if runs else queued_timeout)
        silent = watched and late and not _stands_for_a_run(ti)
        found.append((*facts(ti), ti.executor, ti.queue, ti.hostname, since, silent))
    return found


@answers(recovery._LOCK_UNCLAIMED)
def lock_unclaimed(t: Tables, now: datetime, *, ti_ids: Sequence[int], attempt_ids: Sequence[str | None]) -> list[Any]:
    given = zip(ti_ids, attempt_ids, strict=True)
    return [
        (ti_id,) for ti_id, attempt_id in sorted(given, key=itemgetter(0)) if current(t, ti_id, attempt_id, {"queued"})
    ]


@answers(recovery._SELECT_HOSTS)
def select_hosts(t: Tables, now: datetime, *, ti_ids: Collection[int]) -> list[Any]:
    known = [t.ti[ti_id] for ti_id in ti_ids if ti_id in t.ti]
    return [record(id=ti.id, hostname=ti.hostname) for ti in known if ti.hostname is not None]


@answers(recovery._SELECT_HOLDERS)
def select_holders(t: Tables, now: datetime, *, job_id: int, ti_ids: Collection[int]) -> list[Any]:
    runs = [run.id for run in t.run.values() if run.job_id == job_id and run.state == "running"]
    held = Counter((ti.hostname, ti.pid) for ti in t.tis_of(runs) if _is_held(ti))
    return [
        record(id=ti.id, hostname=ti.hostname, pid=ti.pid, held=held[ti.hostname, ti.pid])
        for ti in t.tis_of(runs)
        if ti.id in ti_ids and _is_held(ti)
    ]


def _is_held(ti: Row) -> bool:
    gave_up = ti.heartbeat_at is None or ti.heartbeat_at.timestamp() <= 0
    return ti.state == "running" and ti.pid is not None and not gave_up


@answers(recovery._FAIL)
def fail(
    t: Tables,
    now: datetime,
    *,
    ti_ids: Sequence[int],
    attempt_ids: Sequence[str | None],
    errors: Sequence[str],
    retry_delays: Sequence[timedelta | None],
) -> list[Any]:
    failed = []
    for ti_id, attempt_id, error, delay in zip(ti_ids, attempt_ids, errors, retry_delays, strict=True):
        ti = current(t, ti_id, attempt_id, IN_FLIGHT)
        if ti is None:
            continue
        start = (ti.start_date or now) if ti.state == "running" else now
        state = "failed" if delay is None else "up_for_retry"
        t.change(
            "ti",
            ti_id,
            state=state,
            next_attempt_at=None if delay is None else now + delay,
            try_open=False,
            error=error,
            skips=None,
            start_date=start,
            end_date=now,
            duration=seconds(start, now),
        )
        close_attempt(t, attempt_id, now, state, error)
        failed.append((ti_id,))
    return failed


@answers(recovery._LOSE)
def lose(
    t: Tables,
    now: datetime,
    *,
    ti_ids: Sequence[int],
    attempt_ids: Sequence[str | None],
    errors: Sequence[str],
    charged: Sequence[bool],
) -> list[Any]:
    lost = []
    for ti_id, attempt_id, error, costs in zip(ti_ids, attempt_ids, errors, charged, strict=True):
        ti = current(t, ti_id, attempt_id, IN_FLIGHT)
        if ti is None:
            continue
        t.change(
            "ti",
            ti_id,
            state="none",
            external_executor_id=None,
            infrastructure_failures=ti.infrastructure_failures + costs,
            error=error,
            next_attempt_at=None,
            heartbeat_at=None,
        )
        close_attempt(t, attempt_id, now, "lost", error)
        lost.append((ti_id,))
    return lost


@answers(recovery._RESET_ORPHANS)
def reset_orphans(
    t: Tables, now: datetime, *, job_id: int, lease_timeout: timedelta, held: Collection[str], dag_run_id: int | None
) -> list[Any]:
    live = {
        job.id
        for job in t.job.values()
        if job.id != job_id and job.state in ACTIVE_JOB and job.lease_holder is not None
        if job.latest_heartbeat >= now - lease_timeout
    }
    runs = {run.id: run for run in t.run.values() if run.state == "running" and dag_run_id in {None, run.id}}
    number = 0
    for ti in t.tis_of(list(runs)):
        foreign = runs[ti.dag_run_id].job_id in live or (ti.state == "queued" and ti.queued_by_job_id in live)
        if ti.state in {"scheduled", "queued"} and ti.external_executor_id not in held and not foreign:
            t.change("ti", ti.id, state="none", external_executor_id=None)
            number += 1
    return [(number,)]


# -- clearing, closing, cancelling --------------------------------------------------------------------------------------

_CLEARED = (
    "external_executor_id",
    "next_attempt_at",
    "first_start_date",
    "heartbeat_at",
    "start_date",
    "end_date",
    "duration",
    "hostname",
    "pid",
    "skips",
    "error",
)


@answers(clearing._CLEAR)
def clear(
    t: Tables,
    now: datetime,
    *,
    dag_run_ids: Sequence[int],
    task_ids: Sequence[str],
    retries: Sequence[int],
    states: Collection[str],
    ti_ids: Collection[int] | None,
    timeout: timedelta | None,
) -> list[Any]:
    tries = dict(zip(task_ids, retries, strict=True))
    cleared = []
    for ti in t.tis_of(dag_run_ids):
        silent = timeout is not None and (ti.heartbeat_at is None or ti.heartbeat_at < now - timeout)
        chosen = ti.task_id in tries and (ti_ids is None or ti.id in ti_ids) and ti.state in states
        if not chosen or ti.state == "removed" or (ti.state == "running" and not silent):
            continue
        if ti.external_executor_id in t.attempt and t.attempt[ti.external_executor_id].end_date is None:
            t.change("attempt", ti.external_executor_id, end_date=now, outcome="lost")
        most = ti.try_number + tries[ti.task_id]
        values = {**dict.fromkeys(_CLEARED), "max_tries": most, "try_open": False, "infrastructure_failures": 0}
        cleared.append(t.change("ti", ti.id, state="none", **values))
    for run_id in {ti.dag_run_id for ti in cleared}:
        _reopen(t, t.run[run_id])
    return [facts(ti) for ti in cleared]


def _reopen(t: Tables, run: Row) -> None:
    if run.state not in {"success", "failed"}:
        return
    t.change("run", run.id, state="queued", end_date=None)
    for key, date in list(t.date.items()):
        if date.dag_run_id == run.id and date.active and date.progress == "finished":
            t.change("date", key, progress="pending", action="take")


@answers(clearing._UNSCHEDULE_CLOSED)
def unschedule_closed(t: Tables, now: datetime, *, dag_run_ids: Sequence[int]) -> list[Any]:
    closed = [run_id for run_id in dag_run_ids if t.run[run_id].state in {"success", "failed"}]
    put_back = [ti for ti in t.tis_of(closed) if ti.state in {"scheduled", "up_for_reschedule"}]
    for ti in put_back:
        t.change("ti", ti.id, state="none", try_open=False, next_attempt_at=None)
    return [(ti.id,) for ti in put_back]


@answers(clearing._CANCEL)
def cancel(
    t: Tables, now: datetime, *, ti_ids: Sequence[int], attempt_ids: Sequence[str | None], error: str
) -> list[Any]:
    cancelled = []
    for ti_id, attempt_id in zip(ti_ids, attempt_ids, strict=True):
        ti = current(t, ti_id, attempt_id, {"running", "up_for_retry"})
        if ti is None:
            continue
        ended = {"end_date": now, "duration": seconds(ti.start_date or now, now)} if ti.state == "running" else {}
        t.change("ti", ti_id, state="failed", try_open=False, next_attempt_at=None, error=error, **ended)
        if attempt_id in t.attempt and t.attempt[attempt_id].end_date is None:
            close_attempt(t, attempt_id, now, "failed", error)
        cancelled.append((ti_id,))
    return cancelled


@answers(clearing._SELECT_TO_CANCEL)
def select_to_cancel(t: Tables, now: datetime, *, job_id: int) -> list[Any]:
    runs = [run.id for run in t.run.values() if run.job_id == job_id and run.state == "running"]
    return [
        record(id=ti.id, attempt_id=ti.external_executor_id)
        for ti in t.tis_of(runs)
        if ti.state in {"running", "up_for_retry"}
    ]


# -- mappings -----------------------------------------------------------------------------------------------------------


def _rows_of(t: Tables, dag_run_id: int, task_id: str) -> list[Row]:
    return [ti for ti in t.tis_of([dag_run_id]) if ti.task_id == task_id]


def _has_ended_unexpanded(rows: Collection[Row]) -> bool:
    live = [ti for ti in rows if ti.state != "removed"]
    return any(ti.map_index == -1 and ti.state in FINISHED for ti in live) and all(ti.map_index < 0 for ti in live)


@answers(mapping._GROW)
def grow(
    t: Tables, now: datetime, *, dag_run_id: int, task_id: str, length: int, at_once: int, **template: Any
) -> list[Any]:
    existing = _rows_of(t, dag_run_id, task_id)
    if _has_ended_unexpanded(existing):
        return [(0,)]
    last = max((ti.map_index for ti in existing), default=0)
    indexes = range(max(last, 0) + 1, min(max(last, 0) + at_once, length - 1) + 1)
    for index in indexes:
        insert_ti(t, t.run[dag_run_id], {**template, "task_id": task_id, "map_index": index})
    return [(len(indexes),)]


@answers(mapping._EXPAND)
def expand(
    t: Tables, now: datetime, *, dag_run_id: int, task_id: str, length: int, max_tries: int, **template: Any
) -> list[Any]:
    existing = _rows_of(t, dag_run_id, task_id)
    if length > 0 and _has_ended_unexpanded(existing):
        return []
    has_first = any(ti.map_index == 0 for ti in existing)
    taken = set()
    for ti in existing:
        index = 0 if ti.map_index == -1 and length > 0 and ti.state in IDLE and not has_first else ti.map_index
        taken.add(index)
        wanted = 0 <= index < length if length > 0 else index == -1
        was_removed = ti.state == "removed"
        if wanted or index != ti.map_index or ti.state not in {"removed", *IN_FLIGHT}:
            stays = wanted and not was_removed
            t.change(
                "ti",
                ti.id,
                map_index=index,
                state="removed" if not wanted else "none" if was_removed else ti.state,
                max_tries=ti.try_number + max_tries if was_removed else ti.max_tries,
                try_open=ti.try_open and stays,
                next_attempt_at=ti.next_attempt_at if stays else None,
            )
    for index in range(length) if length > 0 else [-1]:
        if index not in taken:
            row = {**template, "task_id": task_id, "map_index": index, "max_tries": max_tries}
            insert_ti(t, t.run[dag_run_id], row)
    return []


@answers(mapping._SELECT_EXPANDED)
def select_expanded(t: Tables, now: datetime, *, dag_run_id: int, task_id: str) -> list[Any]:
    return [facts(ti) for ti in sorted(_rows_of(t, dag_run_id, task_id), key=lambda ti: ti.map_index)]


@answers(mapping._SELECT_LENGTHS)
def select_lengths(t: Tables, now: datetime, *, dag_run_id: int, task_ids: Collection[str]) -> list[Any]:
    groups: dict[tuple[str, str | None], list[tuple[Row, Any]]] = defaultdict(list)
    for ti in t.tis_of([dag_run_id]):
        if ti.task_id in task_ids and ti.state != "removed":
            pushed = [(key[1], row.value) for key, row in t.xcom.items() if key[0] == ti.id]
            for name, value in pushed or [(None, None)]:
                groups[ti.task_id, name].append((ti, value))
    return [
        record(
            task_id=task_id,
            key=name,
            expanded=any(ti.map_index >= 0 for ti, _ in found),
            pushed=len(found) if name is not None else 0,
            length=max((len(value) for _, value in found if isinstance(value, list | dict)), default=None),
        )
        for (task_id, name), found in groups.items()
    ]
