"""Task instances as the coordinator reads, settles and queues them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from backfill.facts import TaskInstanceFacts
from backfill.states import TaskInstanceState
from backfill.store.database import Tx
from backfill.store.statements import as_facts, columns, fetch, read, read_facts, statement
from backfill.store.values import storable_text

_SELECT = statement("select $facts from task_instance ti where ti.id = any(cast(:ti_ids as bigint[])) order by ti.id")


def select_facts(tx: Tx, ti_ids: Sequence[int]) -> list[TaskInstanceFacts]:
    """Return the rows of `ti_ids` as they are now, in the order of id; those that were deleted are missing."""
    if not ti_ids:
        return []
    return read_facts(tx.execute(_SELECT, {"ti_ids": list(ti_ids)}))


_SELECT_REPORTED = statement(
    """
    select $facts, extract(epoch from ti.start_date - ti.queued_at)::float as waited
    from task_instance ti
    where ti.id = any(cast(:ti_ids as bigint[])) order by ti.id
    """
)


class Reported(NamedTuple):
    """Rows of task instances that something was reported of."""

    rows: list[TaskInstanceFacts]
    #: Seconds that the first of them to be claimed waited for that in a queue; None if none was claimed.
    shortest_wait: float | None


def select_reported(tx: Tx, ti_ids: Sequence[int]) -> Reported:
    """Return the rows of `ti_ids` as `select_facts` does, and how long attempts have to wait for a worker just now."""
    rows = fetch(tx.execute(_SELECT_REPORTED, {"ti_ids": list(ti_ids)}))
    waits = [row[-1] for row in rows if row[-1] is not None]
    return Reported(as_facts(row[:-1] for row in rows), min(waits, default=None))


_SELECT_OF_RUNS = statement(
    """
    select $facts from task_instance ti
    where ti.dag_run_id = any(cast(:dag_run_ids as bigint[]))
    order by ti.dag_run_id, ti.id
    """
)


def select_facts_of_runs(tx: Tx, dag_run_ids: Sequence[int]) -> list[TaskInstanceFacts]:
    """Return all rows of the runs, `removed` ones too, run by run."""
    if not dag_run_ids:
        return []
    return read_facts(tx.execute(_SELECT_OF_RUNS, {"dag_run_ids": list(dag_run_ids)}))


# -- limits -------------------------------------------------------------------------------------------------------------

# All transactions take the locks of DAGs before those of pools: a pool is locked when every DAG is. Before both something may have
# to be `held`: without a row there nothing is locked.
LOCKED_LIMITS = """
    dag as materialized (
        select dag_id from dag
        where dag_id = any(cast(:dag_ids as text[])) and exists (select from held)
        order by dag_id
        for no key update
    ),
    pool as materialized (
        select pool, slots from slot_pool
        where pool = any(cast(:pools as text[])) and (select count(*) from dag) = cardinality(cast(:dag_ids as text[]))
        order by pool
        for no key update
    )
"""
_LOCK = statement(
    """
    with held as (select), $locked_limits
    select null as pool, count(*) as slots from dag
    union all
    select pool, slots from pool
    """,
    locked_limits=LOCKED_LIMITS,
)
_ADD_DAGS = statement(
    """
    insert into dag (dag_id) select dag_id from unnest(cast(:dag_ids as text[])) as d (dag_id) order by dag_id
    on conflict (dag_id) do nothing
    """
)


def lock_limits(tx: Tx, dag_ids: Iterable[str], pools: Iterable[str]) -> dict[str, int]:
    """Lock what guards the limits of these DAGs and pools to the end of the transaction (S5.1).

    Whoever takes places does so: what `select_occupancy` and `runs.count_running_runs` count afterwards nobody raises meanwhile.
    Returns the slots of each pool that exists; -1 is unlimited, 0 is closed.
    """
    wanted = {"dag_ids": sorted(set(dag_ids)), "pools": sorted(set(pools))}
    (_, dags), *sizes = fetch(tx.execute(_LOCK, wanted))
    if dags < len(wanted["dag_ids"]):
        tx.execute(_ADD_DAGS, {"dag_ids": wanted["dag_ids"]})
        return lock_limits(tx, wanted["dag_ids"], wanted["pools"])
    return dict(sizes)


@dataclass(frozen=True, slots=True)
class OccupancyRow:
    """How many task instances of one task in one run are in flight, and the slots that they take of a pool."""

    pool: str
    dag_id: str
    task_id: str
    dag_run_id: int
    count: int
    slots: int
    #: The job that queued them.
    job_id: int | None


# A task instance that stands for a subdag's run is `running` without an attempt, and takes no place (S5.4).
_SELECT_OCCUPANCY = statement(
    """
    select ti.pool, ti.dag_id, place.task_id, place.dag_run_id, count(*) as count, sum(ti.pool_slots) as slots,
           ti.queued_by_job_id as job_id
    from task_instance ti
    cross join lateral (
        select case when apart then ti.task_id else '' end as task_id, case when apart then ti.dag_run_id else 0 end as dag_run_id
        from (select cast(:apart as text[]) is null or ti.task_id = any(cast(:apart as text[])) as apart) limits
    ) place
    where ti.in_flight
      and (ti.dag_id = any(cast(:dag_ids as text[])) or ti.pool = any(cast(:pools as text[])))
      and not (ti.operator = 'SubDagOperator' and ti.external_executor_id is null)
    group by ti.pool, ti.dag_id, place.task_id, place.dag_run_id, ti.queued_by_job_id
    """
)


def select_occupancy(
    tx: Tx, dag_ids: Iterable[str], pools: Iterable[str], *, apart: Collection[str] | None = None
) -> list[OccupancyRow]:
    """Return what is in flight in these DAGs or in these pools, by whomever it was queued (S5).

    With `apart` only these tasks are told apart by task and run; all others stand together, without a task and in run 0.
    """
    parameters = {
        "dag_ids": list(dag_ids),
        "pools": list(pools),
        "apart": None if apart is None else list(apart),
    }
    return read(OccupancyRow, tx.execute(_SELECT_OCCUPANCY, parameters))


# -- dispatch -----------------------------------------------------------------------------------------------------------


class QueueRequest(NamedTuple):
    """A place for one task instance: a fresh attempt id, and the pool and executor that it counts for."""

    task_instance_id: int
    attempt_id: str
    pool: str
    executor: str


_SCHEDULED = """
    waiting as (
        select ti.id from task_instance ti
        where ti.id = any(cast(:waiting as bigint[])) and ti.state in ('none', 'up_for_retry', 'up_for_reschedule')
        order by ti.id
        for no key update
    ),
    scheduled as (
        update task_instance ti set state = 'scheduled' from waiting where ti.id = waiting.id
        returning $facts
    )
"""

# The runs are locked, so that they are still `running` when the transaction ends. What is queued is found by its id: `+ 0` keeps
# a planner that knows nothing of the tables yet from reading all task instances of a run, which may be thousands, to find it.
_QUEUE = statement(
    """
    with request as (
        select * from unnest(
            cast(:ti_ids as bigint[]), cast(:attempt_ids as uuid[]), cast(:pools as text[]), cast(:executors as text[])
        ) as r (id, attempt_id, pool, executor)
    ),
    run as (
        select id from dag_run
        where job_id = :job_id and state = 'running' and exists (select from job where id = :job_id and state = 'running')
          and id in (select ti.dag_run_id from task_instance ti where ti.id = any(cast(:ti_ids as bigint[])))
        order by id
        for share
    ),
    idle as (
        select ti.id, request.attempt_id, request.pool, request.executor
        from request
        join task_instance ti on ti.id = request.id
        where ti.state in $idle and ti.dag_run_id + 0 in (select id from run)
        order by ti.id
        for no key update of ti
    ),
    queued as (
        update task_instance ti
        set state = 'queued', try_number = ti.try_number + case when ti.try_open then 0 else 1 end, try_open = true,
            external_executor_id = idle.attempt_id, pool = idle.pool, executor = idle.executor,
            queued_by_job_id = :job_id, queued_at = statement_timestamp(), next_attempt_at = null,
            heartbeat_at = null, hostname = null, pid = null
        from idle
        where ti.id = idle.id
        returning $facts
    ),
    $scheduled
    select * from queued
    union all
    select * from scheduled
    """,
    scheduled=_SCHEDULED,
)


def queue_if_idle(
    tx: Tx, job_id: int, requests: Iterable[QueueRequest], *, waiting: Sequence[int] = ()
) -> list[TaskInstanceFacts]:
    """Queue idle task instances of running runs of the job, while it is `running` itself (S3.4, S6.1, S7.1).

    This is what opens a try, and the only statement that does: `try_number` grows by one unless the present try is open. Limits were
    checked before, in this transaction, under `lock_limits`. In the same statement the ids in `waiting`, none of which is requested,
    become `scheduled` as by `schedule_if_idle`. Returns the rows that changed, in no order.
    """
    given = list(requests)
    if not given:
        return schedule_if_idle(tx, waiting)
    ti_ids, attempt_ids, pools, executors = columns(given)
    parameters = {
        "job_id": job_id,
        "ti_ids": ti_ids,
        "attempt_ids": attempt_ids,
        "pools": pools,
        "executors": executors,
        "waiting": list(waiting),
    }
    return read_facts(tx.execute(_QUEUE, parameters))


_TAKE_BACK = statement(
    """
    with queued as (
        select ti.id
        from unnest(cast(:ti_ids as bigint[]), cast(:attempt_ids as uuid[])) as given (id, attempt_id)
        join task_instance ti on ti.id = given.id
        where ti.state = 'queued' and ti.external_executor_id is not distinct from given.attempt_id
        order by ti.id
        for no key update of ti
    )
    update task_instance ti set state = 'none', external_executor_id = null
    from queued
    where ti.id = queued.id
    returning ti.id
    """
)


def take_back_if_queued(tx: Tx, attempts: Iterable[tuple[int, str | None]]) -> set[int]:
    """Put attempts, given as (task instance id, attempt id), that no worker has claimed back to `none` (S3.8).

    The attempt id is voided, so that its message does nothing any more; the try stays open. Returns the ids that were still queued.
    """
    given = list(attempts)
    if not given:
        return set()
    ti_ids, attempt_ids = columns(given)
    return set(tx.execute(_TAKE_BACK, {"ti_ids": ti_ids, "attempt_ids": attempt_ids}).scalars())


# -- what dependencies decide -------------------------------------------------------------------------------------------

# What is skipped without running returned nothing: the XComs of an earlier run of it must not be mapped over (S4.7).
_SETTLE = statement(
    """
    with idle as (
        select ti.id, given.state, given.error
        from unnest(cast(:ti_ids as bigint[]), cast(:states as text[]), cast(:errors as text[])) as given (id, state, error)
        join task_instance ti on ti.id = given.id
        where ti.state in $idle and given.state in ('success', 'skipped', 'upstream_failed')
        order by ti.id
        for no key update of ti
    ),
    settled as (
        update task_instance ti
        set state = idle.state,
            try_number = ti.try_number + case when idle.state = 'success' and not ti.try_open then 1 else 0 end,
            try_open = false, external_executor_id = null, next_attempt_at = null, skips = null,
            start_date = statement_timestamp(), end_date = statement_timestamp(), duration = 0,
            hostname = null, pid = null, error = coalesce(idle.error, ti.error)
        from idle
        where ti.id = idle.id
        returning ti.id, ti.state
    ),
    forgotten as (
        delete from xcom using settled where xcom.task_instance_id = settled.id and settled.state <> 'success'
    )
    select id from settled
    """
)


def settle_if_idle(
    tx: Tx, decisions: Iterable[tuple[int, TaskInstanceState]], *, errors: Mapping[int, str] | None = None
) -> set[int]:
    """Write `skipped`, `upstream_failed` (S3.5) or `success` (S3.6) to idle task instances, without running them.

    Start and end are now; `success` counts one try and keeps the XComs of an earlier one, the others forget them. `errors` are
    texts for some of them, by id. Returns the ids that were idle.
    """
    given = list(decisions)
    if not given:
        return set()
    ti_ids, states = columns(given)
    texts = [storable_text((errors or {}).get(ti_id)) for ti_id in ti_ids]
    return set(tx.execute(_SETTLE, {"ti_ids": ti_ids, "states": states, "errors": texts}).scalars())


_SCHEDULE = statement("with $scheduled select * from scheduled", scheduled=_SCHEDULED)


def schedule_if_idle(tx: Tx, ti_ids: Sequence[int]) -> list[TaskInstanceFacts]:
    """Write `scheduled` to idle task instances that are ready and have no place yet (S3.2); return their rows, in no order."""
    if not ti_ids:
        return []
    return read_facts(tx.execute(_SCHEDULE, {"waiting": list(ti_ids)}))


_UNSCHEDULE = statement(
    """
    with scheduled as (
        select ti.id from task_instance ti
        where ti.id = any(cast(:ti_ids as bigint[])) and ti.state = 'scheduled'
        order by ti.id
        for no key update
    )
    update task_instance ti set state = 'none' from scheduled where ti.id = scheduled.id
    returning ti.id
    """
)


def unschedule_if_scheduled(tx: Tx, ti_ids: Sequence[int]) -> set[int]:
    """Put `scheduled` task instances whose dependencies are no longer met back to `none` (S3.3); return their ids."""
    if not ti_ids:
        return set()
    return set(tx.execute(_UNSCHEDULE, {"ti_ids": list(ti_ids)}).scalars())
