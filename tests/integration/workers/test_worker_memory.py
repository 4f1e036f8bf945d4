"""Memory runs out in a worker's process: in the task, which is its own failure, or in what the system does around it."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from worker_stage import Stage

from backfill import DAG
from backfill.config import Settings
from backfill.messages import Attempt, ExecutorEvent
from backfill.operators import PythonOperator
from workers import attempt as around_the_task, execution
from workers.attempt import RunningAttempt
from workers.execution import Execution
from workers.ledger import Ledger
from workers.logs import TaskLog
from workers.runner import Runner
from workers.surroundings import Surroundings


class Burden:
    """Something that a task has made."""


def exhausted(*_: object, **__: object) -> None:
    raise MemoryError


@pytest.fixture
def runner(engine: sa.Engine, settings: Settings) -> Iterator[Runner]:
    def publish(_stream: str, _events: Sequence[ExecutorEvent]) -> None:
        """Tell nobody."""

    runner = Runner(engine, settings, publish, hostname="worker-1@host")
    yield runner
    runner.end()


@pytest.fixture
def queue_up(engine: sa.Engine, settings: Settings) -> Callable[..., tuple[Stage, list[Attempt]]]:
    def queue(function: Callable[..., Any], *, number: int = 1, **arguments: Any) -> tuple[Stage, list[Attempt]]:
        with DAG("sales", start_date=datetime(2024, 1, 1, tzinfo=UTC), schedule="@daily") as dag:
            PythonOperator(task_id="load", python_callable=function, **arguments)
        stage = Stage(engine, settings, dag)
        return stage, [stage.queue("load", day=day) for day in range(number)]

    return queue


def count(kind: type) -> int:
    """Return how many objects there are of a class, by its name, as that of a shipped DAG is another one."""
    return sum(type(each).__name__ == kind.__name__ for each in gc.get_objects())


QueueUp = Callable[..., tuple[Stage, list[Attempt]]]


def test_a_task_that_uses_up_its_memory_fails_with_that_reason_and_is_tried_again(
    runner: Runner, queue_up: QueueUp
) -> None:
    stage, [attempt] = queue_up(exhausted, retries=1)
    runner.run_bundle(stage.bundle(attempt))
    row = stage.row(attempt)
    assert (row.state, row.error, row.infrastructure_failures) == ("up_for_retry", "MemoryError", 0)


def test_what_a_task_held_when_memory_ran_out_is_let_go_before_its_end_is_told(
    runner: Runner, queue_up: QueueUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    burdens: list[int] = []

    def greedy() -> None:
        burden = Burden()
        try:
            raise ValueError
        except ValueError:
            exhausted(burden)

    stage, [attempt] = queue_up(greedy)
    monkeypatch.setattr(Execution, "call_back", lambda *_: burdens.append(count(Burden)))
    runner.run_bundle(stage.bundle(attempt))
    assert burdens == [0]
    assert "in greedy" in stage.log(attempt)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Execution, "report"),
        (Execution, "call_back"),
        (TaskLog, "close"),
        (Surroundings, "restore"),
        (around_the_task, "conclude"),
    ],
    ids=["report", "callbacks", "log", "surroundings", "conclusion"],
)
@pytest.mark.parametrize("function", [lambda: None, exhausted], ids=["success", "failed"])
def test_memory_that_runs_out_after_the_task_does_not_change_how_it_ended(
    runner: Runner,
    queue_up: QueueUp,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    function: Callable[[], None],
) -> None:
    stage, [attempt] = queue_up(function)
    with monkeypatch.context() as patch:
        once(patch, owner, name)
        runner.run_bundle(stage.bundle(attempt))
    assert stage.state(attempt) == ("failed" if function is exhausted else "success")
    assert stage.outcome(attempt) == stage.state(attempt)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (around_the_task, "TaskLog"),
        (execution, "build_context"),
        (RunningAttempt, "_run_logged"),
    ],
    ids=["log", "context", "capture"],
)
def test_memory_that_runs_out_around_the_task_is_a_failure_of_this_attempt_alone(
    runner: Runner, queue_up: QueueUp, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    stage, attempts = queue_up(lambda: None, number=2)
    with monkeypatch.context() as patch:
        once(patch, owner, name)
        for each in attempts:
            runner.run_bundle(stage.bundle(each))
    assert [(stage.state(each), stage.row(each).error) for each in attempts] == [
        ("failed", "MemoryError"),
        ("success", None),
    ]


def test_a_process_that_has_no_memory_to_write_how_a_task_ended_is_killed(
    runner: Runner, queue_up: QueueUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker's main process finds it dead at once; Celery's own way would end the whole worker."""
    killed: list[tuple[int, int]] = []
    stage, [attempt] = queue_up(lambda: None)
    write = Ledger.write
    monkeypatch.setattr(
        Ledger, "write", lambda self, writing, **more: exhausted() if writing.ended else write(self, writing, **more)
    )
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
    with pytest.raises(MemoryError):
        runner.run_bundle(stage.bundle(attempt))
    assert killed == [(os.getpid(), signal.SIGKILL)]


def once(patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Let the first call fail for want of memory."""
    original = getattr(owner, name)
    calls: list[int] = []

    def fail_first(*arguments: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise MemoryError
        return original(*arguments, **more)

    patch.setattr(owner, name, fail_first)
