"""The life of claimed attempts as their worker writes it: heartbeat, finish, hand back.

Every task instance passes here twice, so this is the hottest path of the system: each function is one statement and one
round trip, and needs no transaction around it. Each statement is guarded by the attempt id (architecture, "The
protocol"): a worker whose attempt is not current any more changes nothing, which is a normal answer and no error.

Times are the database's (S0.2): `statement_timestamp()`, so that attempts written in one transaction have times of
their own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple

from backfill.states import TaskInstanceState
from backfill.store.database import Tx
from backfill.store.statements import named, statement
from backfill.store.values import Json, encode, storable_text

#: How an attempt may end by itself.
_FINISHES = frozenset(
    {
        TaskInstanceState.SUCCESS,
        TaskInstanceState.SKIPPED,
        TaskInstanceState.FAILED,
        TaskInstanceState.UP_FOR_RETRY,
        TaskInstanceState.UP_FOR_RESCHEDULE,
    }
)
_AT_ONCE = timedelta(0)


@dataclass(frozen=True, slots=True)
class Finish:
    """How an attempt ended by itself (S3.9 to S3.13)."""

    task_instance_id: int
    attempt_id: str
    #: success, skipped, failed, up_for_retry or up_for_reschedule.
    state: TaskInstanceState
    error: str | None = None
    #: From the end of the attempt to the next try: given with `up_for_retry`, and only then (S6.3).
    retry_delay: timedelta | None = None
    #: Given with `up_for_reschedule`, and only then (S3.13).
    reschedule_date: datetime | None = None
    #: XComs to push, by key: values, or what `backfill.store.values.encode` made of them.
    xcoms: Mapping[str, Any] = field(default_factory=dict)
    #: Task ids that the task decided to skip (S4.8); None: it decided nothing.
    skips: Sequence[str] | None = None
    #: How long before it is written the attempt began and ended, where claims and finishes are written in groups. None: it began
    #: with its claim.
    started_ago: timedelta | None = None
    ended_ago: timedelta = _AT_ONCE

    def __post_init__(self) -> None:
        if self.state not in _FINISHES:
            raise ValueError(f"an attempt cannot end as {self.state}")
        if (self.retry_delay is None) == (self.state is TaskInstanceState.UP_FOR_RETRY):
            raise ValueError(f"a retry delay of {self.retry_delay} does not go with {self.state}")
        if (self.reschedule_date is None) == (self.state is TaskInstanceState.UP_FOR_RESCHEDULE):
            raise ValueError(f"a reschedule date of {self.reschedule_date} does not go with {self.state}")


_FINISH = named(
    statement(
        """
with mine as (
    select g.*, own.start_date, greatest(statement_timestamp() - g.ended_ago, own.start_date) as end_date
    from unnest(
        cast(:ids as bigint[]), cast(:attempts as uuid[]), cast(:states as text[]), cast(:errors as text[]),
        cast(:retry_delays as interval[]), cast(:reschedule_dates as timestamptz[]), cast(:skips as jsonb[]),
        cast(:started_ago as interval[]), cast(:ended_ago as interval[])
    ) as g (id, attempt_id, state, error, retry_delay, reschedule_date, skips, started_ago, ended_ago)
    join task_instance t on t.id = g.id and t.external_executor_id = g.attempt_id and t.state = 'running'
    cross join lateral (select greatest(statement_timestamp() - g.started_ago, t.start_date) as start_date) own
    order by t.id for no key update of t
), finished as (
    update task_instance t
    set state = m.state, try_open = (m.state = 'up_for_reschedule'), infrastructure_failures = 0,
        start_date = m.start_date,
        first_start_date = case t.first_start_date when t.start_date then m.start_date else t.first_start_date end,
        end_date = m.end_date, duration = extract(epoch from m.end_date - m.start_date),
        next_attempt_at = coalesce(m.reschedule_date, m.end_date + m.retry_delay),
        error = coalesce(m.error, t.error),
        skips = case when m.skips is not null then array(select jsonb_array_elements_text(m.skips)) end
    from mine m where t.id = m.id
    returning m.id, m.attempt_id, m.state, m.start_date, m.end_date, m.error
), closed as (
    update task_attempt a
    set start_date = coalesce(f.start_date, a.start_date), end_date = f.end_date, outcome = f.state, error = f.error
    from finished f where a.attempt_id = f.attempt_id
), pushed as (
    insert into xcom (task_instance_id, key, value)
    select f.id, x.key, x.value
    from unnest(cast(:xcom_attempts as uuid[]), cast(:xcom_keys as text[]), cast(:xcom_values as jsonb[]))
        as x (attempt_id, key, value)
    join finished f on f.attempt_id = x.attempt_id
    on conflict (task_instance_id, key) do update set value = excluded.value
)
select cast(attempt_id as text) from finished
"""
    ),
    "attempt_id",
)


def finish_if_current(tx: Tx, finishes: Collection[Finish]) -> set[str]:
    """Write how attempts ended where they are still current: `running` under their attempt id (S3.9 to S3.13, S7.7).

    State, dates, error, XComs, skip decision, the closed try and the entry in the history of tries, of any number of attempts at
    once. Returns the attempt ids that took effect. One that is missing was fenced out, and nothing of it was written; or
    this call repeats one that was committed although its answer was lost.
    Raises `UsageError` before anything is written where an XCom cannot be kept (see `backfill.store.values.encode`).
    """
    if not finishes:
        return set()
    unique = _in_order_of_id(finishes)
    xcoms = [
        (f.attempt_id, key, encode(f"The value of XCom {key!r}", value))
        for f in unique
        for key, value in f.xcoms.items()
    ]
    return set(tx.execute(_FINISH, {**_finish_columns(unique), **_xcom_columns(xcoms)}).scalars())


def _in_order_of_id(finishes: Collection[Finish]) -> Collection[Finish]:
    """Return them in the order in which other statements lock rows; of two for one attempt the first given counts."""
    unique: dict[str, Finish] = {}
    for finish in sorted(finishes, key=attrgetter("task_instance_id")):
        unique.setdefault(finish.attempt_id, finish)
    return unique.values()


def _finish_columns(finishes: Collection[Finish]) -> dict[str, list[Any]]:
    return {
        "ids": [f.task_instance_id for f in finishes],
        "attempts": [f.attempt_id for f in finishes],
        "states": [f.state.value for f in finishes],
        "errors": [storable_text(f.error) for f in finishes],
        "retry_delays": [f.retry_delay for f in finishes],
        "reschedule_dates": [f.reschedule_date for f in finishes],
        "skips": [None if f.skips is None else encode("The skip decision", list(f.skips)) for f in finishes],
        "started_ago": [f.started_ago for f in finishes],
        "ended_ago": [f.ended_ago for f in finishes],
    }


def _xcom_columns(xcoms: Collection[tuple[str, str, Json]]) -> dict[str, list[str]]:
    return {
        "xcom_attempts": [attempt_id for attempt_id, _, _ in xcoms],
        "xcom_keys": [key for _, key, _ in xcoms],
        "xcom_values": [value for _, _, value in xcoms],
    }


#: Attempts that are still current, locked in the order of id so that two such statements never wait for each other.
_MINE = """
with mine as (
    select t.id, a.attempt_id
    from task_attempt a
    join task_instance t on t.id = a.task_instance_id and t.external_executor_id = a.attempt_id
    where a.attempt_id = any(cast(:attempt_ids as uuid[])) and t.state = 'running'
    order by t.id for no key update of t
)
"""

_RENEW_HEARTBEATS = statement("""
with mine as (
    select t.id, a.attempt_id, greatest(statement_timestamp() - g.started_ago, t.start_date) as start_date
    from unnest(cast(:attempt_ids as uuid[]), cast(:started_ago as interval[])) as g (attempt_id, started_ago)
    join task_attempt a on a.attempt_id = g.attempt_id
    join task_instance t on t.id = a.task_instance_id and t.external_executor_id = a.attempt_id and t.state = 'running'
    order by t.id for no key update of t
), renewed as (
    update task_instance t
    set heartbeat_at = statement_timestamp(), start_date = mine.start_date,
        first_start_date = case t.first_start_date when t.start_date then mine.start_date else t.first_start_date end
    from mine where t.id = mine.id
    returning mine.attempt_id, mine.start_date
), begun as (
    update task_attempt a set start_date = r.start_date from renewed r
    where a.attempt_id = r.attempt_id and a.start_date <> r.start_date
)
select cast(attempt_id as text) from renewed
""")


def renew_heartbeats(
    tx: Tx, attempt_ids: Collection[str], *, started_ago: Mapping[str, timedelta] | None = None
) -> set[str]:
    """Renew the heartbeat of claimed attempts; returns those that are still current (S7.6).

    `started_ago` says of some how long ago they began, where that was after their claim: their start date becomes that. A worker
    stops the process of every attempt that is not current and writes no state for it.
    """
    if not attempt_ids:
        return set()
    ids = list(attempt_ids)
    begun = started_ago or {}
    values = {"attempt_ids": ids, "started_ago": [begun.get(attempt_id) for attempt_id in ids]}
    return set(tx.execute(_RENEW_HEARTBEATS, values).scalars())


_SELECT_CANCELLED = statement("""
select cast(t.external_executor_id as text)
from task_attempt a
join task_instance t on t.id = a.task_instance_id and t.external_executor_id = a.attempt_id
join job j on j.id = t.queued_by_job_id
where a.attempt_id = any(cast(:attempt_ids as uuid[])) and j.cancel_requested
""")


def select_cancelled(tx: Tx, attempt_ids: Collection[str]) -> set[str]:
    """Return those of the current attempts whose job is being cancelled: their worker stops them (S11.5).

    So a running task learns of it also where no order of the coordinator reaches its worker.
    """
    if not attempt_ids:
        return set()
    return set(tx.execute(_SELECT_CANCELLED, {"attempt_ids": list(attempt_ids)}).scalars())


_GIVE_UP_HEARTBEATS = statement(f"""
{_MINE}
update task_instance t set heartbeat_at = to_timestamp(0) from mine where t.id = mine.id
returning cast(mine.attempt_id as text)
""")  # noqa: S608  # put together from constants


def give_up_heartbeats(tx: Tx, attempt_ids: Collection[str]) -> set[str]:
    """Let the heartbeat of attempts whose process is ending run out at once, so that nobody has to wait for it (S8.3, S8.4).

    For those who lost the process that would have reported them. Returns the attempt ids that took effect.
    """
    if not attempt_ids:
        return set()
    return set(tx.execute(_GIVE_UP_HEARTBEATS, {"attempt_ids": list(attempt_ids)}).scalars())


_HAND_BACK = statement(f"""
{_MINE}, handed_back as (
    update task_instance t
    set state = 'none', external_executor_id = null, try_open = true, heartbeat_at = null,
        end_date = statement_timestamp(), duration = extract(epoch from statement_timestamp() - t.start_date)
    from mine where t.id = mine.id
    returning mine.attempt_id
), closed as (
    update task_attempt a set end_date = statement_timestamp(), outcome = 'none'
    from handed_back h where a.attempt_id = h.attempt_id
)
select cast(attempt_id as text) from handed_back
""")  # noqa: S608  # put together from constants


def hand_back_if_running(tx: Tx, attempt_ids: Collection[str]) -> set[str]:
    """Put running attempts of a worker that was told to stop back to `none` (S3.15, S7.8).

    The attempt id is voided and the try stays open; the infrastructure counter is not touched. Returns the attempt ids that
    took effect.
    """
    if not attempt_ids:
        return set()
    return set(tx.execute(_HAND_BACK, {"attempt_ids": list(attempt_ids)}).scalars())


class Stopped(NamedTuple):
    """A task instance that ended because another one of its run failed; with an `attempt_id` its process must be stopped."""

    task_instance_id: int
    state: str
    attempt_id: str | None


_STOP_RUN = statement("""
with hit as (
    select ti.id, ti.state = 'running' as ran, ti.external_executor_id as attempt_id
    from task_instance ti
    join dag_run run on run.id = ti.dag_run_id
    left join job on job.id = run.job_id
    where ti.dag_run_id = :dag_run_id and ti.task_id <> all(cast(:spared_task_ids as text[]))
      and ti.state in ('none', 'scheduled', 'queued', 'running', 'up_for_retry', 'up_for_reschedule', 'upstream_failed')
      and (job.params -> 'task_ids' is null or job.dag_id <> ti.dag_id or job.params -> 'task_ids' ? ti.task_id)
    order by ti.id for no key update of ti
), stopped as (
    update task_instance t
    set state = case when hit.ran then 'failed' else 'skipped' end,
        error = case when hit.ran then :error else t.error end,
        start_date = case when hit.ran then t.start_date else statement_timestamp() end,
        end_date = statement_timestamp(),
        duration = case when hit.ran then extract(epoch from statement_timestamp() - t.start_date) else 0 end,
        next_attempt_at = null, try_open = false
    from hit where t.id = hit.id
    returning t.id, t.state, hit.ran, hit.attempt_id
), closed as (
    update task_attempt a set end_date = statement_timestamp(), outcome = 'failed', error = :error
    from stopped s where s.ran and a.attempt_id = s.attempt_id
)
select id, state, case when ran then cast(attempt_id as text) end from stopped order by id
""")


def stop_run_after_failure(tx: Tx, dag_run_id: int, *, spared_task_ids: Collection[str], error: str) -> list[Stopped]:
    """Write what `fail_stop` does to the rest of a run (S3.19, S6.8): running ones `failed`, the others `skipped`.

    Called by whoever wrote the failure, in the same transaction, and only if the failure took effect. `spared_task_ids` are the
    task that failed and all teardowns; those in `success`, `skipped`, `failed` and `removed` stay as well. `error` is the
    text for the running ones; tasks that the job did not choose are left alone (S13.6). Returns what was changed; a process of it ends at its next heartbeat at the latest.
    """
    values = {"dag_run_id": dag_run_id, "spared_task_ids": list(spared_task_ids), "error": storable_text(error)}
    return [Stopped(*row) for row in tx.execute(_STOP_RUN, values)]
