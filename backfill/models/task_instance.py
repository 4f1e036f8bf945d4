"""`task_instance`, its attempts and its XComs."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from backfill.models.base import GROWING, OFTEN_UPDATED, Base
from backfill.states import TaskInstanceState

task_instance = Table(
    "task_instance",
    Base.metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("dag_run_id", BigInteger, ForeignKey("dag_run.id", ondelete="CASCADE"), nullable=False),
    Column("dag_id", Text, nullable=False),
    Column("task_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("map_index", Integer, nullable=False, server_default=text("-1")),
    Column("state", Text, nullable=False, server_default=text("'none'")),
    Column("try_number", Integer, nullable=False, server_default=text("0")),
    Column("max_tries", Integer, nullable=False, server_default=text("0")),
    #: The present try has begun and no attempt has ended it (S6.1): the next dispatch does not count one more.
    Column("try_open", Boolean, nullable=False, server_default=text("false")),
    #: The attempt id; null when voided.
    Column("external_executor_id", Uuid(as_uuid=False)),
    Column("queued_by_job_id", BigInteger),
    Column("queued_at", DateTime(timezone=True)),
    Column("start_date", DateTime(timezone=True)),
    Column("end_date", DateTime(timezone=True)),
    #: Seconds.
    Column("duration", Float),
    #: Start of the first attempt since the last clear: a rescheduling sensor's `timeout` runs from here (S6.7).
    Column("first_start_date", DateTime(timezone=True)),
    #: Retry or reschedule date (S4.1 line 7).
    Column("next_attempt_at", DateTime(timezone=True)),
    Column("heartbeat_at", DateTime(timezone=True)),
    Column("infrastructure_failures", SmallInteger, nullable=False, server_default=text("0")),
    Column("pool", Text, nullable=False),
    Column("pool_slots", Integer, nullable=False, server_default=text("1")),
    Column("queue", Text, nullable=False),
    Column("executor", Text, nullable=False, server_default=text("''")),
    Column("operator", Text, nullable=False, server_default=text("''")),
    Column("priority_weight", Integer, nullable=False, server_default=text("1")),
    Column("hostname", Text),
    Column("pid", Integer),
    #: Task ids that this branch or short circuit decided to skip (S4.8).
    Column("skips", ARRAY(Text)),
    #: Text of the last error.
    Column("error", Text),
    #: `queued` or `running`. The index is over this and not over `state`, so that a claim, which changes the state but not this,
    #: touches no index. Written as PostgreSQL keeps it.
    Column("in_flight", Boolean, Computed("state = any (array['queued'::text, 'running'::text])", persisted=True)),
    UniqueConstraint("dag_run_id", "task_id", "map_index"),
    CheckConstraint(f"state in ({', '.join(repr(str(s)) for s in TaskInstanceState)})", name="state"),
    # limits count what is in flight; the sweep and takeover read it; never larger than what runs now
    Index(
        "ix_task_instance_in_flight",
        "dag_id",
        "id",
        postgresql_where=text("in_flight"),
    ),
    postgresql_with=OFTEN_UPDATED,
)

#: One row for each attempt that a worker claimed: the history of tries (S3.26).
task_attempt = Table(
    "task_attempt",
    Base.metadata,
    Column("attempt_id", Uuid(as_uuid=False), primary_key=True),
    Column(
        "task_instance_id",
        BigInteger,
        ForeignKey("task_instance.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("try_number", Integer, nullable=False),
    Column("job_id", BigInteger),
    Column("start_date", DateTime(timezone=True), nullable=False),
    Column("end_date", DateTime(timezone=True)),
    #: How it ended: a task instance state, or `lost`; null while it runs.
    Column("outcome", Text),
    Column("hostname", Text),
    Column("pid", Integer),
    Column("error", Text),
    # the tries of one task instance
    Index("ix_task_attempt_task_instance_id", "task_instance_id"),
    postgresql_with=OFTEN_UPDATED,
)

xcom = Table(
    "xcom",
    Base.metadata,
    Column(
        "task_instance_id",
        BigInteger,
        ForeignKey("task_instance.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("key", Text, nullable=False),
    Column("value", JSONB, nullable=False),
    PrimaryKeyConstraint("task_instance_id", "key"),
    postgresql_with=GROWING,
)
