"""Time that stands still until somebody moves it, and threads of which one at a time goes on, as far as it is allowed to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from backfill.executors import Mailbox

#: The present of the simulated world at its beginning.
BEGINNING = datetime(2024, 6, 1, tzinfo=UTC)
#: More turns than anybody takes in one go: until there is nothing left to do.
UNTIL_IDLE = 1_000_000
#: Seconds of real time after which a thread that does not come back counts as stuck.
_STUCK_AFTER = 60


class FrozenTime:
    """Seconds since the beginning of the world: the database's time, and everybody's."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return BEGINNING + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


class KilledError(BaseException):
    """The process is dead: it writes nothing more, says nothing more, and nobody catches this."""


class Turns:
    """A process of the simulated world: a thread that goes on only when it is its turn, and hands over at every step that shows outside.

    So any interleaving of processes can be had, and had again. It is a `backfill.clock.Clock` as well: to sleep is to hand over.
    """

    def __init__(self, time: FrozenTime, name: str, act: Callable[[], None]) -> None:
        self._time = time
        self._allowed = 0
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._killed = False
        self._thread = threading.Thread(target=self._live, args=(act,), name=name, daemon=True)
        self._started = False
        self.ended = False
        #: It sleeps until this moment, or until `_ready`; None: it has something to do.
        self.asleep_until: float | None = None
        self._ready: Callable[[], bool] = lambda: False

    # -- for those who give turns ---------------------------------------------------------------------------------------

    @property
    def can_go_on(self) -> bool:
        if self.ended:
            return False
        return self.asleep_until is None or self.asleep_until <= self._time.seconds or self._ready()

    def go_on(self, turns: int = UNTIL_IDLE) -> None:
        """Let it take so many turns, or fewer if it falls asleep or ends."""
        if not self.can_go_on:
            return
        self._allowed = turns
        self._hand_over_to_it()

    def kill(self) -> None:
        """End it where it stands, as SIGKILL does."""
        self._killed = True
        if not self.ended:
            self._hand_over_to_it()
        assert self.ended

    def _hand_over_to_it(self) -> None:
        if not self._started:
            self._started = True
            self._thread.start()
        else:
            self._go.release()
        if not self._back.acquire(timeout=_STUCK_AFTER):
            raise TimeoutError(f"{self._thread.name} does not come back")

    # -- for the process itself -----------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Take a turn; called before every step that others can see."""
        while self._allowed <= 0:
            self._hand_back()
        self._die_if_killed()
        self._allowed -= 1

    def sleep_until(self, moment: float, ready: Callable[[], bool] = lambda: False) -> None:
        self._ready = ready
        while moment > self._time.seconds and not ready():
            self.asleep_until = moment
            self._hand_back()
        self.asleep_until = None

    def _hand_back(self) -> None:
        self._die_if_killed()
        self._back.release()
        self._go.acquire()
        self._die_if_killed()

    def _die_if_killed(self) -> None:
        if self._killed:
            raise KilledError

    def _live(self, act: Callable[[], None]) -> None:
        try:
            self._die_if_killed()
            act()
        except KilledError:
            pass
        finally:
            self.ended = True
            self._back.release()

    # -- as a clock -----------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        return self._time.now()

    def monotonic(self) -> float:
        return self._time.seconds

    def sleep(self, seconds: float) -> None:
        self.sleep_until(self._time.seconds + seconds)


class FrozenMailbox(Mailbox):
    """A mailbox whose reader sleeps in frozen time."""

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self._turns = turns
        self._mail = 0

    def put(self, event: object) -> None:
        self._mail += 1
        super().put(event)  # type: ignore[arg-type]

    def wake(self) -> None:
        self._mail += 1
        super().wake()

    def wait(self, timeout: float | None = None) -> bool:
        deadline = float("inf") if timeout is None else self._turns.monotonic() + timeout
        self._turns.sleep_until(deadline, ready=lambda: self._mail > 0)
        self._mail = 0
        return super().wait(0)

    def gather(self, seconds: float, enough: int) -> None:
        self._turns.sleep_until(self._turns.monotonic() + seconds, ready=lambda: self._mail >= enough)
