"""The run before a run, which `depends_on_past` and `wait_for_downstream` look at (S4.9)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from backfill.clock import as_utc
from backfill.facts import PreviousRun
from backfill.store.database import Tx
from backfill.store.prepared import PLANNED_EACH_TIME
from backfill.store.statements import statement

# The latest earlier run bounds the search for a later date that some job has yet to run: the many dates that a job has
# finished are never looked at.
_PREVIOUS = """
    with asked as (
        $asked
    ),
    previous as (
        select asked.id as asked_id, asked.logical_date as asked_date, coalesce(to_run.logical_date, made.logical_date) as logical_date
        from asked
        left join lateral (
            select run.logical_date from dag_run run
            where run.dag_id = :dag_id and run.logical_date < asked.logical_date and run.run_type <> 'manual'
            order by run.logical_date desc
            limit 1
        ) made on true
        left join lateral (
            select date.logical_date from job_run_date date
            where date.dag_id = :dag_id and date.logical_date < asked.logical_date and date.active
              and date.logical_date > coalesce(made.logical_date, '-infinity') and date.progress <> 'finished'
            order by date.logical_date desc
            limit 1
        ) to_run on true
    )
    select previous.asked_id, previous.logical_date, run.id as dag_run_id,
           coalesce((
               select true from job_run_date date
               where date.dag_id = :dag_id and date.logical_date = previous.logical_date and date.active
                 and date.progress <> 'finished'
               limit 1  -- one by one: an exists() would be answered from all dates of the job
           ), false) as driven,
           task.task_id, there.states,
           there.states is not null or exists (
               select from dag_run earlier
               join task_instance ti on ti.dag_run_id = earlier.id
               where earlier.dag_id = :dag_id and earlier.logical_date < previous.asked_date
                 and ti.task_id = task.task_id and ti.state <> 'removed'
           ) as seen
    from previous
    left join dag_run run on run.dag_id = :dag_id and run.logical_date = previous.logical_date
    left join unnest(cast(:task_ids as text[])) as task (task_id) on true
    left join lateral (
        select array_agg(ti.state) as states from task_instance ti
        where ti.dag_run_id = run.id and ti.task_id = task.task_id and ti.state <> 'removed'
    ) there on true
    where previous.logical_date is not null
"""
_SELECT_PREVIOUS = statement(
    _PREVIOUS, asked="select id, logical_date from dag_run where id = any(cast(:dag_run_ids as bigint[]))"
).execution_options(**PLANNED_EACH_TIME)
_SELECT_PREVIOUS_OF_DATES = statement(
    _PREVIOUS,
    asked="select logical_date as id, logical_date from unnest(cast(:dates as timestamptz[])) as date (logical_date)",
).execution_options(**PLANNED_EACH_TIME)


def select_previous_runs(
    tx: Tx, dag_id: str, dag_run_ids: Sequence[int], task_ids: Collection[str]
) -> dict[int, PreviousRun]:
    """Return P of S4.9, by run, for each of `dag_run_ids` that has one.

    P is the latest earlier date with a run other than a manual one, or still to be run by an active job. `task_ids` are those that depend on their past and, where that asks for them, their direct downstream tasks.
    """
    parameters = {"dag_id": dag_id, "dag_run_ids": list(dag_run_ids), "task_ids": list(task_ids)}
    return _by_asked(tx.execute(_SELECT_PREVIOUS, parameters))


def select_previous_of_dates(
    tx: Tx, dag_id: str, dates: Sequence[datetime], task_ids: Collection[str]
) -> dict[datetime, PreviousRun]:
    """Return P of S4.9, by date, for each of `dates` that has one; they need no run yet."""
    parameters = {"dag_id": dag_id, "dates": list(dates), "task_ids": list(task_ids)}
    found: dict[datetime, PreviousRun] = _by_asked(tx.execute(_SELECT_PREVIOUS_OF_DATES, parameters))
    return {as_utc(date): run for date, run in found.items()}


def _by_asked(rows: Iterable[Row[Any]]) -> dict[Any, PreviousRun]:
    by_asked: dict[Any, list[Row[Any]]] = {}
    for row in rows:
        by_asked.setdefault(row.asked_id, []).append(row)
    return {asked: _previous_run(found) for asked, found in by_asked.items()}


def _previous_run(rows: Sequence[Row[Any]]) -> PreviousRun:
    first = rows[0]
    return PreviousRun(
        logical_date=first.logical_date,
        dag_run_id=first.dag_run_id,
        driven=first.driven,
        states={row.task_id: tuple(row.states) for row in rows if row.states is not None},
        seen_before=frozenset(row.task_id for row in rows if row.seen and row.task_id is not None),
    )
