"""A job that this process was to drive is left resumable, whenever the interrupt comes (S11.4)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from backfill import DAG
from backfill.bootstrap import open_runtime
from backfill.config import Settings
from backfill.coordinator.lease import HeldLease
from backfill.exceptions import JobHeld, LeaseLost, RefusedError
from backfill.executors import LocalExecutor, Mailbox
from backfill.jobs import BackfillJob
from backfill.jobs.control import Control
from backfill.operators import EmptyOperator


@pytest.fixture
def job() -> BackfillJob:
    with DAG("sales", schedule="@daily", start_date=datetime(2024, 1, 1, tzinfo=UTC)) as dag:
        EmptyOperator(task_id="load")
    return BackfillJob(dag, dag.start_date, dag.start_date, executor=LocalExecutor())


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Let leases run out within moments."""
    return settings.override("the test", {"coordinator.heartbeat_interval": "0.05"})


def test_an_interrupt_before_the_drive_pauses_the_job(settings: Settings, engine: sa.Engine, job: BackfillJob) -> None:
    def command() -> None:
        with open_runtime(settings, broker=False) as runtime:
            runtime.create(job)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        command()
    with engine.connect() as connection:
        [(state, holder)] = connection.execute(sa.text("select state, lease_holder from job"))
    assert (state, holder) == ("paused", None)


def test_a_job_that_was_paused_is_driven_by_whoever_takes_it_over(settings: Settings, job: BackfillJob) -> None:
    with open_runtime(settings, broker=False) as runtime:
        runtime.create(job)
    with open_runtime(settings, broker=False) as runtime:
        left = runtime.load_job(1)
        assert runtime.take_over(left)
        assert runtime.drive(left, resume=True).runs["success"] == 1
        with pytest.raises(RefusedError, match="has ended as success and cannot be resumed"):
            runtime.take_over(left)


def test_a_lease_that_is_renewed_is_not_taken_over(settings: Settings, engine: sa.Engine, job: BackfillJob) -> None:
    told: list[object] = []
    with open_runtime(settings, broker=False) as runtime:
        created = runtime.create(job)
        lease = runtime._leases[created.id]

        def renew(_event: object) -> None:
            told.append(_event)
            with engine.begin() as connection:
                connection.execute(sa.text("update job set latest_heartbeat = clock_timestamp() + interval '1 minute'"))

        runtime.telemetry.subscribe(renew)
        with pytest.raises(JobHeld, match=r"Job 1 is driven by process \d+ on "):
            runtime.take_over(created)
        assert runtime._leases == {created.id: lease}
    assert len(told) == 1


def test_a_lease_that_runs_out_is_taken_over_and_its_old_holder_cannot_write(
    settings: Settings, engine: sa.Engine, job: BackfillJob, wait_until: Callable[..., None]
) -> None:
    with open_runtime(settings, broker=False) as runtime:
        created = runtime.create(job)
        old = runtime._leases.pop(created.id)
        assert runtime.take_over(created)
        assert runtime._leases[created.id].epoch == old.epoch + 1
        with engine.begin() as connection, pytest.raises(LeaseLost):
            old.fence(connection)
        wait_until(lambda: old.due_in() == 0, "the heartbeat of the old one is due")
        with pytest.raises(LeaseLost):
            old.renew_if_due()
        old.release()  # changes nothing
        assert HeldLease.take_if_free(engine, created.id, holder="third", settings=Settings()) is None


def test_a_local_job_needs_no_broker_to_be_resumed(settings: Settings, tmp_path: Path) -> None:
    with open_runtime(settings, broker=False) as runtime:
        assert runtime.broker_url == ""
        runtime.reach_broker()
        assert runtime.broker_url == settings.celery.broker_url


def test_an_interrupt_that_came_first_wakes_the_loop_at_once() -> None:
    control, mailbox = Control(), Mailbox()
    control.interrupt("a test")
    control.wake_by(mailbox)
    assert mailbox.wait(0)
