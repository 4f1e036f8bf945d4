"""How `LocalExecutor` deals with its processes; what they run is scripted."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from executor_attempts import ids, queued

from backfill.config import Settings
from backfill.executors import ExecutorContext, LocalExecutor, Mailbox, QueuedAttempt, child, local
from backfill.messages import DagSource, ExecutorEvent
from backfill.states import TaskInstanceState

WaitUntil = Callable[..., None]


class Bench:
    """A started executor and what it has reported."""

    def __init__(self, executor: LocalExecutor, wait_until: WaitUntil) -> None:
        self.executor = executor
        self.events: list[ExecutorEvent] = []
        self.threads_before = set(threading.enumerate())
        self._wait_until = wait_until

    def send(self, *task_ids: str) -> list[QueuedAttempt]:
        attempts = [queued(task_id, number=number) for number, task_id in enumerate(task_ids)]
        assert self.executor.queue_task_instances(attempts) == []
        return attempts

    def reports(self, attempt: QueuedAttempt) -> list[ExecutorEvent]:
        self.events += self.executor.get_event_buffer()
        return [event for event in self.events if event.attempt_id == attempt.attempt.attempt_id]

    def wait_for(self, attempt: QueuedAttempt, state: TaskInstanceState) -> ExecutorEvent:
        def reported() -> bool:
            return any(event.state is state for event in self.reports(attempt))

        self._wait_until(reported, f"{attempt.attempt.key.task_id} is reported as {state}")
        return next(event for event in self.reports(attempt) if event.state is state)

    def pids(self) -> set[str]:
        return {event.info for event in self.events if event.info and event.info.startswith("pid ")}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil) -> Iterator[Bench]:
    script = Path(__file__).with_name("scripted_child.py")
    monkeypatch.setattr(child, "_COMMAND", (sys.executable, str(script)))
    executor = LocalExecutor(parallelism=2)
    settings = Settings().override("the test", {"core.home": tmp_path})
    executor.start(
        ExecutorContext(
            job_id=1,
            settings=settings,
            database_url="",
            broker_url="",
            dag_source=DagSource("sales"),
            mailbox=Mailbox(),
        )
    )
    yield Bench(executor, wait_until)
    monkeypatch.setattr(local, "END_PATIENCE", timedelta(seconds=0.05))
    executor.end()


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_one_process_serves_one_attempt_after_the_other(bench: Bench) -> None:
    for _ in range(5):
        (attempt,) = bench.send("succeed")
        bench.wait_for(attempt, TaskInstanceState.SUCCESS)
    assert len(bench.pids()) == 1


def test_no_more_processes_than_allowed_work_through_the_line(bench: Bench) -> None:
    attempts = bench.send(*["succeed"] * 20)
    for attempt in attempts:
        bench.wait_for(attempt, TaskInstanceState.SUCCESS)
    assert len(bench.pids()) <= 2


def test_an_attempt_that_lost_its_claim_is_let_go_without_a_word(bench: Bench, wait_until: WaitUntil) -> None:
    lost, *others = bench.send("lose_the_claim", *["succeed"] * 4)
    for attempt in others:
        bench.wait_for(attempt, TaskInstanceState.SUCCESS)
    wait_until(lambda: not bench.executor.holds(ids([lost])), "the executor has let go of it")
    assert bench.reports(lost) == []


@pytest.mark.parametrize(
    ("deed", "how"), [("kill_itself", "was killed by SIGKILL"), ("exit_3", "ended with exit code 3")]
)
def test_a_process_that_dies_is_an_infrastructure_failure_and_is_replaced(bench: Bench, deed: str, how: str) -> None:
    (attempt,) = bench.send(deed)
    event = bench.wait_for(attempt, TaskInstanceState.FAILED)
    assert event.infrastructure
    assert event.task_instance_id == attempt.attempt.task_instance_id
    assert event.info is not None
    assert how in event.info
    (next_one,) = bench.send("succeed")
    bench.wait_for(next_one, TaskInstanceState.SUCCESS)


def test_a_process_killed_while_idle_costs_no_attempt(bench: Bench, wait_until: WaitUntil) -> None:
    (first,) = bench.send("succeed")
    info = bench.wait_for(first, TaskInstanceState.SUCCESS).info
    assert info is not None
    pid = int(info.removeprefix("pid "))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid), "the process is dead")
    (second,) = bench.send("succeed")
    bench.wait_for(second, TaskInstanceState.SUCCESS)
    assert not any(event.infrastructure for event in bench.events)


def test_what_was_reported_before_the_process_died_stands(bench: Bench) -> None:
    attempt, other = bench.send("succeed_and_die", "succeed")
    bench.wait_for(attempt, TaskInstanceState.SUCCESS)
    bench.wait_for(other, TaskInstanceState.SUCCESS)
    bench.executor.end()
    assert [event.state for event in bench.reports(attempt)] == [TaskInstanceState.SUCCESS]


def test_the_subprocesses_of_a_dead_process_are_killed(bench: Bench, wait_until: WaitUntil) -> None:
    (attempt,) = bench.send("start_another")
    bench.wait_for(attempt, TaskInstanceState.FAILED)
    grandchild = bench.reports(attempt)[0].info
    assert grandchild is not None
    wait_until(lambda: not is_running(int(grandchild)), "the grandchild is dead")


def test_what_is_no_event_is_dropped(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    (attempt,) = bench.send("write_garbage")
    bench.wait_for(attempt, TaskInstanceState.SUCCESS)
    assert caplog.text.count("An event is broken") == 2


def test_an_attempt_is_held_while_it_waits_and_while_it_runs(bench: Bench) -> None:
    attempts = bench.send("sleep", "sleep", "succeed")
    bench.wait_for(attempts[0], TaskInstanceState.RUNNING)
    bench.wait_for(attempts[1], TaskInstanceState.RUNNING)
    assert bench.executor.holds([*ids(attempts), "another"]) == set(ids(attempts))
    assert bench.executor.adopt(attempts) == set(ids(attempts))


def test_a_revoked_attempt_is_not_started(bench: Bench) -> None:
    first, second, revoked, last = bench.send("hand_back_on_sigterm", "hand_back_on_sigterm", "succeed", "succeed")
    bench.wait_for(first, TaskInstanceState.RUNNING)
    bench.wait_for(second, TaskInstanceState.RUNNING)
    bench.executor.revoke(ids([revoked]))
    assert not bench.executor.holds(ids([revoked]))
    bench.executor.terminate(ids([first]))
    bench.wait_for(last, TaskInstanceState.SUCCESS)
    assert bench.reports(revoked) == []


def test_terminating_stops_the_process_of_that_attempt_only(bench: Bench) -> None:
    stopped, other = bench.send("hand_back_on_sigterm", "hand_back_on_sigterm")
    bench.wait_for(stopped, TaskInstanceState.RUNNING)
    bench.wait_for(other, TaskInstanceState.RUNNING)
    bench.executor.terminate(ids([stopped]))
    bench.wait_for(stopped, TaskInstanceState.NONE)
    (next_one,) = bench.send("succeed")
    bench.wait_for(next_one, TaskInstanceState.SUCCESS)
    assert [event.state for event in bench.reports(other)] == [TaskInstanceState.RUNNING]


def test_a_process_that_ignores_sigterm_is_killed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "TERMINATE_PATIENCE", timedelta(seconds=0.05))
    (attempt,) = bench.send("ignore_sigterm")
    bench.wait_for(attempt, TaskInstanceState.RUNNING)
    bench.executor.terminate(ids([attempt]))
    event = bench.wait_for(attempt, TaskInstanceState.FAILED)
    assert event.info is not None
    assert "SIGKILL" in event.info


def test_the_end_leaves_neither_process_nor_thread(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "END_PATIENCE", timedelta(seconds=0.05))
    attempts = bench.send("ignore_sigterm", "hand_back_on_sigterm", "succeed")
    infos = [bench.wait_for(attempt, TaskInstanceState.RUNNING).info for attempt in attempts[:2]]
    bench.executor.end()
    assert set(threading.enumerate()) == bench.threads_before
    assert not any(is_running(int(info.removeprefix("pid "))) for info in infos if info)
    assert bench.executor.holds(ids(attempts)) == set()
    bench.executor.end()


def test_the_end_does_not_wait_for_the_patience_of_a_termination(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (attempt,) = bench.send("ignore_sigterm")
    bench.wait_for(attempt, TaskInstanceState.RUNNING)
    bench.executor.terminate(ids([attempt]))
    monkeypatch.setattr(local, "END_PATIENCE", timedelta(seconds=0.05))
    bench.executor.end()
    assert set(threading.enumerate()) == bench.threads_before


def test_a_process_that_cannot_be_started_is_an_infrastructure_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_COMMAND", ("/nonexistent/python",))
    (attempt,) = bench.send("succeed")
    event = bench.wait_for(attempt, TaskInstanceState.FAILED)
    assert event.infrastructure
    assert "/nonexistent/python" in (event.info or "")
