"""New rows of `job`."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from sqlalchemy import insert

from backfill.models import job
from backfill.states import JobState
from backfill.store.database import Tx


class NewJob(NamedTuple):
    """A job as it is created: `queued`, held by nobody."""

    job_type: str
    dag_id: str
    params: dict[str, Any]
    dag_pickle_hash: str | None
    dag_source: dict[str, Any]
    total_runs: int
    submitted: bool
    hostname: str | None
    unixname: str | None


_INSERT = insert(job).returning(job.c.id)


def insert_job(tx: Tx, new: NewJob) -> int:
    """Write a `queued` job and return its id."""
    return cast("int", tx.execute(_INSERT, {**new._asdict(), "state": JobState.QUEUED.value}).scalar_one())
