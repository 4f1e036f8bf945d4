"""SQLAlchemy tables: columns, constraints, indexes (each with the query that it serves); no behaviour."""

from backfill.models.base import Base
from backfill.models.catalog import dag, dag_pickle, slot_pool
from backfill.models.dag_run import dag_run
from backfill.models.job import job, job_run_date
from backfill.models.task_instance import task_attempt, task_instance, xcom

__all__ = [
    "Base",
    "dag",
    "dag_pickle",
    "dag_run",
    "job",
    "job_run_date",
    "slot_pool",
    "task_attempt",
    "task_instance",
    "xcom",
]
