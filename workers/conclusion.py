"""From the outcome of an attempt to what is written for it (S3.9 to S3.13, S6.2, S6.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, assert_never

from backfill.engine.retries import is_eligible, retry_delay
from backfill.states import TaskInstanceState
from backfill.store.attempts import Finish
from backfill.store.claims import Claim
from workers.outcome import Failed, Fenced, HandedBack, Orphaned, Outcome, Rescheduled, Skipped, Succeeded, error_text

if TYPE_CHECKING:
    from backfill.dag.abstract_operator import AbstractOperator

#: Airflow's default, for a task that could not be loaded.
_RETRY_DELAY = timedelta(seconds=300)


@dataclass(frozen=True, slots=True)
class StopRun:
    """What `fail_stop` does to the rest of the run when this failure takes effect (S6.8)."""

    dag_run_id: int
    spared_task_ids: frozenset[str]
    error: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The attempt ended by itself; `stop_run` goes with it."""

    finish: Finish
    stop_run: StopRun | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """The attempt was left before its task ended, or is not ours any more."""

    task_instance_id: int
    attempt_id: str
    how: HandedBack | Fenced | Orphaned


Conclusion = Ended | Left


def conclude(
    outcome: Outcome, claim: Claim, task: AbstractOperator | None, mask: Callable[[str], str] = str
) -> Conclusion:
    """Return what `outcome` means for the row; `task` is None where it could not be loaded.

    Error texts go through `mask`: they are shown in reports and in Flower.
    """
    row = (claim.task_instance_id, claim.attempt_id)
    state = TaskInstanceState
    match outcome:
        case Succeeded(xcoms=xcoms, skips=skips):
            return Ended(Finish(*row, state.SUCCESS, xcoms=xcoms, skips=skips))
        case Skipped():
            return Ended(Finish(*row, state.SKIPPED))
        case Rescheduled(date=date):
            return Ended(Finish(*row, state.UP_FOR_RESCHEDULE, reschedule_date=date))
        case Failed(error=error) if will_retry(outcome, claim, task):
            delay = _delay(claim, task)
            return Ended(Finish(*row, state.UP_FOR_RETRY, error=mask(error_text(error)), retry_delay=delay))
        case Failed(error=error):
            return Ended(Finish(*row, state.FAILED, error=mask(error_text(error))), _stop_run(claim, task))
        case HandedBack() | Fenced() | Orphaned():
            return Left(*row, outcome)
        case _:
            assert_never(outcome)


def will_retry(outcome: Failed, claim: Claim, task: AbstractOperator | None) -> bool:
    """Return whether a failed try is followed by another one (S6.2)."""
    return outcome.retryable and is_eligible(
        # of a task that cannot be loaded only the row is known; it has as many tries as its task had retries
        retries=claim.max_tries if task is None else task.retries,
        try_number=claim.try_number,
        max_tries=claim.max_tries,
        disable_retry=bool(claim.job_params.get("disable_retry")),
    )


def _delay(claim: Claim, task: AbstractOperator | None) -> timedelta:
    return _RETRY_DELAY if task is None else retry_delay(task, claim.logical_date, claim.try_number)


def _stop_run(claim: Claim, task: AbstractOperator | None) -> StopRun | None:
    if task is None or not task.dag.fail_stop:
        return None
    teardowns = {other.task_id for other in task.dag.task_dict.values() if other.is_teardown}
    return StopRun(claim.dag_run_id, frozenset({claim.task_id} | teardowns), f"fail_stop: {claim.key} failed")
