import os
import signal
from datetime import timedelta

import pytest

from workers.interruption import PATIENCE, Guard, Interruption
from workers.outcome import StopReason, TaskStopped


class Worker:
    """Says whether it was told to stop."""

    stops = False

    def __call__(self) -> bool:
        return self.stops


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def interruption(worker: Worker) -> Interruption:
    return Interruption(worker)


class Killed(Guard):
    """A guard that notes its deadlines and what was killed."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines: list[timedelta] = []
        self.kills = 0
        self.killed_after = self.deadlines.append
        self.on_kill = self._killed

    def _killed(self) -> None:
        self.kills += 1


def signal_ourselves(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_signal_interrupts_the_task_once(number: int, interruption: Interruption) -> None:
    guard = Killed()
    with interruption.listening():
        with pytest.raises(TaskStopped) as caught, interruption.guarding(guard):
            signal_ourselves(number)
        signal_ourselves(number)
    assert caught.value.reason is StopReason.TERMINATED
    assert guard.kills == 1
    assert guard.deadlines[0] == PATIENCE[StopReason.TERMINATED]


def test_a_task_that_catches_it_is_not_interrupted_again_but_killed_in_time(interruption: Interruption) -> None:
    guard = Killed()
    with interruption.listening(), interruption.guarding(guard):
        with pytest.raises(TaskStopped):
            signal_ourselves()
        signal_ourselves()
    assert guard.kills == 1
    assert len(guard.deadlines) == 2


def test_the_reason_is_the_workers_if_that_stops(interruption: Interruption, worker: Worker) -> None:
    worker.stops = True
    with interruption.listening(), pytest.raises(TaskStopped) as caught, interruption.guarding(Killed()):
        signal_ourselves()
    assert caught.value.reason is interruption.reason is StopReason.WORKER_STOPS


def test_an_order_that_comes_before_the_task_interrupts_it_at_its_start(interruption: Interruption) -> None:
    guard = Killed()
    with interruption.listening():
        signal_ourselves()
        assert interruption.reason is StopReason.TERMINATED
        with pytest.raises(TaskStopped), interruption.guarding(guard):
            pytest.fail("the task must not start")


def test_callbacks_are_not_interrupted_but_have_their_time(interruption: Interruption) -> None:
    guard = Killed()
    with interruption.listening():
        with interruption.guarding(guard):
            pass
        signal_ourselves()
    assert guard.kills == 0
    assert guard.deadlines == [PATIENCE[StopReason.TERMINATED]]


def test_to_be_fenced_concerns_one_attempt_only(interruption: Interruption) -> None:
    ended, present = Killed(), Killed()
    with interruption.listening():
        with interruption.guarding(ended):
            pass
        with interruption.guarding(present):
            interruption.fence(ended)
        with pytest.raises(TaskStopped) as caught, interruption.guarding(present):
            interruption.fence(present)
    assert caught.value.reason is StopReason.FENCED
    assert interruption.reason is None
    assert (ended.kills, present.kills) == (0, 1)


def test_a_cancelled_attempt_is_stopped_and_killed_soon(interruption: Interruption) -> None:
    ended, present = Killed(), Killed()
    with interruption.listening():
        with interruption.guarding(ended):
            pass
        with interruption.guarding(present):
            interruption.cancel(ended)
        with pytest.raises(TaskStopped) as caught, interruption.guarding(present):
            interruption.cancel(present)
    assert caught.value.reason is StopReason.CANCELLED
    assert interruption.reason is None
    assert (ended.kills, present.kills) == (0, 1)
    assert set(present.deadlines) == {PATIENCE[StopReason.CANCELLED]}


def test_a_terminal_that_closes_stops_nothing(interruption: Interruption) -> None:
    guard = Killed()
    with interruption.listening(), interruption.guarding(guard):
        signal_ourselves(signal.SIGHUP)
    assert (interruption.reason, guard.kills) == (None, 0)


def test_an_interruption_waits_for_the_end_of_a_statement(interruption: Interruption) -> None:
    done = []

    def task() -> None:
        with interruption.undisturbed():
            signal_ourselves()
            done.append("statement")
        done.append("task")

    with interruption.listening(), pytest.raises(TaskStopped), interruption.guarding(Killed()):
        task()
    assert done == ["statement"]


def test_an_interruption_is_not_lost_when_the_statement_fails(interruption: Interruption) -> None:
    def task() -> None:
        with interruption.undisturbed():
            signal_ourselves()
            raise ValueError

    with interruption.listening(), pytest.raises(TaskStopped), interruption.guarding(Killed()):
        task()


def test_an_on_kill_that_fails_does_not_hold_up_the_stop(
    interruption: Interruption, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ValueError("cannot kill")

    guard = Guard()
    guard.on_kill = fail
    with interruption.listening(), pytest.raises(TaskStopped), interruption.guarding(guard):
        signal_ourselves()
    assert "on_kill failed" in caplog.text


def test_the_process_reacts_as_before_once_nobody_listens(interruption: Interruption) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)]
    with interruption.listening():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)] == before


def test_a_signal_to_the_whole_worker_is_known_as_such_a_moment_later(
    interruption: Interruption, worker: Worker
) -> None:
    assert not interruption.worker_stops_soon()
    worker.stops = True
    assert interruption.worker_stops_soon()
