"""What alembic runs to reach the database: the connection comes from `backfill.migrations.upgrade`, with its transaction."""

from __future__ import annotations

from alembic import context

from backfill.migrations import VERSION_TABLE
from backfill.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
)
context.run_migrations()
