"""What a clear of a range finds to clear, before anybody is asked whether it should."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from backfill.states import TaskInstanceState
from backfill.store.database import Tx
from backfill.store.statements import read, statement


class Clearable(NamedTuple):
    """A task instance in the range of a clear."""

    id: int
    dag_run_id: int
    task_id: str
    #: Cleared because a task instance of the same run is that needs it: its setup or teardown.
    companion: bool
    #: Its attempt runs and gives its heartbeat: it is left alone.
    alive: bool
    #: Of its run.
    logical_date: datetime


_SELECT = statement(
    """
    with found as materialized (
        select ti.id, ti.dag_run_id, ti.task_id, ti.state, run.logical_date,
               ti.state = 'running' and coalesce(ti.heartbeat_at, '-infinity')
                   >= clock_timestamp() - cast(:timeout as interval) as alive
        from dag_run run
        join task_instance ti on ti.dag_run_id = run.id
        where run.dag_id = :dag_id and run.logical_date between :start and :end
          and (cast(:dates as timestamptz[]) is null or run.logical_date = any(cast(:dates as timestamptz[])))
    ),
    matched as materialized (
        select * from found
        where task_id = any(cast(:task_ids as text[])) and state = any(cast(:states as text[]))
    ),
    needed as (
        select distinct matched.dag_run_id, pair.companion
        from matched
        join unnest(cast(:of_tasks as text[]), cast(:companions as text[])) as pair (task_id, companion)
            on pair.task_id = matched.task_id
        where not matched.alive
    )
    select id, dag_run_id, task_id, false as companion, alive, logical_date from matched
    union all
    select found.id, found.dag_run_id, found.task_id, true, found.alive, found.logical_date
    from needed
    join found on found.dag_run_id = needed.dag_run_id and found.task_id = needed.companion
    where found.state = any(cast(:all_states as text[])) and found.id not in (select id from matched)
    order by id
    """
)


def select_clearable(
    tx: Tx,
    dag_id: str,
    start: datetime,
    end: datetime,
    *,
    task_ids: Collection[str],
    states: Collection[TaskInstanceState],
    companions: Mapping[str, Collection[str]],
    companion_states: Collection[TaskInstanceState],
    heartbeat_timeout: timedelta,
    dates: Collection[datetime] | None = None,
) -> list[Clearable]:
    """Return the task instances of `task_ids` that are in one of `states`, in runs of any type from `start` to `end`, both included.

    With each come those of its `companions`, by task id, in the same run and in one of `companion_states`. An attempt is alive if it gave
    a heartbeat within `heartbeat_timeout`. `dates` narrow the range further.
    """
    pairs = [(task_id, companion) for task_id, others in companions.items() for companion in sorted(others)]
    parameters = {
        "dag_id": dag_id,
        "start": start,
        "end": end,
        "task_ids": list(task_ids),
        "states": list(states),
        "of_tasks": [task_id for task_id, _ in pairs],
        "companions": [companion for _, companion in pairs],
        "all_states": list(companion_states),
        "timeout": heartbeat_timeout,
        "dates": None if dates is None else list(dates),
    }
    return read(Clearable, tx.execute(_SELECT, parameters))
