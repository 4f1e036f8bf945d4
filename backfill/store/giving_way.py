"""A run that has nothing in flight leaves the window again, for an earlier date to have its place (S2.13)."""

from __future__ import annotations

from backfill.store.database import Tx
from backfill.store.statements import statement

_GIVE_BACK = statement(
    """
    with date as (
        select job_id, dag_id, ordinal, dag_run_id from job_run_date
        where dag_run_id = :dag_run_id and active and progress = 'admitted'
        order by job_id, dag_id, ordinal
        for no key update
    ),
    run as (
        select run.id
        from (select count(*) from date) dates_locked
        cross join dag_run run
        where run.id = :dag_run_id and run.state = 'running' and run.job_id = :job_id and exists (select from date)
          and not exists (
              select from task_instance ti where ti.dag_run_id = run.id and ti.state in ('queued', 'running')
          )
          and not exists (select from dag_run earlier where earlier.id = :earlier_id and earlier.state = 'running')
        for no key update of run
    ),
    queued as (
        update dag_run set state = 'queued', job_id = null
        from run
        where dag_run.id = run.id
        returning dag_run.id
    )
    update job_run_date
    set progress = 'pending', action = 'take'
    from date
    join queued on queued.id = date.dag_run_id
    where job_run_date.job_id = date.job_id and job_run_date.dag_id = date.dag_id and job_run_date.ordinal = date.ordinal
    returning job_run_date.dag_run_id
    """
)


def give_back_if_idle(tx: Tx, job_id: int, dag_run_id: int, *, in_favour_of: int | None) -> bool:
    """Put a `running` run of the job back to `queued` and its date back among the pending ones; return whether that was done.

    Nothing is written if something of it is in flight, or if the run `in_favour_of` which it is done, where there is one, is
    running already, whoever runs it. What the run has done stays, and is not done again when its date comes up.
    """
    parameters = {"job_id": job_id, "dag_run_id": dag_run_id, "earlier_id": in_favour_of}
    return bool(list(tx.execute(_GIVE_BACK, parameters).scalars()))
