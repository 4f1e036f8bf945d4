"""What stops a task before its end: its time limit, a signal, a worker that leaves, an attempt that is not current any more."""

import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from worker_stage import Stage, states
from worker_tasks import Events, MakeRunner, RunDag, RunOne, journal_callbacks, one_task

from backfill import DAG
from backfill.config import Settings
from backfill.operators import PythonOperator
from backfill.states import TaskInstanceState
from workers.runner import Runner


class Killable(PythonOperator):
    """Leaves a file where it was killed."""

    def __init__(self, *, mark: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.mark = mark

    def on_kill(self) -> None:
        Path(self.mark).touch()


def killable(mark: Path, function: Callable[..., Any], **arguments: Any) -> DAG:
    with DAG("sales", schedule="@daily") as dag:
        Killable(task_id="load", mark=str(mark), python_callable=function, **arguments)
    return dag


def test_execution_timeout_ends_the_task(tmp_path: Path, run_dag: RunDag) -> None:
    mark, before = tmp_path / "killed", signal.getsignal(signal.SIGALRM)
    dag = killable(mark, time.sleep, op_args=[60], execution_timeout=timedelta(seconds=0.1), retries=1)
    stage, attempt = run_dag(dag)
    row = stage.row(attempt)
    assert (row.state, row.error) == (
        "up_for_retry",
        "TaskTimeout: execution_timeout of 0:00:00.100000 is over",
    )
    assert mark.exists()
    assert signal.getsignal(signal.SIGALRM) is before


def test_a_task_that_catches_its_timeout_has_timed_out_all_the_same(run_one: RunOne) -> None:
    def stubborn() -> str:
        try:
            time.sleep(60)
        except Exception:  # noqa: BLE001
            return "went on"
        return "slept"

    stage, attempt = run_one(stubborn, execution_timeout=timedelta(seconds=0.1))
    assert stage.state(attempt) == "failed"
    assert stage.xcoms(attempt) == {}


def test_a_timer_of_the_process_goes_on_after_a_time_limit(run_one: RunOne) -> None:
    left = signal.setitimer(signal.ITIMER_REAL, 500)
    try:
        run_one(lambda: None, execution_timeout=timedelta(seconds=60))
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 500
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)


def test_sigterm_from_outside_is_a_failure_after_on_kill(tmp_path: Path, run_dag: RunDag) -> None:
    mark = tmp_path / "killed"
    cleaned = tmp_path / "cleaned"

    def wait() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except Exception:  # noqa: BLE001
            time.sleep(60)
        finally:
            cleaned.touch()

    before = signal.getsignal(signal.SIGTERM)
    stage, attempt = run_dag(killable(mark, wait, retries=1))
    row = stage.row(attempt)
    assert (row.state, row.error) == ("up_for_retry", "the task's process was told to stop (SIGTERM)")
    assert mark.exists()
    assert cleaned.exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_after_a_sigterm_the_rest_of_the_bundle_is_put_back(
    runner: Runner, engine: sa.Engine, settings: Settings, events: Events
) -> None:
    stage = Stage(engine, settings, one_task(lambda: os.kill(os.getpid(), signal.SIGTERM)))
    attempts = [stage.queue("load", day=day) for day in range(3)]
    runner.run_bundle(stage.bundle(*attempts))
    assert states(stage, attempts) == ["failed", "none", "none"]
    assert stage.row(attempts[1]) == ("none", None, 1, None, 0)
    assert [events.of(attempt) for attempt in attempts] == [["failed"], ["none"], ["none"]]


def test_an_attempt_of_a_worker_that_stops_is_handed_back(
    make_runner: MakeRunner, engine: sa.Engine, settings: Settings, events: Events, tmp_path: Path
) -> None:
    stopping = threading.Event()
    runner = make_runner(stopping=stopping.is_set)
    mark, callbacks, flag = tmp_path / "killed", tmp_path / "callbacks", tmp_path / "flag"

    def wait() -> None:
        flag.touch()
        time.sleep(60)

    def stop() -> None:
        while not flag.exists():
            time.sleep(0.001)
        stopping.set()
        os.kill(os.getpid(), signal.SIGTERM)

    stage = Stage(engine, settings, killable(mark, wait, retries=1, **journal_callbacks(callbacks)))
    attempts = [stage.queue("load", day=day) for day in range(2)]
    stage.set(attempts[0], infrastructure_failures=2)
    stopper = threading.Thread(target=stop)
    stopper.start()
    ends = runner.run_bundle(stage.bundle(*attempts))
    stopper.join()
    assert ends == ()
    assert stage.row(attempts[0]) == ("none", None, 1, None, 2)
    assert stage.column(attempts[0], "try_open") is True
    assert stage.state(attempts[1]) == "none"
    assert mark.exists()
    assert callbacks.read_text().splitlines() == ["execute: running None"]
    assert [events.of(attempt) for attempt in attempts] == [["none"], ["none"]]


def test_a_worker_that_was_told_to_stop_begins_nothing(
    make_runner: MakeRunner, engine: sa.Engine, settings: Settings, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    stage = Stage(engine, settings, one_task(mark.touch))
    attempt = stage.queue("load")
    make_runner(stopping=lambda: True).run_bundle(stage.bundle(attempt))
    assert stage.state(attempt) == "none"
    assert not mark.exists()


def test_an_attempt_that_is_not_current_any_more_is_stopped_and_writes_nothing(
    make_runner: MakeRunner, engine: sa.Engine, quick: Settings, tmp_path: Path, events: Events
) -> None:
    mark, callbacks = tmp_path / "killed", tmp_path / "callbacks"
    url = engine.url.render_as_string(hide_password=False)

    def take_away(ti: Any) -> None:
        with sa.create_engine(url, poolclass=sa.NullPool).begin() as tx:
            tx.execute(
                sa.text("update task_instance set state = 'success' where id = :id"), {"id": ti.task_instance_id}
            )
        time.sleep(60)

    with DAG("sales") as dag:
        Killable(task_id="load", mark=str(mark), python_callable=take_away, **journal_callbacks(callbacks))
        PythonOperator(task_id="next", python_callable=lambda: 1)
    stage = Stage(engine, quick, dag)
    taken, following = stage.queue("load"), stage.queue("next")
    make_runner(settings=quick).run_bundle(stage.bundle(taken, following))
    assert stage.row(taken).error is None
    assert stage.state(taken) == "success"
    assert stage.xcoms(taken) == {}
    assert mark.exists()
    assert callbacks.read_text().splitlines() == ["execute: running None"]
    assert stage.state(following) == "success"
    assert TaskInstanceState.SUCCESS not in events.of(taken)
