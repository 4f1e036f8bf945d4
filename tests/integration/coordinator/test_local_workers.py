"""A command's own worker is there whenever no other is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from backfill.coordinator import local_workers
from backfill.coordinator.local_workers import LocalWorkers, Standby

WaitUntil = Callable[..., None]

#: Stands in for the worker: writes its pid and waits; told to stop, it leaves unless its argument says otherwise.
PROGRAM = """
import os, pathlib, signal, sys
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(f"worker_{os.getpid()}").touch()
while True:
    signal.pause()
"""


#: The same, for one that waits for its environment first.
ON_STANDBY = f"""
import os, sys
from backfill.cli.parent import wait_for_environment
wait_for_environment()
print("works with", os.environ["GIVEN"], flush=True)
{PROGRAM}
"""


class Others:
    """Workers that others started."""

    listen = False


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.others = Others()

    def workers(self, kind: str = "obedient", standby: Standby | None = None) -> LocalWorkers:
        workers = LocalWorkers(
            concurrency=1,
            environment={**os.environ, "GIVEN": "what it was given"},
            log=self.folder / "logs" / "worker.log",
            stop_within=timedelta(seconds=0.1),
            others_listen=lambda: self.others.listen,
            standby=standby,
        )
        workers._worker._command = [sys.executable, "-c", PROGRAM, kind]
        return workers

    def started(self) -> list[int]:
        return [int(path.name.removeprefix("worker_")) for path in self.folder.glob("worker_*")]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local_workers, "LOOK_EVERY", 0.02)
    monkeypatch.setattr(local_workers, "_LEAVING", 0.2)
    return Place(tmp_path)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_none_is_started_while_others_listen_and_one_as_soon_as_they_do_not(
    place: Place, wait_until: WaitUntil
) -> None:
    place.others.listen = True
    with place.workers():
        assert place.started() == []
        place.others.listen = False
        wait_until(place.started, "a worker is started")
    assert not any(map(is_alive, place.started()))


def test_one_that_dies_is_started_again_at_once_though_it_seems_to_listen(place: Place, wait_until: WaitUntil) -> None:
    with place.workers():
        wait_until(place.started, "a worker is started")
        place.others.listen = True  # what it said of itself outlives it
        os.kill(place.started()[0], signal.SIGKILL)
        wait_until(lambda: len(place.started()) == 2, "another is started")
    assert not any(map(is_alive, place.started()))


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_one_that_does_not_obey_is_killed(place: Place, wait_until: WaitUntil, ending: str) -> None:
    workers = place.workers("stubborn")
    workers.start()
    wait_until(place.started, "a worker is started")
    getattr(workers, ending)()
    workers.stop()
    assert not any(map(is_alive, place.started()))


def test_an_interrupt_while_it_stops_kills_it(
    place: Place, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_workers, "_LEAVING", 60)
    workers = place.workers("stubborn")
    workers.start()
    wait_until(place.started, "a worker is started")

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            workers.stop()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not any(map(is_alive, place.started()))


@pytest.fixture
def standby(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standby]:
    monkeypatch.setattr(local_workers, "_command", lambda _: [sys.executable, "-c", ON_STANDBY, "obedient"])
    with Standby(1) as standby:
        yield standby


def process_of(standby: Standby) -> subprocess.Popen[bytes]:
    assert standby._process is not None
    return standby._process


def test_one_on_standby_goes_to_work_with_the_environment_and_the_log_that_it_is_told(
    place: Place, standby: Standby, wait_until: WaitUntil
) -> None:
    process = process_of(standby)
    with place.workers(standby=standby):
        wait_until(place.started, "the worker works")
        standby.dismiss()  # which is nobody any more
        assert place.started() == [process.pid]
        assert is_alive(process.pid)
    assert not is_alive(process.pid)
    assert (place.folder / "logs" / "worker.log").read_text() == "works with what it was given\n"


def test_one_on_standby_that_has_ended_is_replaced_by_another(
    place: Place, standby: Standby, wait_until: WaitUntil
) -> None:
    process = process_of(standby)
    process.kill()
    process.wait()
    with place.workers(standby=standby):
        wait_until(place.started, "a worker is started")
        assert process.pid not in place.started()
    assert not any(map(is_alive, place.started()))


def test_one_on_standby_that_is_not_needed_leaves_with_the_command(place: Place, standby: Standby) -> None:
    process = process_of(standby)
    place.others.listen = True
    with standby, place.workers(standby=standby):
        assert process.poll() is None
    assert process.returncode is not None
    assert place.started() == []


def test_one_on_standby_ends_without_a_word_when_its_command_does(place: Place, standby: Standby) -> None:
    process = process_of(standby)
    assert process.stdin is not None
    process.stdin.close()  # as the end of the command does, whatever ends it
    assert process.wait(30) == 0
    assert place.started() == []
