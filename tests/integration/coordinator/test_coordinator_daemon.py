"""The daemon takes waiting jobs, and stops in order also when it is told to at an awkward moment."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from backfill import DAG
from backfill.config import Settings
from backfill.coordinator.daemon import Coordinator
from backfill.coordinator.lease import HeldLease
from backfill.exceptions import Interrupted
from backfill.executors import Mailbox
from backfill.jobs import BackfillJob
from backfill.jobs.control import Control
from backfill.jobs.creation import create
from backfill.operators import EmptyOperator

WaitUntil = Callable[..., None]


@pytest.fixture
def job_id(engine: sa.Engine, settings: Settings) -> int:
    """Return a job that waits for a coordinator."""
    with DAG("sales", schedule="@daily", start_date=datetime(2024, 1, 1, tzinfo=UTC)) as dag:
        EmptyOperator(task_id="load")
    job = BackfillJob(dag, dag.start_date, dag.start_date)
    return create(job, engine, settings, frozen=None, dag_source={}, holder=None).job_id


def test_a_job_that_is_just_being_loaded_is_stopped_too(engine: sa.Engine, settings: Settings, job_id: int) -> None:
    loading, stopped = threading.Event(), threading.Event()

    def drive_job(_job_id: int, _lease: HeldLease, control: Control) -> None:
        loading.set()
        assert stopped.wait(30)
        mailbox = Mailbox()
        control.wake_by(mailbox)
        assert mailbox.wait(30)
        raise Interrupted("stopped")

    coordinator = Coordinator(engine, settings, drive_job)

    def stop_while_it_loads() -> None:
        assert loading.wait(30)
        coordinator.stop()
        stopped.set()

    threading.Thread(target=stop_while_it_loads).start()
    assert coordinator.run() == [job_id]


def test_a_job_that_fails_at_once_does_not_take_the_daemon_with_it(
    engine: sa.Engine, settings: Settings, job_id: int
) -> None:
    driven = []

    def drive_job(job_id: int, _lease: HeldLease, _control: Control) -> None:
        driven.append(job_id)
        coordinator.stop()
        raise ZeroDivisionError

    coordinator = Coordinator(engine, settings, drive_job)
    assert coordinator.run() == []
    assert driven == [job_id]


def test_told_to_stop_twice_it_leaves_at_once(
    engine: sa.Engine, settings: Settings, job_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, acts = [], []
    monkeypatch.setattr(os, "_exit", left.append)

    def drive_job(_job_id: int, _lease: HeldLease, control: Control) -> None:
        control.before_leaving_at_once(lambda: acts.append("killed"))
        coordinator.stop()
        coordinator.stop()
        control.interrupt("a test")
        raise Interrupted("stopped")

    coordinator = Coordinator(engine, settings, drive_job)
    coordinator.run()
    assert set(left) == {130}
    assert "killed" in acts
