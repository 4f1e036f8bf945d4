"""DAG runs: admitted into the window, read, locked, finished."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from backfill.facts import RunFacts
from backfill.states import DagRunState
from backfill.store.database import Tx
from backfill.store.statements import columns, fetch, read, statement

#: Columns of `dag_run as run` in the order of `RunFacts`, but for the last, the ordinal.
_FACTS = ", ".join(f"run.{name}" for name in RunFacts._fields[:-1])

# The upsert both creates and takes: a run that appears after the plan was made is taken. Existing runs are locked by id.
_ADMIT = statement(
    """
    with due as (
        select date.*, run.id as existing
        from job_run_date date
        left join dag_run run on run.dag_id = date.dag_id and run.logical_date = date.logical_date
        where date.job_id = :job_id and date.dag_id = :dag_id and date.ordinal = any(cast(:ordinals as integer[]))
          and date.active and date.progress = 'pending'
        order by date.ordinal
        for no key update of date
    ),
    run as (
        insert into dag_run (dag_id, run_id, logical_date, data_interval_start, data_interval_end, run_type, state, conf,
                             creating_job_id, job_id, start_date)
        select due.dag_id,
               'backfill__' || to_char(due.logical_date at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')
                   || case when date_trunc('second', due.logical_date) = due.logical_date then ''
                           else to_char(due.logical_date, '.US') end || '+00:00',
               due.logical_date, due.data_interval_start, due.data_interval_end, 'backfill', 'running',
               coalesce(cast(:conf as jsonb), '{}'), :job_id, :job_id, statement_timestamp()
        from due
        order by due.existing, due.ordinal
        on conflict (dag_id, logical_date) do update
        set run_type = 'backfill', state = 'running', job_id = excluded.job_id, start_date = excluded.start_date,
            end_date = null, idle_seconds = 0, conf = coalesce(cast(:conf as jsonb), dag_run.conf)
        where dag_run.state <> 'running' or dag_run.run_type = 'backfill'
        returning *
    ),
    marked as (
        update job_run_date date
        set progress = 'admitted', dag_run_id = run.id
        from due
        join run on run.logical_date = due.logical_date
        where date.job_id = due.job_id and date.dag_id = due.dag_id and date.ordinal = due.ordinal
    )
    select $run_facts, due.ordinal
    from run
    join due on due.logical_date = run.logical_date
    order by due.ordinal
    """,
    run_facts=_FACTS,
)


def admit_dates(
    tx: Tx, job_id: int, dag_id: str, ordinals: Sequence[int], *, conf: dict[str, Any] | None
) -> list[RunFacts]:
    """Create or take the runs of pending dates of the job (S2.10, S2.11) and mark the dates as admitted.

    Returns the runs in the order of admission. A date is not among them if it was admitted already, or if a run of another type
    is running at it, which is left alone (S2.6). To clear task instances is a step of its own, `clearing.clear_task_instances`.
    """
    parameters = {
        "job_id": job_id,
        "dag_id": dag_id,
        "ordinals": list(ordinals),
        "conf": None if conf is None else json.dumps(conf),
    }
    return read(RunFacts, tx.execute(_ADMIT, parameters))


_COUNT_RUNNING = statement(
    """
    select count(*), count(*) filter (where job_id = :job_id) from dag_run
    where dag_id = :dag_id and state = 'running' and not external_trigger
    """
)


class RunningRuns(NamedTuple):
    """How many runs count for `max_active_runs` of a DAG: of all jobs, and of one."""

    all: int
    own: int


def count_running_runs(tx: Tx, dag_id: str, job_id: int | None = None) -> RunningRuns:
    """Return how many runs count for `max_active_runs` of the DAG, and how many of these are the job's own (S5).

    The count holds to the end of the transaction if it locked the DAG by `task_instances.lock_limits` before.
    """
    return RunningRuns(*tx.execute(_COUNT_RUNNING, {"dag_id": dag_id, "job_id": job_id}).one())


# A run stands in the list of its present job, or of the last one that had it. The sum keeps the planner off the primary key.
_ORDINAL = """
    left join lateral (
        select date.ordinal from job_run_date date where date.dag_run_id = run.id order by date.job_id + 0 desc limit 1
    ) place on true
"""

_SELECT = statement(
    """
    select $run_facts, coalesce(place.ordinal, -1) as ordinal
    from dag_run run
    $ordinal
    where run.id = any(cast(:dag_run_ids as bigint[]))
    order by place.ordinal, run.logical_date
    """,
    run_facts=_FACTS,
    ordinal=_ORDINAL,
)


def select_runs(tx: Tx, dag_run_ids: Sequence[int]) -> list[RunFacts]:
    """Return runs in their order of admission; the ordinal of one that no job took is -1."""
    return read(RunFacts, tx.execute(_SELECT, {"dag_run_ids": list(dag_run_ids)}))


_SELECT_WINDOW = statement(
    """
    select $run_facts, coalesce(place.ordinal, -1) as ordinal
    from dag_run run
    $ordinal
    where run.job_id = :job_id and run.state = 'running'
    order by place.ordinal, run.id
    """,
    run_facts=_FACTS,
    ordinal=_ORDINAL,
)


def select_window_runs(tx: Tx, job_id: int) -> list[RunFacts]:
    """Return the runs that are in the job's window, in their order of admission: what a new holder goes on with (S8.6)."""
    return read(RunFacts, tx.execute(_SELECT_WINDOW, {"job_id": job_id}))


_SELECT_TIMED_OUT = statement(
    """
    select id from dag_run
    where id = any(cast(:dag_run_ids as bigint[])) and state = 'running'
      and extract(epoch from clock_timestamp() - start_date) - idle_seconds > extract(epoch from cast(:timeout as interval))
    order by id
    for no key update
    """
)


def lock_timed_out_runs(tx: Tx, dag_run_ids: Sequence[int], timeout: timedelta) -> list[int]:
    """Lock and return those of the runs that have been running for longer than `timeout` (S6.6).

    Time in which their job was paused or nobody drove it does not count.
    """
    parameters = {"dag_run_ids": list(dag_run_ids), "timeout": timeout}
    return list(tx.execute(_SELECT_TIMED_OUT, parameters).scalars())


_SELECT_CUT_SHORT = statement(
    """
    select run.id, exists (
        select from task_instance ti
        where ti.dag_run_id = run.id and (ti.state in $unfinished or ti.state in $ended_badly)
    ) as cut_short
    from dag_run run
    where run.job_id = :job_id and run.state = 'running'
    order by run.id
    """
)


def select_cut_short(tx: Tx, job_id: int) -> dict[int, bool]:
    """Return for each run in a job's window whether something in it is unfinished or ended badly."""
    return {row.id: row.cut_short for row in tx.execute(_SELECT_CUT_SHORT, {"job_id": job_id})}


_LOCK = statement(
    """
    with date as (
        select job_id, dag_id, ordinal from job_run_date
        where dag_run_id = any(cast(:dag_run_ids as bigint[])) and active
        order by job_id, dag_id, ordinal
        for no key update
    )
    select run.id
    from (select count(*) from date) dates_locked
    cross join dag_run run
    where run.id = any(cast(:dag_run_ids as bigint[]))
    order by run.id
    for no key update of run
    """
)


def lock_runs(tx: Tx, dag_run_ids: Sequence[int]) -> None:
    """Lock runs and their dates to the end of the transaction, whatever their state.

    Taken by whoever ends a run, before the last look at its task instances, and by whoever clears some of it: so the one comes
    wholly before the other, and no run ends with something in it that is not over (S2.14).
    """
    if dag_run_ids:
        tx.execute(_LOCK, {"dag_run_ids": list(dag_run_ids)})


_FINISH = statement(
    """
    with outcome as (
        select * from unnest(cast(:dag_run_ids as bigint[]), cast(:states as text[])) as o (dag_run_id, state)
        where state in ('success', 'failed')
    ),
    going_on as materialized (
        select distinct ti.dag_run_id
        from unnest(cast(:ti_ids as bigint[]), cast(:ti_states as text[])) as seen (id, state)
        join task_instance ti on ti.id = seen.id
        where ti.state <> seen.state
    ),
    date as (
        select job_id, dag_id, ordinal, dag_run_id from job_run_date
        where dag_run_id = any(cast(:dag_run_ids as bigint[])) and active
        order by job_id, dag_id, ordinal
        for no key update
    ),
    running as (
        select run.id, outcome.state
        from (select count(*) from date) dates_locked
        cross join dag_run run
        join outcome on outcome.dag_run_id = run.id
        where run.state = 'running' and run.id not in (select dag_run_id from going_on)
        order by run.id
        for no key update of run
    ),
    finished as (
        update dag_run run
        set state = running.state, end_date = statement_timestamp(), job_id = null
        from running
        where run.id = running.id
        returning run.id
    ),
    marked as (
        update job_run_date
        set progress = 'finished'
        from date
        join finished on finished.id = date.dag_run_id
        where job_run_date.job_id = date.job_id and job_run_date.dag_id = date.dag_id
          and job_run_date.ordinal = date.ordinal
    )
    select id, true as is_finished from finished
    union all
    select dag_run_id, false from going_on
    """
)


class FinishedRuns(NamedTuple):
    """What became of runs that were to end, by id."""

    finished: set[int]
    #: Their task instances are not as they were seen: nothing is written of them.
    going_on: set[int]


def finish_runs_if_running(
    tx: Tx, outcomes: Iterable[tuple[int, DagRunState]], *, seen: Iterable[tuple[int, str]] = ()
) -> FinishedRuns:
    """Write the final state of `running` runs with their end_date (S2.14), and their dates as finished.

    From then on no job drives them. A run goes on of which a task instance is not in the state in which it was `seen`, given as
    (task instance id, state); of a run without any nothing is asked (S0.1).
    """
    given, as_seen = list(outcomes), list(seen)
    if not given:
        return FinishedRuns(set(), set())
    dag_run_ids, states = columns(given)
    ti_ids, ti_states = columns(as_seen) if as_seen else ([], [])
    parameters = {"dag_run_ids": dag_run_ids, "states": states, "ti_ids": ti_ids, "ti_states": ti_states}
    ends = dict(fetch(tx.execute(_FINISH, parameters)))
    finished = {run_id for run_id, is_finished in ends.items() if is_finished}
    return FinishedRuns(finished, ends.keys() - finished)
