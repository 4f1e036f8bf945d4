"""`dag_run`: one run of a DAG for one logical date, whoever made it."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from backfill.models.base import GROWING, Base
from backfill.states import DagRunState, RunType

dag_run = Table(
    "dag_run",
    Base.metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("dag_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("logical_date", DateTime(timezone=True), nullable=False),
    Column("data_interval_start", DateTime(timezone=True), nullable=False),
    Column("data_interval_end", DateTime(timezone=True), nullable=False),
    Column("run_type", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("conf", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("external_trigger", Boolean, nullable=False, server_default=text("false")),
    Column("creating_job_id", BigInteger, ForeignKey("job.id", ondelete="SET NULL")),
    #: The job that drives the run, while it does.
    Column("job_id", BigInteger, ForeignKey("job.id", ondelete="SET NULL")),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("start_date", DateTime(timezone=True)),
    Column("end_date", DateTime(timezone=True)),
    #: Seconds since start_date in which nobody drove the job: no part of `dagrun_timeout` (S6.6).
    Column("idle_seconds", Float, nullable=False, server_default=text("0")),
    UniqueConstraint("dag_id", "run_id"),
    # runs by date: planning a range, the previous run of depends_on_past
    UniqueConstraint("dag_id", "logical_date"),
    CheckConstraint(f"state in ({', '.join(repr(str(s)) for s in DagRunState)})", name="state"),
    CheckConstraint(f"run_type in ({', '.join(repr(str(t)) for t in RunType)})", name="run_type"),
    # max_active_runs counts these
    Index("ix_dag_run_running", "dag_id", postgresql_where=text("state = 'running'")),
    # deleting a job finds its runs
    Index("ix_dag_run_creating_job_id", "creating_job_id"),
    Index("ix_dag_run_job_id", "job_id", postgresql_where=text("job_id is not null")),
    postgresql_with=GROWING,
)
