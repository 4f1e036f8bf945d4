import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from backfill.exceptions import ConfigError
from workers.deadman import KernelSwitch, ThreadSwitch
from workers.heartbeat import Heartbeat, Renewal, Watch, patience

SECOND = timedelta(seconds=1)
WaitUntil = Callable[..., None]


class Switch:
    """A dead man's switch with a clock that the test moves, and that kills nobody."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.deadline: float | None = None

    def now(self) -> float:
        return self.time

    def arm(self, deadline: float) -> None:
        self.deadline = deadline

    def disarm(self) -> None:
        self.deadline = None


class Database:
    """Renews the attempts that are current."""

    def __init__(self) -> None:
        self.current = {"a", "b"}
        self.cancelled: set[str] = set()
        self.renewed: list[list[str]] = []
        self.begun: list[dict[str, float]] = []
        self.away = False
        self.refused = 0

    def renew(self, attempt_ids: Sequence[str], begun: Mapping[str, float]) -> Renewal:
        if self.away:
            self.refused += 1
            raise ConnectionError
        self.renewed.append(list(attempt_ids))
        self.begun.append(dict(begun))
        return Renewal(self.current.intersection(attempt_ids), self.cancelled.intersection(attempt_ids))


@pytest.fixture
def switch() -> Switch:
    return Switch()


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def heartbeat(switch: Switch, database: Database) -> Iterator[Heartbeat]:
    # an interval that the thread never sees the end of: the tests call `beat` themselves
    heartbeat = Heartbeat(database.renew, interval=1000 * SECOND, timeout=5000 * SECOND, switch=switch)
    yield heartbeat
    heartbeat.end()


def nothing() -> None:
    pass


@contextmanager
def watched(
    heartbeat: Heartbeat, attempt_id: str, *, claimed: float = 900.0, began: float | None = None, **calls: Any
) -> Iterator[Watch]:
    """Watch an attempt whose task runs for the length of the block."""
    watch = Watch(attempt_id, claimed)
    heartbeat.add([watch])
    assert heartbeat.begin(watch, began=began, **{"lost": nothing} | calls)
    yield watch
    heartbeat.remove(watch)


def test_the_switch_is_armed_while_an_attempt_is_watched(heartbeat: Heartbeat, switch: Switch) -> None:
    with watched(heartbeat, "a", claimed=900.0):
        assert switch.deadline == 900.0 + 3000
    assert switch.deadline is None


def test_a_renewal_moves_the_switch(heartbeat: Heartbeat, switch: Switch, database: Database) -> None:
    with watched(heartbeat, "a", claimed=900.0):
        switch.time = 1500.0
        heartbeat.beat()
        assert switch.deadline == 1500.0 + 3000
    assert database.renewed == [["a"]]


def test_a_renewal_that_fails_does_not_move_the_switch(
    heartbeat: Heartbeat, switch: Switch, database: Database
) -> None:
    with watched(heartbeat, "a", claimed=900.0):
        database.away = True
        switch.time = 1500.0
        heartbeat.beat()
        assert switch.deadline == 900.0 + 3000


def test_all_attempts_of_the_process_are_renewed_together(
    heartbeat: Heartbeat, switch: Switch, database: Database
) -> None:
    with watched(heartbeat, "a", claimed=900.0), watched(heartbeat, "b", claimed=950.0):
        assert switch.deadline == 900.0 + 3000
        heartbeat.beat()
    assert database.renewed == [["a", "b"]]


def test_an_attempt_that_is_not_current_is_told_so_once(heartbeat: Heartbeat, database: Database) -> None:
    told: list[str] = []
    database.current = {"b"}
    with (
        watched(heartbeat, "a", claimed=900.0, lost=lambda: told.append("a")),
        watched(heartbeat, "b", claimed=900.0, lost=lambda: told.append("b")),
    ):
        heartbeat.beat()
        heartbeat.beat()
    assert told == ["a"]
    assert database.renewed == [["a", "b"], ["b"]]


def test_a_lasting_attempt_is_told_of_once(heartbeat: Heartbeat) -> None:
    told: list[str] = []
    with watched(heartbeat, "a", claimed=900.0, lost=nothing, lasting=lambda: told.append("a")):
        heartbeat.beat()
        heartbeat.beat()
    assert told == ["a"]


def test_nothing_is_asked_of_the_database_without_an_attempt(heartbeat: Heartbeat, database: Database) -> None:
    heartbeat.beat()
    assert database.renewed == []


def test_the_process_is_killed_when_patience_with_a_stop_ends(heartbeat: Heartbeat, switch: Switch) -> None:
    with watched(heartbeat, "a", claimed=1000.0) as watch:
        heartbeat.kill_if_watched_after(watch, 60 * SECOND)
        assert switch.deadline == 1060.0
        heartbeat.kill_if_watched_after(watch, 90 * SECOND)
        assert switch.deadline == 1060.0
        heartbeat.beat()
        assert switch.deadline == 1060.0


def test_the_thread_renews_by_itself(database: Database, wait_until: WaitUntil) -> None:
    switch = ThreadSwitch()
    heartbeat = Heartbeat(database.renew, interval=SECOND / 100, timeout=1000 * SECOND, switch=switch)
    with watched(heartbeat, "a", claimed=switch.now()):
        wait_until(lambda: len(database.renewed) > 1, "the heartbeat was renewed twice")
    heartbeat.end()


def test_the_thread_finds_an_attempt_overdue(heartbeat: Heartbeat, switch: Switch) -> None:
    called = threading.Event()
    with watched(heartbeat, "a", claimed=1000.0, lost=nothing, overdue=called.set) as watch:
        heartbeat.call_if_watched_after(watch, 5 * SECOND)
        assert not called.is_set()
        switch.time = 1005.0
        heartbeat.call_if_watched_after(watch, timedelta(0))
        assert called.wait(30)


def test_a_timeout_that_leaves_no_room_for_renewals_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task.heartbeat_timeout is 15 s, less than four times"):
        patience(interval=5 * SECOND, timeout=15 * SECOND)
    assert patience(interval=5 * SECOND, timeout=60 * SECOND) == 50 * SECOND


_KERNEL = """
import ctypes, workers.deadman as deadman
switch = deadman.KernelSwitch()
switch.arm(switch.now() + 0.1)
ctypes.PyDLL(None).sleep(60)  # C code that keeps the interpreter's lock
"""
_THREAD = """
import time, workers.deadman as deadman
switch = deadman.ThreadSwitch()
switch.arm(switch.now() + 60)
switch.arm(switch.now() + 0.1)
time.sleep(60)
"""
_DISARMED = """
import time, workers.deadman as deadman
for switch in (deadman.KernelSwitch(), deadman.ThreadSwitch()):
    switch.arm(switch.now() + 0.1)
    switch.disarm()
time.sleep(0.3)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread holds the switch")
def test_the_kernel_kills_a_process_that_keeps_the_interpreter_locked() -> None:
    assert subprocess.run([sys.executable, "-c", _KERNEL], check=False, timeout=60).returncode == -signal.SIGKILL


def test_a_thread_kills_the_process_where_the_kernel_does_not() -> None:
    assert subprocess.run([sys.executable, "-c", _THREAD], check=False, timeout=60).returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread holds the switch")
def test_a_switch_that_was_disarmed_kills_nobody() -> None:
    assert subprocess.run([sys.executable, "-c", _DISARMED], check=False, timeout=60).returncode == os.EX_OK


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread holds the switch")
def test_both_switches_have_a_clock_that_goes_on() -> None:
    for switch in (KernelSwitch(), ThreadSwitch()):
        assert switch.now() <= switch.now()


def test_an_attempt_whose_job_is_cancelled_learns_of_it_once_and_is_renewed_until_it_has_ended(
    heartbeat: Heartbeat, database: Database
) -> None:
    told: list[str] = []
    with watched(heartbeat, "a", claimed=900.0, lost=nothing, cancelled=lambda: told.append("a")):
        heartbeat.beat()
        assert told == []
        database.cancelled = {"a"}
        heartbeat.beat()
        heartbeat.beat()
    assert told == ["a"]
    assert database.renewed == [["a"]] * 3


def test_attempts_that_wait_for_another_are_renewed_with_it_and_last_only_once_they_run(
    heartbeat: Heartbeat, switch: Switch, database: Database
) -> None:
    told: list[str] = []
    waiting = Watch("b", 900.0)
    with watched(heartbeat, "a", lasting=lambda: told.append("a")):
        heartbeat.add([waiting])
        heartbeat.beat()
        assert told == ["a"]
    assert heartbeat.begin(waiting, began=1200.0, lost=nothing, lasting=lambda: told.append("b"))
    switch.time = 1210.0
    heartbeat.beat()
    heartbeat.beat()
    heartbeat.remove(waiting)
    assert database.renewed == [["a", "b"], ["b"], ["b"]]
    assert database.begun == [{}, {"b": 10.0}, {}]
    assert told == ["a", "b"]
    assert switch.deadline is None


def test_what_was_lost_or_cancelled_while_it_waited_does_not_begin(heartbeat: Heartbeat, database: Database) -> None:
    lost, cancelled, kept = (Watch(name, 900.0) for name in "abc")
    heartbeat.add([lost, cancelled, kept])
    database.current, database.cancelled = {"b", "c"}, {"b"}
    heartbeat.beat()
    assert [heartbeat.begin(watch, lost=nothing) for watch in (lost, cancelled, kept)] == [False, False, True]


def test_a_hurried_thread_renews_at_once(heartbeat: Heartbeat, database: Database, wait_until: WaitUntil) -> None:
    with watched(heartbeat, "a", claimed=1000.0):
        heartbeat.hurry()
        wait_until(lambda: database.renewed == [["a"]], "the heartbeat was renewed")


def test_an_order_to_look_is_followed_again_soon_where_the_database_did_not_answer(
    heartbeat: Heartbeat, database: Database, switch: Switch, wait_until: WaitUntil
) -> None:
    with watched(heartbeat, "a", claimed=1000.0):
        database.away = True
        heartbeat.hurry()
        wait_until(lambda: database.refused, "it was tried")
        database.away = False
        switch.time += 1  # far from the next renewal
        wait_until(lambda: database.renewed == [["a"]], "the heartbeat was renewed")


def test_the_thread_looks_when_it_is_asked_to_and_as_often_as_it_wants(
    switch: Switch, database: Database, wait_until: WaitUntil
) -> None:
    looks: list[float] = []

    def look(now: float) -> float | None:
        looks.append(now)
        return now if len(looks) < 3 else None

    heartbeat = Heartbeat(database.renew, interval=1000 * SECOND, timeout=5000 * SECOND, switch=switch, look=look)
    first, second = Watch("a", 1000.0), Watch("b", 1000.0)
    heartbeat.add([first])  # the thread sleeps until a renewal is due
    heartbeat.add([second], look_at=1000.0)
    wait_until(lambda: len(looks) == 3, "the thread has looked")
    heartbeat.end()
    assert looks == [1000.0] * 3


def test_the_thread_goes_on_when_there_is_memory_again(database: Database, wait_until: WaitUntil) -> None:
    ticks: list[int] = []

    def tick() -> bool:
        ticks.append(1)
        if len(ticks) < 3:
            raise MemoryError
        return True

    beating = Heartbeat(database.renew, interval=SECOND / 100, timeout=60 * SECOND, switch=Switch(), tick=tick)
    beating.add([Watch("a", 900.0)])
    wait_until(lambda: database.renewed, "the heartbeat is renewed")
    beating.end()
