"""Callbacks of runs are waited for, while the lease is kept."""

import threading
from datetime import UTC, datetime

from backfill import DAG
from backfill.facts import RunFacts
from backfill.jobs.callbacks import RunCallbacks
from backfill.states import DagRunState


def a_run() -> RunFacts:
    return RunFacts(*(None for _ in RunFacts._fields))._replace(run_id="backfill__2024-01-01T00:00:00+00:00")


def test_what_has_to_go_on_meanwhile_goes_on_while_a_slow_callback_is_waited_for() -> None:
    beaten, called = threading.Event(), []

    def slow(context: dict[str, object]) -> None:
        assert beaten.wait(30)
        called.append(context["reason"])

    callbacks = RunCallbacks(DAG("sales", start_date=datetime(2024, 1, 1, tzinfo=UTC), on_success_callback=slow))
    callbacks.fire(a_run(), DagRunState.SUCCESS, "success")
    callbacks.end(meanwhile=beaten.set)
    assert called == ["success"]


def test_without_callbacks_nothing_is_waited_for() -> None:
    callbacks = RunCallbacks(DAG("sales", start_date=datetime(2024, 1, 1, tzinfo=UTC)))
    callbacks.fire(a_run(), DagRunState.FAILED, "task_failure")
    waited: list[bool] = []
    callbacks.end(meanwhile=lambda: waited.append(True))
    assert not waited
