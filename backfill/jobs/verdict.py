"""What an event means for the row that it is about (S8.1 to S8.4). Pure: an event and a row in, a verdict out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from backfill.engine.retries import is_eligible
from backfill.facts import TaskInstanceFacts
from backfill.keys import TaskInstanceKey
from backfill.messages import ExecutorEvent
from backfill.states import FINISHED, IN_FLIGHT, TaskInstanceState


@dataclass(frozen=True, slots=True)
class Lost:
    """An infrastructure failure within its budget: the row goes back to `none` (S3.15)."""

    task_instance_id: int
    attempt_id: str | None
    error: str
    #: Whether it costs budget; what was lost together with others, of which nobody knows which was at fault, does not (S8.3).
    charged: bool = True


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt that counts as failed (S3.14, S3.16): a retry after `retry_delay`, or none."""

    task_instance_id: int
    attempt_id: str | None
    error: str
    retry: bool


Verdict = Lost | Failed

#: Ends the reason of an infrastructure failure that is not repeated any more (S8.3).
_BEYOND_BUDGET = "; its infrastructure budget of {} lost attempts (task.infrastructure_retries) is used up"

#: States in which an executor says that an attempt is over.
OVER = FINISHED | {TaskInstanceState.UP_FOR_RETRY, TaskInstanceState.UP_FOR_RESCHEDULE}


@dataclass(frozen=True, slots=True)
class Budget:
    """How often attempts may be lost, and whether a task may try again."""

    infrastructure_retries: int
    disable_retry: bool


def judge(
    event: ExecutorEvent,
    row: TaskInstanceFacts,
    key: TaskInstanceKey,
    *,
    budget: Budget,
    retries: int,
    host: str | None = None,
) -> Verdict | None:
    """Return what has to be written after `event`, or None where the row decides or the event is stale.

    `retries` is the task's own number: without it nothing is retried (S6.2). `host` is where the attempt runs, if that is known.
    """
    if is_stale(event, row) or event.state not in OVER or row.state not in IN_FLIGHT:
        return None
    message = _message(event, row, key, host)
    if event.infrastructure and (event.alone or row.infrastructure_failures < budget.infrastructure_retries):
        return Lost(row.id, row.attempt_id, message, charged=not event.alone)
    retry = is_eligible(
        retries=retries, try_number=row.try_number, max_tries=row.max_tries, disable_retry=budget.disable_retry
    )
    beyond = _BEYOND_BUDGET.format(budget.infrastructure_retries) if event.infrastructure else ""
    return Failed(row.id, row.attempt_id, message + beyond, retry)


def is_stale(event: ExecutorEvent, row: TaskInstanceFacts) -> bool:
    """Return whether `event` is about an attempt that is not the row's, so that it does not count (S8.1)."""
    return event.attempt_id != (row.attempt_id or "")


def lost(row: TaskInstanceFacts, reason: str, *, alone: bool = False) -> ExecutorEvent:
    """Return the event that the sweep raises for an attempt whose worker or message is gone (S8.4); `alone` as in the event.

    A row that was set in flight by hand has no attempt; its event bears none either.
    """
    return ExecutorEvent(
        row.id, row.attempt_id or "", TaskInstanceState.FAILED, reason, infrastructure=True, alone=alone
    )


def heartbeat_ran_out(timeout: timedelta, hostname: str | None) -> str:
    """Return the reason given for a zombie."""
    return f"no heartbeat for {timeout.total_seconds():g} s from {hostname or 'its worker'}"


def orphaned(hostname: str | None) -> str:
    """Return the reason given for an attempt that gave its heartbeat up."""
    return f"its process on {hostname or 'its worker'} was stopped when the process that had started it was gone"


def never_claimed(timeout: timedelta) -> str:
    """Return the reason given for a lost message."""
    return f"no worker took it for {timeout.total_seconds():g} s and no message waits: the message was lost"


def _message(event: ExecutorEvent, row: TaskInstanceFacts, key: TaskInstanceKey, host: str | None) -> str:
    where = f" on {host}" if host else ""
    info = f": {event.info}" if event.info else ""
    return f"The executor reports {key} (try {row.try_number}) as {event.state} while its row says {row.state}{where}{info}"
