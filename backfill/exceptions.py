"""Every error of the system, in one tree.

BackfillError                      exit code 1
├── UsageError                     2   wrong use: a value the operator gave cannot be used
│   ├── ConfigError                    a setting is missing, unknown or malformed
│   ├── DagNotFound                    no DAG of that id or file
│   ├── DagChanged                     a DAG file is not the one that a job was made with
│   ├── DagImportError                 a DAG file cannot be loaded (file and line)
│   ├── DagError                       a DAG is wrong in itself: a cycle, a duplicate task id, an unknown rule
│   ├── NoTaskMatches                  no task id has a match of the task regex
│   ├── UnknownPool, UnknownExecutor
│   │   └── PoolTooSmall               a task takes more slots than its pool has
│   └── SchemaMismatch                 the database's schema is older or newer than this version's
├── RefusedError                   5   refused, or nothing to do
│   ├── NothingToDo                    no run date is left
│   ├── BackwardsRefused               a task depends on the past
│   ├── Declined                       the operator was asked, and did not say yes
│   └── DateOwned                      another job or run owns a date of the range
├── ServiceUnavailable             69  database or broker does not answer
├── JobHeld                        75  another coordinator drives this job
│   └── LeaseLost                      it did not when we started; ours ran out
├── Interrupted                    130 the job was left resumable
├── BackfillUnfinished             1, 3 or 4: the job ended, but not well; `.report` says what and why
├── MessageError                       a message to a worker is no message of ours
├── FrozenDagError                     a shipped DAG is unsigned, tampered with or of another Python
└── TaskSignal                         what a task raises to end in a way of its own
    ├── SkipTask                       end as `skipped`
    ├── FailTask                       end as `failed`, no retry
    ├── RescheduleTask                 look again at a later date, within the same try
    ├── SensorTimeout                  a sensor's time is over; no retry
    └── TaskTimeout                    `execution_timeout` is over; retryable
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from datetime import datetime


class BackfillError(Exception):
    """Base of all errors that the system raises by design; its text is one sentence for the operator."""

    #: What the command line exits with when this error ends the command (interface.md, section 3).
    exit_code: ClassVar[int] = 1


class UsageError(BackfillError):
    """Raised when a value that the operator gave cannot be used."""

    exit_code = 2


class ConfigError(UsageError):
    """Raised when a setting is unknown, malformed or contradicts another."""


class DagNotFound(UsageError):
    """Raised when no DAG has the id, or no file the path, that was asked for."""


class DagChanged(UsageError):
    """Raised when a DAG file has another content than the one that a job was made with."""


class DagImportError(UsageError):
    """Raised when a DAG file cannot be loaded.

    `file` is its path, `line` the line at fault where known, `reason` the cause in one clause.
    """

    def __init__(self, file: str, line: int | None, reason: str) -> None:
        self.file = file
        self.line = line
        self.reason = reason
        where = file if line is None else f"{file}, line {line}"
        super().__init__(f"The DAG file {where} cannot be loaded: {reason}.")


class DagError(UsageError):
    """Raised when a DAG is wrong in itself, wherever it was written."""


class NoTaskMatches(UsageError):
    """Raised when no task of the DAG has an id that the task regex matches."""


class UnknownPool(UsageError):
    """Raised when a chosen task, or `--pool`, names a pool that does not exist."""


class PoolTooSmall(UnknownPool):
    """Raised when a chosen task takes more slots than its pool has."""


class UnknownExecutor(UsageError):
    """Raised when a chosen task names an executor that does not exist."""


class SchemaMismatch(UsageError):
    """Raised when the database's schema is older or newer than this version of the program expects."""


class RefusedError(BackfillError):
    """Raised when the command is understood but must not be carried out; nothing was changed."""

    exit_code = 5


class NothingToDo(RefusedError):
    """Raised when no run date is left to backfill (S2.5)."""


class BackwardsRefused(RefusedError):
    """Raised when a range is to run backwards in which a chosen task depends on the past."""


class Declined(RefusedError):
    """Raised when the operator was asked whether to go on, and did not say yes; nothing was changed."""


class DateOwned(RefusedError):
    """Raised when another active job, or a running run of another type, owns a date of the range (S2.6)."""


class ServiceUnavailable(BackfillError):
    """Raised when the database or the broker does not answer, also after patient repetition (S1.8)."""

    exit_code = 69


class JobHeld(BackfillError):
    """Raised when another coordinator holds the job's lease."""

    exit_code = 75


class LeaseLost(JobHeld):
    """Raised by the first write after the lease ran out or was taken over; the writer must stop (S1.4)."""


class Interrupted(BackfillError):
    """Raised after an interrupt has been carried out: the job is paused and can be resumed (S11.4)."""

    exit_code = 130


class MessageError(BackfillError):
    """Raised when a message is not of this wire contract; it is dropped without effect."""


class FrozenDagError(BackfillError):
    """Raised when a shipped DAG is unsigned, tampered with, or made by another Python version."""


class TaskSignal(BackfillError):
    """Base of what a task raises to end in a way of its own."""


class SkipTask(TaskSignal):
    """Raised by a task to end as `skipped` (S3.10)."""


class FailTask(TaskSignal):
    """Raised by a task to end as `failed` without a retry (S3.12)."""


class RescheduleTask(TaskSignal):
    """Raised by a task to be started again at `reschedule_date`, within the same try (S3.13)."""

    def __init__(self, reschedule_date: datetime) -> None:
        self.reschedule_date = reschedule_date
        super().__init__(f"to be looked at again at {reschedule_date.isoformat()}")


class SensorTimeout(TaskSignal):
    """Raised when a sensor has waited for its whole `timeout` (S6.7); never retried."""


class TaskTimeout(TaskSignal):
    """Raised in a task whose `execution_timeout` is over (S6.5); retryable."""


class BackfillUnfinished(BackfillError):
    """Raised by `BackfillJob.run()` when the job ended, but not as `success` (S1.9).

    `report` is the job's `backfill.jobs.report.Report`: final state, counts, and each task instance at fault with its reason.
    """

    def __init__(self, message: str, report: object, exit_code: int = 1) -> None:
        super().__init__(message)
        self.report = report
        self.exit_code = exit_code  # type: ignore[misc]  # 1 failed, 3 deadlocked, 4 cancelled: known per report


#: Names under which DAG files written for Airflow know these.
AirflowException = BackfillError
AirflowSkipException = SkipTask
AirflowFailException = FailTask
AirflowRescheduleException = RescheduleTask
AirflowSensorTimeout = SensorTimeout
AirflowTaskTimeout = TaskTimeout
