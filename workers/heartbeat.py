"""One thread per process proves that the attempts of the process live, and finds out which are not its own any more (S7.6)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from backfill.exceptions import ConfigError
from workers.deadman import DeadMansSwitch

logger = logging.getLogger(__name__)

#: A renewal that failed is tried again after at most this long, in seconds.
_RETRY_AFTER = 1.0
#: Pause of the thread where there is no memory for what it has to do, in seconds. The task in the main thread uses it up, and fails.
_WITHOUT_MEMORY = 0.1


def _nothing() -> None:
    """Do nothing."""


class Renewal(NamedTuple):
    """What the rows say when heartbeats are renewed, by attempt id."""

    #: Those that are still current.
    current: AbstractSet[str]
    #: Of these, the ones whose job is being cancelled (S11.5): they stay current until they have ended.
    cancelled: AbstractSet[str] = frozenset()


Renew = Callable[[Sequence[str], Mapping[str, float]], Renewal]


def patience(*, interval: timedelta, timeout: timedelta) -> timedelta:
    """Return how long an attempt may run on without a renewed heartbeat: until two intervals before `timeout` ends.

    Raises `ConfigError` where that would leave no room for two renewals.
    """
    if timeout < 4 * interval:
        raise ConfigError(
            f"task.heartbeat_timeout is {timeout.total_seconds():g} s, less than four times task.heartbeat_interval"
            f" ({interval.total_seconds():g} s): raise the one or lower the other."
        )
    return timeout - 2 * interval


@dataclass(eq=False, slots=True)
class Watch:
    """One attempt from its claim to its end. Times are on the clock of the switch."""

    attempt_id: str
    #: When its heartbeat was last known to be good.
    renewed: float
    #: When its task began; None: it waits for the one before it, or began with its claim.
    began: float | None = None
    #: Called once, by the thread, when the attempt is not current any more.
    lost: Callable[[], None] = _nothing
    #: Called once, by the thread, when its job is being cancelled.
    cancelled: Callable[[], None] = _nothing
    #: Called once, by the thread, if the attempt is still watched at `due`.
    overdue: Callable[[], None] = _nothing
    #: Called once, by the thread, after the first renewal since the task began.
    lasting: Callable[[], None] = _nothing
    due: float | None = None
    #: When the process is killed at the latest, whatever its heartbeat.
    killed_at: float | None = None
    has_begun: bool = False
    is_lost: bool = False
    is_cancelled: bool = False
    is_lasting: bool = False


class Heartbeat:
    """Renews the heartbeat of each watched attempt `interval` after its claim and then every `interval`; else it sleeps.

    `renew` takes attempt ids, and of some how many seconds ago they began; it writes their heartbeats and returns what their rows
    say, and raises if it cannot. `tick` is called each time the thread wakes, and says whether it wants to be called again
    though nothing is watched. `look` is called with the present time, and returns when it wants to be called again, if it does.
    """

    def __init__(
        self,
        renew: Renew,
        *,
        interval: timedelta,
        timeout: timedelta,
        switch: DeadMansSwitch,
        tick: Callable[[], bool] = lambda: False,
        look: Callable[[float], float | None] = lambda _now: None,
    ) -> None:
        self._renew = renew
        self._interval = interval.total_seconds()
        self._patience = patience(interval=interval, timeout=timeout).total_seconds()
        self._switch = switch
        self._tick = tick
        self._look = look
        #: Guards what follows; notified when the thread has to look again before it would by itself.
        self._changed = threading.Condition()
        self._watches: list[Watch] = []
        #: When a renewal that failed is tried again.
        self._retry_at: float | None = None
        #: When the thread wakes by itself; None: not before it is notified.
        self._wakes_at: float | None = 0.0
        self._look_at: float | None = None
        self._hurried = False
        self._ended = False
        self._thread: threading.Thread | None = None

    def now(self) -> float:
        """Return the present time on the clock of the switch."""
        return self._switch.now()

    def add(self, watches: Sequence[Watch], *, look_at: float | None = None) -> None:
        """Keep the heartbeats of claimed attempts alive from now on, with the dead man's switch armed.

        `renewed` of each is a time before its claim was sent, when its heartbeat was certainly good. `look` is called at `look_at`.
        """
        with self._changed:
            self._watches += watches
            self._rearm()
            if look_at is not None and (self._look_at is None or look_at < self._look_at):
                self._look_at = look_at
            self._wake(look_at)

    def begin(
        self,
        watch: Watch,
        *,
        began: float | None = None,
        lost: Callable[[], None],
        cancelled: Callable[[], None] = _nothing,
        overdue: Callable[[], None] = _nothing,
        lasting: Callable[[], None] = _nothing,
    ) -> bool:
        """Let the task of a watched attempt begin; False: the attempt is not ours any more, or its job is being cancelled.

        `began` is given where that is later than the claim.
        """
        with self._changed:
            if watch.is_lost or watch.is_cancelled:
                return False
            watch.has_begun, watch.began = True, began
            watch.lost, watch.cancelled, watch.overdue, watch.lasting = lost, cancelled, overdue, lasting
            return True

    def remove(self, *watches: Watch) -> None:
        """Watch these no longer."""
        with self._changed:
            for watch in watches:
                if watch in self._watches:
                    self._watches.remove(watch)
            # those that stay were claimed together with these: only an order to stop moves the switch
            if not self._watches or any(watch.killed_at is not None for watch in watches):
                self._rearm()

    def hurry(self) -> None:
        """Have the thread renew at once, and find out what the rows say."""
        with self._changed:
            self._hurried = True
            self._changed.notify()

    def call_if_watched_after(self, watch: Watch, delay: timedelta) -> None:
        """Have `overdue` called if the attempt is still watched after `delay`."""
        with self._changed:
            watch.due = self.now() + delay.total_seconds()
            self._changed.notify()

    def kill_if_watched_after(self, watch: Watch, delay: timedelta) -> None:
        """Have the process killed if the attempt is still watched after `delay`. May be called in a signal handler."""
        with self._changed:
            latest = self.now() + delay.total_seconds()
            watch.killed_at = latest if watch.killed_at is None else min(latest, watch.killed_at)
            self._rearm()

    def end(self) -> None:
        """End the thread and wait for it."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def beat(self) -> None:
        """Renew the heartbeats of all that is watched, and act on what that says; errors are logged."""
        with self._changed:
            self._hurried = False
            watches = [watch for watch in self._watches if not watch.is_lost]
            sent = self.now()
            begun = {
                watch.attempt_id: sent - watch.began
                for watch in watches
                if watch.began is not None and not watch.is_lasting
            }
        if not watches:
            return
        try:
            renewal = self._renew([watch.attempt_id for watch in watches], begun)
        except Exception as error:  # noqa: BLE001  # whatever it is: the switch decides when it has lasted too long
            self._retry_at = self.now() + min(_RETRY_AFTER, self._interval / 2)
            logger.warning("The heartbeat could not be renewed: %s", error)
        else:
            self._retry_at = None
            self._note(watches, renewal, sent, begun.keys())

    def _note(self, watches: list[Watch], renewal: Renewal, sent: float, begun: AbstractSet[str]) -> None:
        calls: list[Callable[[], None]] = []
        with self._changed:
            for watch in watches:
                if watch.attempt_id not in renewal.current:
                    watch.is_lost = True
                    calls += [watch.lost] if watch in self._watches else []
                    continue
                watch.renewed = sent
                if watch.attempt_id in renewal.cancelled and not watch.is_cancelled:
                    watch.is_cancelled = True
                    calls += [watch.cancelled] if watch in self._watches else []
                if not watch.is_lasting and watch.has_begun and (watch.began is None or watch.attempt_id in begun):
                    watch.is_lasting = True
                    calls.append(watch.lasting)
            self._rearm()
        for call in calls:
            call()

    def _rearm(self) -> None:
        deadlines = [watch.renewed + self._patience for watch in self._watches]
        deadlines += [watch.killed_at for watch in self._watches if watch.killed_at is not None]
        if deadlines:
            self._switch.arm(min(deadlines))
        else:
            self._switch.disarm()

    def _wake(self, look_at: float | None) -> None:
        """Start or notify the thread if it would sleep too long by itself."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
            self._thread.start()
        elif self._wakes_at is None or (look_at is not None and look_at < self._wakes_at):
            self._wakes_at = look_at or 0.0
            self._changed.notify()

    def _run(self) -> None:
        while True:
            try:
                if not self._sleep():
                    return
                self._do_what_is_due()
            except MemoryError:  # the thread must outlive the task: nobody would renew the heartbeats of the next ones
                time.sleep(_WITHOUT_MEMORY)

    def _do_what_is_due(self) -> None:
        if self._renewal_is_due():
            self.beat()
        self._call_overdue()
        self._look_if_due()

    def _sleep(self) -> bool:
        """Wait until something may be to do; return False at the end."""
        more = self._tick()
        with self._changed:
            if not self._ended and not self._hurried:
                left = self._until_next() if self._watches or more or self._look_at is not None else None
                self._wakes_at = None if left is None else self.now() + left
                self._changed.wait(left)
                self._wakes_at = 0.0
            return not self._ended

    def _until_next(self) -> float:
        """Return the seconds until the next renewal, retry, look or due time."""
        now = self.now()
        moments = [watch.renewed + self._interval for watch in self._watches if not watch.is_lost]
        soonest = min(moments, default=now + self._interval) if self._retry_at is None else self._retry_at
        dues = [watch.due for watch in self._watches if watch.due is not None]
        looks = [] if self._look_at is None else [self._look_at]
        return max(0.0, min([soonest, *dues, *looks]) - now)

    def _look_if_due(self) -> None:
        now = self.now()
        with self._changed:
            if self._look_at is None or self._look_at > now:
                return
            self._look_at = None
        again = self._look(now)
        if again is not None:
            with self._changed:
                self._look_at = again if self._look_at is None else min(again, self._look_at)

    def _renewal_is_due(self) -> bool:
        now = self.now()
        with self._changed:
            if self._hurried:
                return True
            if self._retry_at is not None:
                return now >= self._retry_at
            return any(now >= watch.renewed + self._interval for watch in self._watches)

    def _call_overdue(self) -> None:
        now = self.now()
        with self._changed:
            overdue = [watch for watch in self._watches if watch.due is not None and watch.due <= now]
            for watch in overdue:
                watch.due = None
        for watch in overdue:
            watch.overdue()
