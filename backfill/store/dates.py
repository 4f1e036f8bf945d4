"""Run dates: which job owns them (S2.6), what is found at them (S2.7), and how far each has come."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from backfill.clock import as_utc
from backfill.exceptions import DateOwned
from backfill.store.alignment import TaskTemplate
from backfill.store.database import Tx
from backfill.store.prepared import PLANNED_EACH_TIME
from backfill.store.statements import columns, read, statement

Action = Literal["create", "take", "clear", "done"]
Progress = Literal["pending", "admitted", "finished"]


class PlannedDate(NamedTuple):
    """One run date of a job, and what happens when it comes up (S2.7)."""

    #: Place in the job's direction, from 0.
    ordinal: int
    logical_date: datetime
    data_interval_start: datetime
    data_interval_end: datetime
    action: Action
    #: The run that is there already.
    dag_run_id: int | None = None
    #: That run counts for `max_active_runs` now, whoever runs it: admitting the date needs no further place (S2.13).
    counts_as_running: bool = False


class DateFound(NamedTuple):
    """What is found at one date before a job takes it on: a run, an owner, or both."""

    logical_date: datetime
    dag_run_id: int | None
    run_id: str | None
    #: A `DagRunState` word.
    state: str | None
    run_type: str | None
    #: Task instances that a run in this state lacks or that are not finished; of the tasks asked for.
    unfinished: int
    #: Task instances in `failed` or `upstream_failed`; of the tasks asked for.
    ended_badly: int
    #: The active job that owns the date.
    owner_job_id: int | None
    owner_state: str | None


# In the order of the dates whatever the job's direction, so that of two jobs that claim the same dates one waits for the other.
_OWN = statement(
    """
    insert into job_run_date
        (job_id, dag_id, ordinal, logical_date, data_interval_start, data_interval_end, action, dag_run_id)
    select :job_id, :dag_id, planned.*
    from unnest(
        cast(:ordinals as integer[]), cast(:logical_dates as timestamptz[]), cast(:starts as timestamptz[]),
        cast(:ends as timestamptz[]), cast(:actions as text[]), cast(:dag_run_ids as bigint[])
    ) as planned (ordinal, logical_date, data_interval_start, data_interval_end, action, dag_run_id)
    order by planned.logical_date
    on conflict (dag_id, logical_date) where active do nothing
    returning logical_date
    """
)


def own_dates(tx: Tx, job_id: int, dag_id: str, dates: Sequence[PlannedDate]) -> None:
    """Write `dates` as those of the job, which owns them from now on (S1.3).

    Raises `DateOwned`, naming date and owner, if another active job owns one of them; the caller must roll back then.
    """
    if not dates:
        return
    ordinals, logical_dates, starts, ends, actions, dag_run_ids, _ = columns(dates)
    parameters = {
        "job_id": job_id,
        "dag_id": dag_id,
        "ordinals": ordinals,
        "logical_dates": logical_dates,
        "starts": starts,
        "ends": ends,
        "actions": actions,
        "dag_run_ids": dag_run_ids,
    }
    owned = {row.logical_date for row in tx.execute(_OWN, parameters)}
    if len(owned) < len(dates):
        _raise_owned(tx, dag_id, [date for date in logical_dates if date not in owned])


_SELECT_OWNERS = statement(
    """
    select logical_date, job_id from job_run_date
    where dag_id = :dag_id and logical_date = any(cast(:dates as timestamptz[])) and active
    order by logical_date
    limit 1
    """
)


def _raise_owned(tx: Tx, dag_id: str, dates: Sequence[datetime]) -> None:
    row = tx.execute(_SELECT_OWNERS, {"dag_id": dag_id, "dates": list(dates)}).one_or_none()
    if row is None:
        raise DateOwned(
            f"{as_utc(min(dates)).isoformat()} of DAG {dag_id!r} was owned by a job that has just ended; repeat the command."
        )
    raise DateOwned(
        f"Job {row.job_id} owns {as_utc(row.logical_date).isoformat()} of DAG {dag_id!r}; "
        f"wait for it (`backfill status {row.job_id}`) or leave the date out."
    )


# What each run has of the rows expected is counted twice over, first for each expected row, since a row that stands for a mapping
# expanded at run time may have any number of task instances.
_SELECT_FOUND = statement(
    """
    with asked as (
        select unnest(cast(:dates as timestamptz[])) as logical_date
    ),
    found as (
        select asked.logical_date, run.id, run.run_id, run.state, run.run_type, owner.job_id as owner_job_id,
               job.state as owner_state
        from asked
        left join dag_run run on run.dag_id = :dag_id and run.logical_date = asked.logical_date
        left join job_run_date owner
            on owner.dag_id = :dag_id and owner.logical_date = asked.logical_date and owner.active
        left join job on job.id = owner.job_id
        where run.id is not null or owner.job_id is not null
    ),
    template as (
        select * from unnest(cast(:task_ids as text[]), cast(:map_indexes as integer[]), cast(:dynamic as boolean[]))
            with ordinality as t (task_id, map_index, dynamic, place)
    ),
    present as (
        select ti.dag_run_id, template.place,
               count(*) filter (where ti.state in $unfinished) as unfinished,
               count(*) filter (where ti.state in $ended_badly) as ended_badly
        from found
        join task_instance ti on ti.dag_run_id = found.id
        join template
            on template.task_id = ti.task_id and (template.map_index = ti.map_index or (template.dynamic and ti.map_index >= 0))
        where ti.state <> 'removed'
        group by ti.dag_run_id, template.place
    ),
    counted as (
        select dag_run_id, count(*) as present, sum(unfinished)::bigint as unfinished, sum(ended_badly)::bigint as ended_badly
        from present
        group by dag_run_id
    )
    select found.logical_date, found.id, found.run_id, found.state, found.run_type,
           case when found.id is null then 0
                else coalesce(counted.unfinished, 0) + :expected - coalesce(counted.present, 0)
                     + (select count(*) from task_instance ti
                        where ti.dag_run_id = found.id and ti.task_id = any(cast(:other_tasks as text[]))
                          and ti.state in $unfinished) end as unfinished,
           coalesce(counted.ended_badly, 0) as ended_badly,
           found.owner_job_id, found.owner_state
    from found
    left join counted on counted.dag_run_id = found.id
    order by found.logical_date
    """
)


def select_dates_found(
    tx: Tx,
    dag_id: str,
    dates: Sequence[datetime],
    templates: Sequence[TaskTemplate],
    *,
    other_tasks: Collection[str] = (),
) -> list[DateFound]:
    """Return what S2.6 and S2.7 ask about each of `dates` at which there is a run or an owner, in their order.

    `templates` are the rows that each run should have, of the chosen tasks. Of the `other_tasks` of the DAG, which need no row,
    unfinished ones count too: their run is not done with.
    """
    parameters = {
        "dag_id": dag_id,
        "dates": list(dates),
        "task_ids": [template.task_id for template in templates],
        "map_indexes": [template.map_index for template in templates],
        "dynamic": [template.dynamic for template in templates],
        "expected": len(templates),
        "other_tasks": list(other_tasks),
    }
    return read(DateFound, tx.execute(_SELECT_FOUND, parameters))


_SELECT_PENDING = statement(
    """
    with date as materialized (
        select * from job_run_date
        where job_id = :job_id and dag_id = coalesce(:dag_id, (select dag_id from job where id = :job_id))
          and progress = 'pending'
        order by ordinal
        limit cast(:limit as bigint)
    )
    select date.ordinal, date.logical_date, date.data_interval_start, date.data_interval_end, date.action,
           coalesce(run.id, date.dag_run_id) as dag_run_id,
           coalesce(run.state = 'running' and not run.external_trigger, false) as counts_as_running
    from date
    left join lateral (
        select * from dag_run run where run.dag_id = date.dag_id and run.logical_date = date.logical_date
        offset 0  -- one by one: the planner cannot know how few dates are left
    ) run on true
    order by date.ordinal
    """
)


def pending_dates(tx: Tx, job_id: int, limit: int | None, *, dag_id: str | None = None) -> list[PlannedDate]:
    """Return the next `limit` dates (None: all) that were not admitted yet, in the order of admission (S2.13).

    `dag_id` is that of a subdag whose dates the job owns too; by default the job's own.
    """
    return read(PlannedDate, tx.execute(_SELECT_PENDING, {"job_id": job_id, "dag_id": dag_id, "limit": limit}))


_MARK = statement(
    """
    with marked as (
        select date.*, mark.dag_run_id
        from (
            select * from unnest(cast(:ordinals as integer[]), cast(:dag_run_ids as bigint[])) as m (ordinal, dag_run_id)
            order by ordinal
        ) mark
        cross join lateral (
            select date.job_id, date.dag_id, date.ordinal from job_run_date date
            where date.job_id = :job_id and date.dag_id = coalesce(:dag_id, (select dag_id from job where id = :job_id))
              and date.ordinal = mark.ordinal and date.active
            for no key update
        ) date
    )
    update job_run_date date
    set progress = :progress, dag_run_id = coalesce(marked.dag_run_id, date.dag_run_id)
    from marked
    where date.job_id = marked.job_id and date.dag_id = marked.dag_id and date.ordinal = marked.ordinal
    """
).execution_options(**PLANNED_EACH_TIME)


def mark_dates(
    tx: Tx,
    job_id: int,
    ordinals: Sequence[int],
    progress: Progress,
    dag_run_ids: Sequence[int | None] | None = None,
    *,
    dag_id: str | None = None,
) -> None:
    """Write how far dates have come, and where given the run of each; nothing once the job is not active any more.

    `runs.admit_dates` and `runs.finish_runs_if_running` do so by themselves: this is for dates that count as done (S2.8).
    """
    parameters = {
        "job_id": job_id,
        "dag_id": dag_id,
        "ordinals": list(ordinals),
        "dag_run_ids": [None] * len(ordinals) if dag_run_ids is None else list(dag_run_ids),
        "progress": progress,
    }
    tx.execute(_MARK, parameters)
