"""One thread per process proves that the attempts of the process live, and finds out which are not its own any more (S7.6)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence, Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from backfill.exceptions import ConfigError
from workers.deadman import DeadMansSwitch

logger = logging.getLogger(__name__)

#: A renewal that failed is tried again after at most this long, in seconds.
_RETRY_AFTER = 1.0


def _nothing() -> None:
    """Do nothing."""


class Renewal(NamedTuple):
    """What the rows say when heartbeats are renewed, by attempt id."""

    #: Those that are still current.
    current: AbstractSet[str]
    #: Of these, the ones whose job is being cancelled (S11.5): they stay current until they have ended.
    cancelled: AbstractSet[str] = frozenset()


Renew = Callable[[Sequence[str]], Renewal]


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


@dataclass(eq=False, slots=True, kw_only=True)
class Watch:
    """One attempt while user code may run in it. Times are on the clock of the switch."""

    attempt_id: str
    #: When its heartbeat was last known to be good.
    renewed: float
    #: Called once, by the thread, when the attempt is not current any more.
    lost: Callable[[], None]
    #: Called once, by the thread, when its job is being cancelled.
    cancelled: Callable[[], None]
    #: Called once, by the thread, if the attempt is still watched at `due`.
    overdue: Callable[[], None]
    #: Called once, by the thread, after the first renewal.
    lasting: Callable[[], None]
    due: float | None = None
    #: When the process is killed at the latest, whatever its heartbeat.
    killed_at: float | None = None
    is_lost: bool = False
    is_cancelled: bool = False
    is_lasting: bool = False


class Heartbeat:
    """Renews the heartbeat of each watched attempt `interval` after its claim and then every `interval`; else it sleeps.

    `renew` takes attempt ids, writes their heartbeats and returns what their rows say; it raises if it cannot. `tick` is
    called each time the thread wakes, and says whether it wants to be called again though nothing is watched.
    """

    def __init__(
        self,
        renew: Renew,
        *,
        interval: timedelta,
        timeout: timedelta,
        switch: DeadMansSwitch,
        tick: Callable[[], bool] = lambda: False,
    ) -> None:
        self._renew = renew
        self._interval = interval.total_seconds()
        self._patience = patience(interval=interval, timeout=timeout).total_seconds()
        self._switch = switch
        self._tick = tick
        #: Guards what follows; notified when the thread has to look again before it would by itself.
        self._changed = threading.Condition()
        self._watches: list[Watch] = []
        self._failing = False
        self._asleep = False
        self._ended = False
        self._thread: threading.Thread | None = None

    def now(self) -> float:
        """Return the present time on the clock of the switch."""
        return self._switch.now()

    @contextmanager
    def watch(
        self,
        attempt_id: str,
        *,
        claimed: float,
        lost: Callable[[], None],
        cancelled: Callable[[], None] = _nothing,
        overdue: Callable[[], None] = _nothing,
        lasting: Callable[[], None] = _nothing,
    ) -> Iterator[Watch]:
        """Keep the heartbeat of an attempt alive for the length of the block, and the dead man's switch armed.

        `claimed` is a time before its claim was sent, when its heartbeat was certainly good.
        """
        watch = Watch(
            attempt_id=attempt_id, renewed=claimed, lost=lost, cancelled=cancelled, overdue=overdue, lasting=lasting
        )
        with self._changed:
            self._watches.append(watch)
            self._rearm()
            self._wake()
        try:
            yield watch
        finally:
            with self._changed:
                self._watches.remove(watch)
                self._rearm()

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
            watches = [watch for watch in self._watches if not watch.is_lost]
        if not watches:
            return
        sent = self.now()
        try:
            renewal = self._renew([watch.attempt_id for watch in watches])
        except Exception as error:  # noqa: BLE001  # whatever it is: the switch decides when it has lasted too long
            self._failing = True
            logger.warning("The heartbeat could not be renewed: %s", error)
        else:
            self._failing = False
            self._note(watches, renewal, sent)

    def _note(self, watches: list[Watch], renewal: Renewal, sent: float) -> None:
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
                if not watch.is_lasting:
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

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
            self._thread.start()
        elif self._asleep:
            self._changed.notify()

    def _run(self) -> None:
        while self._sleep():
            if self._renewal_is_due():
                self.beat()
            self._call_overdue()

    def _sleep(self) -> bool:
        """Wait until something may be to do; return False at the end."""
        more = self._tick()
        with self._changed:
            if not self._ended:
                self._asleep = not (self._watches or more)
                self._changed.wait(None if self._asleep else self._until_next())
                self._asleep = False
            return not self._ended

    def _until_next(self) -> float:
        """Return the seconds until the next renewal, retry or due time."""
        now = self.now()
        moments = [watch.renewed + self._interval for watch in self._watches if not watch.is_lost]
        soonest = min(moments, default=now + self._interval)
        if self._failing:
            soonest = max(soonest, now + min(_RETRY_AFTER, self._interval / 2))
        dues = [watch.due for watch in self._watches if watch.due is not None]
        return max(0.0, min([soonest, *dues]) - now)

    def _renewal_is_due(self) -> bool:
        now = self.now()
        with self._changed:
            return any(now >= watch.renewed + self._interval for watch in self._watches)

    def _call_overdue(self) -> None:
        now = self.now()
        with self._changed:
            overdue = [watch for watch in self._watches if watch.due is not None and watch.due <= now]
            for watch in overdue:
                watch.due = None
        for watch in overdue:
            watch.overdue()
