"""How a running task is stopped: by a signal to its process, or because its time is over.

A signal arrives in the main thread, where the task runs. While the attempt's `Guard` is open the handler lets the task's `on_kill`
stop what it started, and then raises in the midst of the user's code; before and after it only notes the reason. In any case it
sets the time at which the process is killed if the attempt has not ended by then.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import lru_cache
from types import FrameType

from backfill.exceptions import TaskTimeout
from workers.outcome import StopReason, TaskStopped

logger = logging.getLogger(__name__)

#: From the order to stop to SIGKILL (S7.6); where others wait for this process to leave, less.
PATIENCE = {
    StopReason.TERMINATED: timedelta(seconds=60),
    StopReason.FENCED: timedelta(seconds=60),
    StopReason.CANCELLED: timedelta(seconds=10),
    StopReason.WORKER_STOPS: timedelta(seconds=10),
    StopReason.ORPHANED: timedelta(seconds=10),
}

#: What the kernel sends when the parent dies; the worker's main process never sends it itself.
_PARENT_DIED = signal.SIGHUP
#: Celery's main process sends the one or the other, depending on REMAP_SIGTERM; operators and executors send SIGTERM.
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGQUIT)
#: For a timer that ran out while it was not running, in seconds.
_SOON = 0.001
#: In which a worker is told that its children were told too, in seconds.
_MOMENT = 0.25

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2


class Guard:
    """The part of an attempt in which user code runs and may be stopped. Its owner sets the callables before it is opened."""

    def __init__(self) -> None:
        #: Called when a stop was asked for, with the time after which the process is to be killed.
        self.killed_after: Callable[[timedelta], None] = lambda _delay: None
        #: Called with each limit before it begins to run.
        self.limited_to: Callable[[timedelta], None] = lambda _limit: None
        #: Stops what the task started.
        self.on_kill: Callable[[], None] = lambda: None
        self.timed_out = False
        #: Whether user code may be interrupted now.
        self.is_open = False
        self._due: BaseException | None = None
        self._raised = False
        self._deferred = 0

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Hold back an interruption to the end of the block, so that it does not tear a statement of ours apart."""
        self._deferred += 1
        try:
            yield
        finally:
            self._deferred -= 1
            if self._due is not None and not self._deferred:
                due, self._due = self._due, None
                self._raise(due)

    def interrupt(self, error: BaseException) -> None:
        """Raise `error` in the user's code, now or at the end of the deferred block; only the first one is raised."""
        if not self.is_open or self._raised or self._due is not None:
            return
        if self._deferred:
            self._due = error
        else:
            self._raise(error)

    def kill(self) -> None:
        """Let the task stop what it started; what that raises is logged."""
        try:
            self.on_kill()
        except Exception:
            logger.exception("on_kill failed")

    def _raise(self, error: BaseException) -> None:
        self._raised = True
        logger.warning("%s", error)
        self.kill()
        raise error

    @contextmanager
    def time_limit(self, limit: timedelta) -> Iterator[None]:
        """Raise `TaskTimeout` in the block when `limit` is over (S6.5); timer and handler are then as they were before."""
        self.limited_to(limit)
        handler = signal.signal(signal.SIGALRM, lambda _number, _frame: self._time_is_over(limit))
        started = time.monotonic()
        left, interval = signal.setitimer(signal.ITIMER_REAL, limit.total_seconds())
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
            if left:
                signal.setitimer(signal.ITIMER_REAL, max(_SOON, left - (time.monotonic() - started)), interval)

    def _time_is_over(self, limit: timedelta) -> None:
        self.timed_out = True
        self.interrupt(TaskTimeout(f"execution_timeout of {limit} is over"))


class Interruption:
    """Receives the orders to stop of one process. `worker_stops` says whether the worker was told to stop.

    Handlers stand only while `listening`, in the main thread; else the process reacts as its owner has set it up.
    """

    def __init__(self, worker_stops: Callable[[], bool]) -> None:
        self._worker_stops = worker_stops
        self._parent = os.getppid()
        self._guard: Guard | None = None
        #: What was ordered of one attempt by another thread of this process.
        self._order: tuple[Guard, StopReason] | None = None
        #: Why the process was told to stop; the first reason counts. To be fenced concerns one attempt only.
        self.reason: StopReason | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take orders to stop for the length of the block, also from the death of the parent."""
        self.reason = None
        with ExitStack() as restore:
            for number in (*_STOP_SIGNALS, _PARENT_DIED):
                restore.callback(signal.signal, number, signal.signal(number, self._on_signal))
            restore.callback(_signal_at_death_of_parent, _signal_at_death_of_parent(_PARENT_DIED))
            if self.orphaned():  # it died before we asked to be told
                self.reason = StopReason.ORPHANED
            yield

    @contextmanager
    def guarding(self, guard: Guard) -> Iterator[Guard]:
        """Let an order to stop interrupt the block; one that came before interrupts it at once."""
        self._guard, guard.is_open = guard, True
        try:
            if self.reason is not None:
                self._interrupt(self.reason)
            yield guard
        finally:
            guard.is_open = False

    def fence(self, guard: Guard) -> None:
        """Stop the attempt of `guard` because it is not current any more, unless it has ended; for another thread."""
        self._stop(guard, StopReason.FENCED)

    def cancel(self, guard: Guard) -> None:
        """Stop the attempt of `guard` because its job is cancelled, unless it has ended; for another thread."""
        self._stop(guard, StopReason.CANCELLED)

    def orphaned(self) -> bool:
        """Return whether the parent is gone."""
        return os.getppid() != self._parent

    def notice_parent(self) -> None:
        """Stop if the parent is gone; for another thread, where the kernel does not tell."""
        if self.reason is None and self.orphaned():
            _signal_main_thread(_PARENT_DIED)

    def worker_stops_soon(self) -> bool:
        """Return whether the worker is told to stop, now or within a moment: one signal may reach all of its processes."""
        deadline = time.monotonic() + _MOMENT
        while not self._worker_stops() and time.monotonic() < deadline:
            time.sleep(_MOMENT / 25)
        return self._worker_stops()

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Hold back an interruption of the task to the end of the block."""
        if self._guard is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        with self._guard.deferred():
            yield

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == _PARENT_DIED and not self.orphaned():
            return  # a terminal that was closed, which is for the main process to judge
        order, self._order = self._order, None
        if order is None:
            self.reason = self.reason or self._why()
            self._interrupt(self.reason)
        elif order[0] is self._guard:
            self._interrupt(order[1])

    def _stop(self, guard: Guard, reason: StopReason) -> None:
        guard.killed_after(PATIENCE[reason])  # also where the task is in C code, or has a signal handler of its own
        self._order = guard, reason
        _signal_main_thread(signal.SIGTERM)

    def _why(self) -> StopReason:
        if self.orphaned():
            return StopReason.ORPHANED
        return StopReason.WORKER_STOPS if self._worker_stops() else StopReason.TERMINATED

    def _interrupt(self, reason: StopReason) -> None:
        guard = self._guard
        if guard is not None:
            guard.killed_after(PATIENCE[reason])
            guard.interrupt(TaskStopped(reason))


def _signal_main_thread(number: signal.Signals) -> None:
    """Signal the thread that runs the task: one that any thread may take need not wake it from a system call."""
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, number)


def _signal_at_death_of_parent(number: int) -> int:
    """Have the kernel send `number` (0: nothing) when the parent dies; return what it would have sent so far (Linux only)."""
    if sys.platform != "linux":
        return 0
    libc = _c_library()
    before = ctypes.c_int()
    libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(before), 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    return before.value


@lru_cache(maxsize=1)
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None)
