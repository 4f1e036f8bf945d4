"""However a drive ends, the job is left in the state that fits (S1)."""

from __future__ import annotations

import gc
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from backfill import DAG
from backfill.bootstrap import open_runtime
from backfill.config import Settings
from backfill.exceptions import Interrupted, LeaseLost, ServiceUnavailable
from backfill.executors import LocalExecutor
from backfill.jobs import BackfillJob
from backfill.jobs.control import Control
from backfill.operators import BaseOperator, EmptyOperator, PythonOperator


class Failing(LocalExecutor):
    """An executor that ends the drive when it gets its first attempt."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.ends: list[str] = []

    def queue_task_instances(self, attempts: Any) -> Any:
        del attempts
        raise self.error

    def end(self) -> None:
        self.ends.append("end")
        super().end()

    def leave(self) -> None:
        self.ends.append("leave")
        super().leave()


def drive(settings: Settings, executor: LocalExecutor, operator: type[BaseOperator], **arguments: Any) -> None:
    """Create a job of one task and drive it."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    with DAG("sales", schedule="@daily", start_date=start) as dag:
        operator(task_id="load", **arguments)
    with open_runtime(settings, broker=False) as runtime:
        runtime.drive(runtime.create(BackfillJob(dag, start, start, executor=executor)))


@pytest.mark.parametrize(
    ("error", "state", "is_free", "ending"),
    [
        (ServiceUnavailable("The broker does not answer."), "running", True, "end"),
        (LeaseLost("Another coordinator took over job 1."), "running", False, "leave"),
        (Interrupted("The job was interrupted."), "paused", True, "end"),
        (ZeroDivisionError("by zero"), "paused", True, "end"),
    ],
)
def test_the_state_fits_the_end_and_the_lease_is_free_where_it_may_be(
    settings: Settings, engine: sa.Engine, error: Exception, state: str, is_free: bool, ending: str
) -> None:
    executor = Failing(error)
    with pytest.raises(type(error)):
        drive(settings, executor, PythonOperator, python_callable=print)
    with engine.connect() as connection:
        [job] = connection.execute(sa.text("select state, lease_holder, error from job"))
    assert (job.state, job.lease_holder is None) == (state, is_free)
    assert job.error == ("ZeroDivisionError: by zero" if isinstance(error, ZeroDivisionError) else None)
    assert executor.ends[0] == ending


def test_an_interrupt_at_the_end_of_all_work_leaves_a_job_that_ends_when_it_is_resumed(
    settings: Settings, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Control, "wake_by", lambda self, mailbox: (mailbox.wake(), self.interrupt("a test")))
    with pytest.raises(Interrupted, match="interrupted by a test"):
        drive(settings, LocalExecutor(), EmptyOperator)
    monkeypatch.undo()
    with open_runtime(settings, broker=False) as runtime:
        job = runtime.load_job(1)
        assert job.state == "paused"
        assert runtime.take_over(job)
        assert runtime.drive(job, resume=True).state == "success"


def test_garbage_is_collected_after_a_drive_as_before(settings: Settings) -> None:
    before = gc.get_threshold()
    drive(settings, LocalExecutor(), EmptyOperator)
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
