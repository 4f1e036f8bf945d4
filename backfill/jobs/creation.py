"""A job comes into being: every check first, then its row and all its dates in one transaction (S1.2, S1.3)."""

from __future__ import annotations

from collections.abc import Callable
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
from backfill.jobs.checks import CheckedRequest, check_request
from backfill.jobs.clear import ClearCount, ClearScope, clear, count_clearable
from backfill.jobs.planning import DatePlan, resolve_range
from backfill.states import JobState
from backfill.store import dags, dates, jobs, leases, pickles
from backfill.store.database import Tx, database_now, repeat
from backfill.store.job_rows import NewJob, insert_job

#: Asks the operator whether that may be cleared before the job begins; raises if not.
ConfirmReset = Callable[[ClearScope, ClearCount], None]


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
    confirm_reset: ConfirmReset | None = None,
) -> CreatedJob:
    """Check everything that can be refused, then write `job`, its dates and its DAG, in one transaction (S1.2, S1.3).

    With a `holder` the job is `running` under its lease at once, without one it is `queued` for a coordinator. With `confirm_reset`
    the same transaction clears what is chosen in the range, if that agrees (`--reset-dagruns`). Raises `UsageError` and
    `RefusedError` and their kin; a refused job leaves nothing behind.
    """
    draft = _Draft(
        job=job,
        checked=check_request(_dag_of(job), job.request, settings),
        settings=settings,
        frozen=frozen,
        dag_source=dag_source,
        holder=holder,
        reset=confirm_reset is not None,
    )
    if confirm_reset is not None:
        scope, count = repeat(engine, draft.look)  # whoever is asked must not keep a transaction open
        if count.task_instances:
            confirm_reset(scope, count)
    return repeat(engine, draft.write)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A job on its way into the database, after the checks that need none."""

    job: BackfillJob
    checked: CheckedRequest
    settings: Settings
    frozen: FrozenDag | None
    dag_source: dict[str, Any]
    holder: str | None
    #: What is chosen in the range is cleared with the job's creation.
    reset: bool

    @property
    def dag(self) -> DAG:
        """The DAG of the job."""
        return self.checked.dag

    def look(self, tx: Tx) -> tuple[ClearScope, ClearCount]:
        """Check what needs the database, and return what the job would clear."""
        self._check(tx)
        scope = self._reset_scope(tx)
        return scope, count_clearable(tx, scope, self.settings.task.heartbeat_timeout)

    def write(self, tx: Tx) -> CreatedJob:
        """Check what needs the database, then write everything: locks are taken in the order job, dates, runs, task instances."""
        plan = self._check(tx)
        frozen, dag = self.frozen, self.dag
        if frozen is not None:
            pickles.save_pickle(tx, frozen.hash, frozen.dag_id, frozen.payload, frozen.signature, frozen.python_version)
        dags.touch_dag(tx, dag.dag_id, dag.fileloc)
        job_id = insert_job(tx, self._row(plan))
        dates.own_dates(tx, job_id, dag.dag_id, plan.dates)
        for name, planned in plan.subdags.items():
            dates.own_dates(tx, job_id, name, planned)
        return CreatedJob(job_id, (*plan.notes, *self._clear(tx)), self._claim(tx, job_id))

    def _check(self, tx: Tx) -> DatePlan:
        return self.checked.plan(tx, reset=self.reset)

    def _row(self, plan: DatePlan) -> NewJob:
        asked = self.job.request.to_json()
        return NewJob(
            job_type="BackfillJob",
            dag_id=self.dag.dag_id,
            params={
                **asked,
                "task_ids": list(self.checked.graph.task_ids),
                "rows_per_run": self.checked.rows_per_run,
                **self._params_of_subdags(),
            },
            dag_pickle_hash=self.frozen.hash if self.frozen else None,
            dag_source=self.dag_source,
            total_runs=len(plan.dates),
            submitted=self.holder is None,
            hostname=self.job.hostname,
            unixname=self.job.unixname,
        )

    def _params_of_subdags(self) -> dict[str, Any]:
        """Return what reports need to know of subdags: how many rows each has in a run, and the order of all tasks (S9.5, S9.7)."""
        if not self.checked.subdags:
            return {}
        return {
            "subdag_rows": {each.dag.dag_id: len(each.templates) for each in self.checked.subdags},
            "order": self.checked.order,
        }

    def _reset_scope(self, tx: Tx) -> ClearScope:
        start, end = resolve_range(self.dag, self.job.request, database_now(tx))
        return ClearScope(dag=self.dag, start=start, end=end, task_ids=frozenset(self.checked.graph.task_ids))

    def _clear(self, tx: Tx) -> tuple[str, ...]:
        if not self.reset:
            return ()
        cleared = clear(tx, self._reset_scope(tx), self.settings.task.heartbeat_timeout)
        return (f"Cleared {cleared} first.",) if cleared.task_instances else ()

    def _claim(self, tx: Tx, job_id: int) -> int | None:
        if self.holder is None:
            return None
        epoch = leases.claim_lease_if_free(tx, job_id, self.holder, self.settings.lease_timeout, {JobState.QUEUED})
        jobs.set_job_state_if(tx, job_id, {JobState.QUEUED}, JobState.RUNNING)
        return epoch


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
