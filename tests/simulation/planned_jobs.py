"""A job of a simulated world: what it plays, and how its rows are made and read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scripts import DAY, FIRST, Script

from backfill.dag import DAG
from backfill.jobs import BackfillJob
from backfill.jobs.compiled import CompiledRequest
from backfill.jobs.request import BackfillRequest
from backfill.store import dags, dates, job_rows
from backfill.store.dates import PlannedDate
from backfill.store.job_rows import NewJob


@dataclass(frozen=True)
class PlannedJob:
    """One job, and the script that its tasks follow."""

    script: Script
    dag: DAG
    id: int
    rows_per_run: int

    @classmethod
    def create(cls, engine: Any, script: Script) -> PlannedJob:
        """Write the job with its dates, as `backfill.jobs.creation` does."""
        dag, days = script.dag(), [FIRST + day * DAY for day in script.all_days]
        request = BackfillRequest(
            start_date=min(days),
            end_date=max(days),
            continue_on_failures=script.continue_on_failures,
            run_backwards=script.run_backwards,
            ignore_first_depends_on_past=True,
        )
        compiled = CompiledRequest.compile(dag, request, "backfill")
        planned = [
            PlannedDate(ordinal, date, date, date + DAY, "create")
            for ordinal, date in enumerate(reversed(days) if script.run_backwards else days)
        ]
        params = {**request.to_json(), "task_ids": list(compiled.graph.task_ids), "rows_per_run": compiled.rows_per_run}
        with engine.begin() as tx:
            dags.touch_dag(tx, dag.dag_id, None)
            new = NewJob("BackfillJob", dag.dag_id, params, None, {}, len(planned), False, "here", "me")
            job_id = job_rows.insert_job(tx, new)
            dates.own_dates(tx, job_id, dag.dag_id, planned)
        return cls(script, dag, job_id, compiled.rows_per_run)

    def read(self, row: Any) -> BackfillJob:
        """Return the job as its row says, as `backfill.jobs.creation.read_job` does."""
        job = BackfillJob.from_request(self.dag, BackfillRequest.from_json(row.params))
        job.id, job.params, job.total_runs = row.id, row.params, row.total_runs
        job.dag_pickle_hash, job.dag_source = None, {}
        return job
