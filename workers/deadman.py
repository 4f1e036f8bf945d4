"""The dead man's switch: a process that cannot prove that its attempt is still its own is killed, whatever it is doing (S7.6).

On Linux the kernel holds the switch, a POSIX timer that sends SIGKILL: it works while the process is stopped, or while C code
keeps the interpreter's lock for minutes, and it counts the time that the machine is suspended. Elsewhere a thread does it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from typing import Protocol


class DeadMansSwitch(Protocol):
    """Kills this process when a deadline passes that was neither moved nor lifted."""

    def now(self) -> float:
        """Return the present time of the clock that deadlines are on, in seconds."""
        ...

    def arm(self, deadline: float) -> None:
        """Set the deadline, in place of any other."""
        ...

    def disarm(self) -> None:
        """Lift the deadline."""
        ...


_CLOCK_BOOTTIME = 7
_SIGEV_SIGNAL = 0
_TIMER_ABSTIME = 1


class _SignalEvent(ctypes.Structure):
    """`struct sigevent`, filled up to its size in the kernel's interface, 64 bytes."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("unused", ctypes.c_char * (64 - ctypes.sizeof(ctypes.c_void_p) - 2 * ctypes.sizeof(ctypes.c_int))),
    )


class _TimerSpec(ctypes.Structure):
    """`struct itimerspec`: interval and deadline, each in seconds and nanoseconds."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns"))


class KernelSwitch:
    """Held by Linux. Belongs to the process that made it: timers do not pass to a fork."""

    def __init__(self) -> None:
        self._libc = _timer_library()
        self._timer = ctypes.c_void_p()
        event = _SignalEvent(signal=signal.SIGKILL, notify=_SIGEV_SIGNAL)
        _check(self._libc.timer_create(_CLOCK_BOOTTIME, ctypes.byref(event), ctypes.byref(self._timer)))

    def now(self) -> float:
        """Return seconds since the machine was booted, suspended time included."""
        return time.clock_gettime(_CLOCK_BOOTTIME)

    def arm(self, deadline: float) -> None:
        """Set the deadline, in place of any other."""
        seconds = int(deadline)
        self._set(_TimerSpec(value_s=seconds, value_ns=max(1, int((deadline - seconds) * 1e9))))

    def disarm(self) -> None:
        """Lift the deadline."""
        self._set(_TimerSpec())

    def _set(self, spec: _TimerSpec) -> None:
        _check(self._libc.timer_settime(self._timer, _TIMER_ABSTIME, ctypes.byref(spec), None))


def _timer_library() -> ctypes.CDLL:
    """Return the C library that has POSIX timers: glibc moved them from librt in 2.34."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "timer_create"):
        libc = ctypes.CDLL("librt.so.1", use_errno=True)
    libc.timer_settime.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    return libc


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class ThreadSwitch:
    """Held by a thread of this process, where the kernel offers nothing; helpless while C code keeps the interpreter's lock."""

    def __init__(self) -> None:
        self._deadline: float | None = None
        self._changed = threading.Condition()
        threading.Thread(target=self._watch, name="dead-mans-switch", daemon=True).start()

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def arm(self, deadline: float) -> None:
        """Set the deadline, in place of any other."""
        with self._changed:
            earlier = self._deadline is None or deadline < self._deadline
            self._deadline = deadline
            if earlier:  # the thread finds a later one by itself
                self._changed.notify()

    def disarm(self) -> None:
        """Lift the deadline."""
        with self._changed:
            self._deadline = None

    def _watch(self) -> None:
        with self._changed:
            while True:
                left = None if self._deadline is None else self._deadline - self.now()
                if left is not None and left <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                self._changed.wait(left)


def dead_mans_switch() -> DeadMansSwitch:
    """Return a switch for this process, held by the kernel where it can be."""
    if sys.platform != "linux":
        return ThreadSwitch()
    try:
        return KernelSwitch()
    except (OSError, AttributeError):  # another C library, or a sandbox that forbids timers
        return ThreadSwitch()
