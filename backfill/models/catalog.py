"""`dag`, `dag_pickle` and `slot_pool`: what jobs refer to."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    Table,
    Text,
    func,
    text,
)

from backfill.models.base import Base

#: One row per DAG that a job was made for. Its row lock guards `max_active_tasks` and `max_active_runs` (S5.1).
dag = Table(
    "dag",
    Base.metadata,
    Column("dag_id", Text, primary_key=True),
    Column("fileloc", Text),
    Column("last_used_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

#: Frozen DAGs, stored once by content hash.
dag_pickle = Table(
    "dag_pickle",
    Base.metadata,
    Column("hash", Text, primary_key=True),
    Column("dag_id", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("signature", Text, nullable=False),
    #: `major.minor` of the Python that froze it; others refuse to load it.
    Column("python_version", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

#: Pools. Its row lock guards the pool's slots (S5.1).
slot_pool = Table(
    "slot_pool",
    Base.metadata,
    Column("pool", Text, primary_key=True),
    #: -1 is unlimited, 0 is closed.
    Column("slots", Integer, nullable=False),
    Column("description", Text, nullable=False, server_default=text("''")),
    CheckConstraint("slots >= -1", name="slots"),
)
