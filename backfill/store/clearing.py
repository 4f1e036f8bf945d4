"""Back to the initial state (S3.22, S3.26), and what happens to task instances of runs that are closed unfinished."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta

from backfill.facts import TaskInstanceFacts
from backfill.states import TaskInstanceState
from backfill.store.database import Tx
from backfill.store.runs import lock_runs
from backfill.store.statements import columns, read_facts, statement
from backfill.store.values import storable_text

#: How the error of a task instance begins that was skipped because `dagrun_timeout` was over.
RUN_TIMED_OUT = "dagrun_timeout of "
#: States that a clear starts from; `removed` task instances are no business of it.
CLEARED_FROM = frozenset(TaskInstanceState) - {TaskInstanceState.REMOVED}

# A message that is still on its way finds its attempt id void. An attempt that runs is left alone until it is known to be gone: its
# heartbeat ran out. A finished run goes back to `queued`, and to the job that has its date, if that is still active.
_CLEAR = statement(
    """
    with retries as (
        select * from unnest(cast(:task_ids as text[]), cast(:retries as integer[])) as r (task_id, retries)
    ),
    date as (
        select job_id, dag_id, ordinal, dag_run_id from job_run_date
        where dag_run_id = any(cast(:dag_run_ids as bigint[])) and active and progress = 'finished'
        order by job_id, dag_id, ordinal
        for no key update
    ),
    finished as (
        select run.id
        from (select count(*) from date) dates_locked
        cross join dag_run run
        where run.id = any(cast(:dag_run_ids as bigint[])) and run.state in ('success', 'failed')
        order by run.id
        for no key update of run
    ),
    dirty as (
        select ti.id, ti.external_executor_id as attempt_id, retries.retries
        from (select count(*) from finished) runs_locked
        cross join task_instance ti
        join retries on retries.task_id = ti.task_id
        where ti.dag_run_id = any(cast(:dag_run_ids as bigint[]))
          and (cast(:ti_ids as bigint[]) is null or ti.id = any(cast(:ti_ids as bigint[])))
          and ti.state = any(cast(:states as text[])) and ti.state <> 'removed'
          and (ti.state <> 'running' or coalesce(ti.heartbeat_at, '-infinity') < clock_timestamp() - cast(:timeout as interval))
        order by ti.id
        for no key update of ti
    ),
    ti as (
        update task_instance
        set state = 'none', max_tries = try_number + dirty.retries, try_open = false, external_executor_id = null,
            next_attempt_at = null, infrastructure_failures = 0, first_start_date = null, heartbeat_at = null,
            start_date = null, end_date = null, duration = null, hostname = null, pid = null, skips = null, error = null
        from dirty
        where task_instance.id = dirty.id
        returning task_instance.*
    ),
    closed as (
        update task_attempt set end_date = statement_timestamp(), outcome = 'lost'
        from dirty
        where task_attempt.attempt_id = dirty.attempt_id and task_attempt.end_date is null
    ),
    reopened as (
        update dag_run set state = 'queued', end_date = null
        from finished
        where dag_run.id = finished.id and dag_run.id in (select dag_run_id from ti)
        returning dag_run.id
    ),
    pending as (
        update job_run_date set progress = 'pending', action = 'take'
        from date
        where job_run_date.job_id = date.job_id and job_run_date.dag_id = date.dag_id and job_run_date.ordinal = date.ordinal
          and date.dag_run_id in (select id from reopened)
    )
    select $facts from ti order by ti.id
    """
)


def clear_task_instances(
    tx: Tx,
    dag_run_ids: Sequence[int],
    retries: Mapping[str, int],
    *,
    states: Collection[TaskInstanceState] = CLEARED_FROM,
    ti_ids: Sequence[int] | None = None,
    heartbeat_timeout: timedelta | None = None,
) -> list[TaskInstanceFacts]:
    """Put task instances of runs back to `none` with all their tries ahead (S3.22, S3.26), and return those that were.

    `retries` gives the tasks to clear, and the `retries` of each; `states` and `ti_ids` narrow them further. What is `running` is
    left alone, but for what gave no heartbeat for `heartbeat_timeout`. Finished runs that had something to clear become
    `queued`, and an active job that had finished them takes them again.
    """
    if not dag_run_ids or not retries:
        return []
    lock_runs(tx, dag_run_ids)
    parameters = {
        "dag_run_ids": list(dag_run_ids),
        "task_ids": list(retries),
        "retries": list(retries.values()),
        "states": list(states),
        "ti_ids": None if ti_ids is None else list(ti_ids),
        "timeout": heartbeat_timeout,
    }
    return read_facts(tx.execute(_CLEAR, parameters))


_UNSCHEDULE_CLOSED = statement(
    """
    with closed as (
        select ti.id
        from dag_run run
        join task_instance ti on ti.dag_run_id = run.id
        where run.id = any(cast(:dag_run_ids as bigint[])) and run.state in ('success', 'failed')
          and ti.state in ('scheduled', 'up_for_reschedule')
        order by ti.id
        for no key update of ti
    )
    update task_instance ti set state = 'none', try_open = false, next_attempt_at = null
    from closed
    where ti.id = closed.id
    returning ti.id
    """
)


def unschedule_if_run_closed(tx: Tx, dag_run_ids: Sequence[int]) -> set[int]:
    """Put what waits in runs that were closed unfinished back to `none` (S3.23); return the ids."""
    if not dag_run_ids:
        return set()
    return set(tx.execute(_UNSCHEDULE_CLOSED, {"dag_run_ids": list(dag_run_ids)}).scalars())


_CANCEL = statement(
    """
    with stopped as (
        select ti.id, ti.state, ti.external_executor_id as attempt_id, coalesce(ti.start_date, statement_timestamp()) as start_date
        from unnest(cast(:ti_ids as bigint[]), cast(:attempt_ids as uuid[])) as given (id, attempt_id)
        join task_instance ti on ti.id = given.id
        where ti.state in ('running', 'up_for_retry') and ti.external_executor_id is not distinct from given.attempt_id
        order by ti.id
        for no key update of ti
    ),
    failed as (
        update task_instance ti
        set state = 'failed', try_open = false, next_attempt_at = null, error = :error,
            end_date = case stopped.state when 'running' then statement_timestamp() else ti.end_date end,
            duration = case stopped.state when 'running' then extract(epoch from statement_timestamp() - stopped.start_date)
                                          else ti.duration end
        from stopped
        where ti.id = stopped.id
        returning ti.id
    ),
    closed as (
        update task_attempt set end_date = statement_timestamp(), outcome = 'failed', error = :error
        from stopped
        where task_attempt.attempt_id = stopped.attempt_id and task_attempt.end_date is null
    )
    select id from failed
    """
)


def cancel_if_current(tx: Tx, attempts: Iterable[tuple[int, str | None]], error: str) -> set[int]:
    """Fail `running` and `up_for_retry` task instances of a cancelled job, given as (id, attempt id) (S3.17).

    Called once their processes are known to be gone (S11.5). Returns the ids that were changed.
    """
    given = list(attempts)
    if not given:
        return set()
    ti_ids, attempt_ids = columns(given)
    parameters = {"ti_ids": ti_ids, "attempt_ids": attempt_ids, "error": storable_text(error)}
    return set(tx.execute(_CANCEL, parameters).scalars())


_SELECT_TO_CANCEL = statement(
    """
    select ti.id, ti.external_executor_id::text as attempt_id
    from dag_run run
    join task_instance ti on ti.dag_run_id = run.id
    where run.job_id = :job_id and run.state = 'running' and ti.state in ('running', 'up_for_retry')
    order by ti.id
    """
)


def select_to_cancel(tx: Tx, job_id: int) -> list[tuple[int, str | None]]:
    """Return, as (id, attempt id), what the end of a cancelled job fails in its runs (S3.17)."""
    return [(row.id, row.attempt_id) for row in tx.execute(_SELECT_TO_CANCEL, {"job_id": job_id})]


_TIME_OUT = statement(
    """
    with open_ones as (
        select ti.id, ti.state, ti.external_executor_id as attempt_id,
               case ti.state when 'running' then coalesce(ti.start_date, statement_timestamp())
                             else statement_timestamp() end as start_date
        from task_instance ti
        join dag_run run on run.id = ti.dag_run_id
        left join job on job.id = run.job_id
        where ti.dag_run_id = any(cast(:dag_run_ids as bigint[])) and ti.state in $unfinished
          and (job.params -> 'task_ids' is null or job.dag_id <> ti.dag_id or job.params -> 'task_ids' ? ti.task_id)
        order by ti.id
        for no key update of ti
    ),
    ti as (
        update task_instance
        set state = 'skipped', try_open = false, external_executor_id = null, next_attempt_at = null, skips = null,
            start_date = open_ones.start_date, end_date = statement_timestamp(),
            duration = extract(epoch from statement_timestamp() - open_ones.start_date), error = :error
        from open_ones
        where task_instance.id = open_ones.id
        returning task_instance.*
    ),
    closed as (
        update task_attempt set end_date = statement_timestamp(), outcome = 'skipped', error = :error
        from open_ones
        where task_attempt.attempt_id = open_ones.attempt_id and task_attempt.end_date is null
    )
    select $facts from ti order by ti.id
    """
)


def skip_if_unfinished(tx: Tx, dag_run_ids: Sequence[int], error: str) -> list[TaskInstanceFacts]:
    """Skip all that is unfinished of a job's tasks in runs that have to end, as their `dagrun_timeout` is over (S3.18, S13.6); return the rows.

    Attempt ids are voided, so that a process that runs is stopped by its worker (S7.6). Rows and attempts keep the reason as
    their `error`: by one that begins with `RUN_TIMED_OUT` `report.select_timed_out` knows the runs again.
    """
    if not dag_run_ids:
        return []
    parameters = {"dag_run_ids": list(dag_run_ids), "error": storable_text(error)}
    return read_facts(tx.execute(_TIME_OUT, parameters))
