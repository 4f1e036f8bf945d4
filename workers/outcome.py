"""How an attempt ended, as a value: what the task did is judged here, what follows from it is decided by `workers.verdict`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from backfill.exceptions import FailTask, RescheduleTask, SensorTimeout, SkipTask


class StopReason(Enum):
    """Why a running task is stopped from outside of it."""

    #: SIGTERM to the task's process: an operator, a cancel (S3.11).
    TERMINATED = "terminated"
    #: The worker shuts down: the attempt is handed back (S3.15).
    WORKER_STOPS = "worker stops"
    #: The attempt's job is being cancelled: it fails, without a retry (S11.5).
    CANCELLED = "its job is cancelled"
    #: The attempt is not current any more: nothing is written (S7.6).
    FENCED = "fenced"
    #: The worker's main process, or the coordinator that runs the task itself, is gone (S8.3).
    ORPHANED = "orphaned"


class TaskStopped(BaseException):
    """Raised in the task's main thread to stop it; no `except Exception` of the user's holds it up."""

    def __init__(self, reason: StopReason) -> None:
        self.reason = reason
        super().__init__(f"the task was stopped ({reason.value})")


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The task returned, or left with exit code 0 (S3.9)."""

    #: XComs to push with the final state, by key.
    xcoms: Mapping[str, Any] = field(default_factory=dict)
    #: Task ids that the task decided to skip; None: it decides nothing (S4.8).
    skips: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """The task asked to be skipped (S3.10)."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Failed:
    """The task, or what the system does around it, failed (S3.11, S3.12)."""

    error: BaseException
    retryable: bool = True


@dataclass(frozen=True, slots=True)
class Rescheduled:
    """The task wants to be looked at again within the same try (S3.13)."""

    date: datetime


@dataclass(frozen=True, slots=True)
class HandedBack:
    """The worker stops before the task ended: another one takes the attempt (S3.15)."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """The attempt is not ours any more; whatever the task did, no state is written (S7.6)."""


@dataclass(frozen=True, slots=True)
class Orphaned:
    """Nobody is left who runs this attempt; the coordinator judges it as an infrastructure failure (S8.3)."""


Outcome = Succeeded | Skipped | Failed | Rescheduled | HandedBack | Fenced | Orphaned

_STOPS: dict[StopReason, Outcome] = {
    StopReason.WORKER_STOPS: HandedBack(),
    StopReason.FENCED: Fenced(),
    StopReason.ORPHANED: Orphaned(),
}


def outcome_of(error: BaseException) -> Outcome:
    """Return what it means that the task ended with `error`."""
    match error:
        case SkipTask():
            return Skipped(error)
        case FailTask() | SensorTimeout():
            return Failed(error, retryable=False)
        case RescheduleTask():
            return Rescheduled(error.reschedule_date)
        case SystemExit(code=None | 0):
            return Succeeded()
        case TaskStopped(reason=StopReason.CANCELLED):
            return Failed(error, retryable=False)
        case TaskStopped():
            return _STOPS.get(error.reason, Failed(error))
        case _:
            return Failed(error)


def error_text(error: BaseException) -> str:
    """Return `error` as the text that is kept with the row: class and message."""
    match error:
        case SystemExit():
            return f"the task ended with exit code {error.code!r}"
        case TaskStopped(reason=StopReason.CANCELLED):
            return "the job was cancelled"
        case TaskStopped():
            return "the task's process was told to stop (SIGTERM)"
        case _:
            return f"{type(error).__name__}: {_message(error)}".removesuffix(": ")


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:  # noqa: BLE001  # a user's __str__ may fail in any way
        return f"(its text cannot be made: {type(second).__name__})"
