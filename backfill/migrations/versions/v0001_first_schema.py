"""The first schema: jobs and their dates, DAG runs, task instances with attempts and XComs, frozen DAGs, pools."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables and the default pool."""
    _create_dag()
    _create_dag_pickle()
    _create_slot_pool()
    _create_job()
    _create_dag_run()
    _create_job_run_date()
    _create_task_instance()
    _create_task_attempt()
    _create_xcom()
    _add_default_pool()


def _time(name: str, *, nullable: bool = True) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _now(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)


def _json(name: str) -> sa.Column[object]:
    return sa.Column(name, postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False)


def _create_dag() -> None:
    op.create_table(
        "dag",
        sa.Column("dag_id", sa.Text(), nullable=False),
        sa.Column("fileloc", sa.Text()),
        _now("last_used_at"),
        sa.PrimaryKeyConstraint("dag_id", name="pk_dag"),
    )


def _create_dag_pickle() -> None:
    op.create_table(
        "dag_pickle",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("dag_id", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("python_version", sa.Text(), nullable=False),
        _now("created_at"),
        sa.PrimaryKeyConstraint("hash", name="pk_dag_pickle"),
    )


def _create_slot_pool() -> None:
    op.create_table(
        "slot_pool",
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("description", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.CheckConstraint("slots >= -1", name=op.f("ck_slot_pool_slots")),
        sa.PrimaryKeyConstraint("pool", name="pk_slot_pool"),
    )


def _create_job() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("job_type", sa.Text(), nullable=False),
        sa.Column("dag_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        _json("params"),
        sa.Column("dag_pickle_hash", sa.Text()),
        _json("dag_source"),
        sa.Column("total_runs", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("submitted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("lease_holder", sa.Text()),
        sa.Column("lease_epoch", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        _time("latest_heartbeat"),
        _now("created_at"),
        _time("start_date"),
        _time("end_date"),
        sa.Column("hostname", sa.Text()),
        sa.Column("unixname", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.CheckConstraint(
            "state in ('queued', 'running', 'paused', 'success', 'failed', 'deadlocked', 'cancelled')",
            name=op.f("ck_job_state"),
        ),
        sa.ForeignKeyConstraint(["dag_pickle_hash"], ["dag_pickle.hash"], name="fk_job_dag_pickle_hash"),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
    )
    active = sa.text("state in ('queued', 'running', 'paused')")
    op.create_index("ix_job_active", "job", ["id"], postgresql_where=active)


def _create_dag_run() -> None:
    op.create_table(
        "dag_run",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("dag_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        _time("logical_date", nullable=False),
        _time("data_interval_start", nullable=False),
        _time("data_interval_end", nullable=False),
        sa.Column("run_type", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        _json("conf"),
        sa.Column("external_trigger", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        _reference("creating_job_id", "dag_run", "job", "SET NULL"),
        _reference("job_id", "dag_run", "job", "SET NULL"),
        _now("created_at"),
        _time("start_date"),
        _time("end_date"),
        sa.Column("idle_seconds", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("state in ('queued', 'running', 'success', 'failed')", name=op.f("ck_dag_run_state")),
        sa.CheckConstraint("run_type in ('backfill', 'scheduled', 'manual')", name=op.f("ck_dag_run_run_type")),
        sa.PrimaryKeyConstraint("id", name="pk_dag_run"),
        sa.UniqueConstraint("dag_id", "run_id", name="uq_dag_run_dag_id_run_id"),
        sa.UniqueConstraint("dag_id", "logical_date", name="uq_dag_run_dag_id_logical_date"),
    )
    op.create_index("ix_dag_run_running", "dag_run", ["dag_id"], postgresql_where=sa.text("state = 'running'"))
    op.create_index("ix_dag_run_creating_job_id", "dag_run", ["creating_job_id"])
    op.create_index("ix_dag_run_job_id", "dag_run", ["job_id"], postgresql_where=sa.text("job_id is not null"))


def _reference(name: str, table: str, target: str, ondelete: str, *, nullable: bool = True) -> sa.Column[object]:
    """Return a column that refers to the id of another table."""
    key = sa.ForeignKey(f"{target}.id", name=f"fk_{table}_{name}", ondelete=ondelete)
    return sa.Column(name, sa.BigInteger(), key, nullable=nullable)


def _create_job_run_date() -> None:
    op.create_table(
        "job_run_date",
        _reference("job_id", "job_run_date", "job", "CASCADE", nullable=False),
        sa.Column("dag_id", sa.Text(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        _time("logical_date", nullable=False),
        _time("data_interval_start", nullable=False),
        _time("data_interval_end", nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        _reference("dag_run_id", "job_run_date", "dag_run", "SET NULL"),
        sa.Column("progress", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.CheckConstraint("action in ('create', 'take', 'clear', 'done')", name=op.f("ck_job_run_date_action")),
        sa.CheckConstraint("progress in ('pending', 'admitted', 'finished')", name=op.f("ck_job_run_date_progress")),
        sa.PrimaryKeyConstraint("job_id", "dag_id", "ordinal", name="pk_job_run_date"),
    )
    op.create_index(
        "uq_job_run_date_owner",
        "job_run_date",
        ["dag_id", "logical_date"],
        unique=True,
        postgresql_where=sa.text("active"),
    )
    op.create_index("ix_job_run_date_dag_run_id", "job_run_date", ["dag_run_id"])
    op.create_index(
        "ix_job_run_date_pending",
        "job_run_date",
        ["job_id", "dag_id", "ordinal"],
        postgresql_where=sa.text("progress = 'pending'"),
    )


def _create_task_instance() -> None:
    op.create_table(
        "task_instance",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        _reference("dag_run_id", "task_instance", "dag_run", "CASCADE", nullable=False),
        sa.Column("dag_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("map_index", sa.Integer(), server_default=sa.text("-1"), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'none'"), nullable=False),
        sa.Column("try_number", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("max_tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("try_open", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("external_executor_id", sa.Uuid(as_uuid=False)),
        sa.Column("queued_by_job_id", sa.BigInteger()),
        *(_time(name) for name in ("queued_at", "start_date", "end_date")),
        sa.Column("duration", sa.Float()),
        *(_time(name) for name in ("first_start_date", "next_attempt_at", "heartbeat_at")),
        sa.Column("infrastructure_failures", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("pool_slots", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("executor", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("operator", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("priority_weight", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("hostname", sa.Text()),
        sa.Column("pid", sa.Integer()),
        sa.Column("skips", postgresql.ARRAY(sa.Text())),
        sa.Column("error", sa.Text()),
        sa.CheckConstraint(
            "state in ('none', 'scheduled', 'queued', 'running', 'success', 'failed', 'skipped', 'upstream_failed', "
            "'up_for_retry', 'up_for_reschedule', 'removed')",
            name=op.f("ck_task_instance_state"),
        ),
        sa.PrimaryKeyConstraint("id", name="pk_task_instance"),
        sa.UniqueConstraint("dag_run_id", "task_id", "map_index", name="uq_task_instance_dag_run_id_task_id_map_index"),
    )
    in_flight = sa.text("state in ('queued', 'running')")
    op.create_index("ix_task_instance_in_flight", "task_instance", ["dag_id", "id"], postgresql_where=in_flight)


def _create_task_attempt() -> None:
    op.create_table(
        "task_attempt",
        sa.Column("attempt_id", sa.Uuid(as_uuid=False), nullable=False),
        _reference("task_instance_id", "task_attempt", "task_instance", "CASCADE", nullable=False),
        sa.Column("try_number", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.BigInteger()),
        _time("start_date", nullable=False),
        _time("end_date"),
        sa.Column("outcome", sa.Text()),
        sa.Column("hostname", sa.Text()),
        sa.Column("pid", sa.Integer()),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("attempt_id", name="pk_task_attempt"),
    )
    op.create_index("ix_task_attempt_task_instance_id", "task_attempt", ["task_instance_id"])


def _create_xcom() -> None:
    op.create_table(
        "xcom",
        _reference("task_instance_id", "xcom", "task_instance", "CASCADE", nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("task_instance_id", "key", name="pk_xcom"),
    )


def _add_default_pool() -> None:
    slots = context.config.attributes["default_pool_slots"]
    pool = sa.table("slot_pool", sa.column("pool"), sa.column("slots"), sa.column("description"))
    description = "for tasks that name no pool"
    op.execute(sa.insert(pool).values(pool="default_pool", slots=slots, description=description))
