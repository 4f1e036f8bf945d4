"""A job comes into being: every check first, then its row and all its dates in one transaction (S1.2, S1.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from backfill.config import Settings
from backfill.dag import DAG
from backfill.dag.freeze import FrozenDag
from backfill.exceptions import UsageError
from backfill.jobs.backfill_job import BackfillJob
from backfill.jobs.base_job import BaseJob
from backfill.jobs.checks import check_request
from backfill.states import JobState
from backfill.store import dags, dates, jobs, leases, pickles
from backfill.store.database import Tx, repeat
from backfill.store.job_rows import NewJob, insert_job


@dataclass(frozen=True, slots=True)
class CreatedJob:
    """A job whose row is written, with notes for the operator on dates that were left out."""

    job_id: int
    notes: tuple[str, ...]
    #: The lease under which the creating process may drive it; None if it was submitted.
    epoch: int | None


def create(
    job: BackfillJob,
    engine: Engine,
    settings: Settings,
    *,
    frozen: FrozenDag | None,
    dag_source: dict[str, Any],
    holder: str | None,
) -> CreatedJob:
    """Check everything that can be refused, then write `job`, its dates and its DAG, in one transaction (S1.2, S1.3).

    With a `holder` the job is `running` under its lease at once, without one it is `queued` for a coordinator. Raises
    `UsageError` and `RefusedError` and their kin; a refused job leaves nothing behind.
    """
    checked = check_request(_dag_of(job), job.request, settings)
    dag, request = checked.dag, checked.request

    def write(tx: Tx) -> CreatedJob:
        plan = checked.plan(tx)
        if frozen is not None:
            pickles.save_pickle(tx, frozen.hash, frozen.dag_id, frozen.payload, frozen.signature, frozen.python_version)
        dags.touch_dag(tx, dag.dag_id, dag.fileloc)
        job_id = insert_job(
            tx,
            NewJob(
                job_type="BackfillJob",
                dag_id=dag.dag_id,
                params={
                    **request.to_json(),
                    "task_ids": list(checked.graph.task_ids),
                    "rows_per_run": len(checked.templates),
                },
                dag_pickle_hash=frozen.hash if frozen else None,
                dag_source=dag_source,
                total_runs=len(plan.dates),
                submitted=holder is None,
                hostname=job.hostname,
                unixname=job.unixname,
            ),
        )
        dates.own_dates(tx, job_id, dag.dag_id, plan.dates)
        epoch = None
        if holder is not None:
            epoch = leases.claim_lease_if_free(tx, job_id, holder, settings.lease_timeout, {JobState.QUEUED})
            jobs.set_job_state_if(tx, job_id, {JobState.QUEUED}, JobState.RUNNING)
        return CreatedJob(job_id, plan.notes, epoch)

    return repeat(engine, write)


def read_job(engine: Engine, job_id: int) -> BackfillJob:
    """Return a job as its row says, without its DAG; `UsageError` if there is none of that id."""
    with Session(engine, expire_on_commit=False) as session:
        job = session.get(BaseJob, job_id)
        if not isinstance(job, BackfillJob):
            raise UsageError(f"There is no job {job_id}; `backfill list` shows those that exist.")
        session.expunge(job)
    return job


def _dag_of(job: BackfillJob) -> DAG:
    if job.dag is None:
        raise ValueError("a job read from its row cannot be created again")
    return job.dag
