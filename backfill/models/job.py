"""`job`: one backfill, its parameters and its lease. `backfill.jobs` maps `BaseJob` and `BackfillJob` to this table."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from backfill.models.base import GROWING, Base
from backfill.states import JobState

job = Table(
    "job",
    Base.metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("job_type", Text, nullable=False),
    Column("dag_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    #: All that `BackfillJob` was called with: enough to go on with the job (S1.3).
    Column("params", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("dag_pickle_hash", Text, ForeignKey("dag_pickle.hash")),
    #: File, its content hash and the folder it was found in, where the DAG came from a file.
    Column("dag_source", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("total_runs", Integer, nullable=False, server_default=text("0")),
    #: Made by `submit`: a coordinator may take it by itself (S1.5).
    Column("submitted", Boolean, nullable=False, server_default=text("false")),
    Column("cancel_requested", Boolean, nullable=False, server_default=text("false")),
    #: Names the process that drives the job; null when nobody does (S1.4).
    Column("lease_holder", Text),
    #: Raised by each takeover; a write under an older epoch changes nothing.
    Column("lease_epoch", BigInteger, nullable=False, server_default=text("0")),
    Column("latest_heartbeat", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("start_date", DateTime(timezone=True)),
    Column("end_date", DateTime(timezone=True)),
    Column("hostname", Text),
    Column("unixname", Text),
    #: Text of an internal error that paused the job.
    Column("error", Text),
    CheckConstraint(f"state in ({', '.join(repr(str(s)) for s in JobState)})", name="state"),
    # the coordinator looks for jobs to take
    Index("ix_job_active", "id", postgresql_where=text("state in ('queued', 'running', 'paused')")),
)

#: The dates of each job in the order of admission, and who owns them (S1.3, S2.6).
job_run_date = Table(
    "job_run_date",
    Base.metadata,
    Column("job_id", BigInteger, ForeignKey("job.id", ondelete="CASCADE"), nullable=False),
    Column("dag_id", Text, nullable=False),
    #: Place in the job's direction, from 0.
    Column("ordinal", Integer, nullable=False),
    Column("logical_date", DateTime(timezone=True), nullable=False),
    Column("data_interval_start", DateTime(timezone=True), nullable=False),
    Column("data_interval_end", DateTime(timezone=True), nullable=False),
    #: What happens when the date comes up (S2.7): create, take, clear or done.
    Column("action", Text, nullable=False),
    #: The run, once admitted (or found, where it counts as done).
    Column("dag_run_id", BigInteger, ForeignKey("dag_run.id", ondelete="SET NULL")),
    #: pending, admitted, finished
    Column("progress", Text, nullable=False, server_default=text("'pending'")),
    #: True while the job is active: it owns the date.
    Column("active", Boolean, nullable=False, server_default=text("true")),
    PrimaryKeyConstraint("job_id", "dag_id", "ordinal"),
    CheckConstraint("action in ('create', 'take', 'clear', 'done')", name="action"),
    CheckConstraint("progress in ('pending', 'admitted', 'finished')", name="progress"),
    # each date of a DAG belongs to at most one active job
    Index("uq_job_run_date_owner", "dag_id", "logical_date", unique=True, postgresql_where=text("active")),
    # a run's deletion finds its dates; the owner of a run is looked up by run
    Index("ix_job_run_date_dag_run_id", "dag_run_id"),
    # the next dates to admit, however many were admitted before (store.dates.pending_dates)
    Index("ix_job_run_date_pending", "job_id", "dag_id", "ordinal", postgresql_where=text("progress = 'pending'")),
    postgresql_with=GROWING,
)
