"""Everything around one claimed attempt: its log, its heartbeat, the signals that may stop it, and what is left to be written."""

from __future__ import annotations

import logging
import os
import signal
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from backfill.exceptions import TaskTimeout
from backfill.store.attempts import Claim
from workers.conclusion import Conclusion, conclude
from workers.dags import DagCache
from workers.execution import Execution
from workers.heartbeat import Heartbeat
from workers.interruption import Guard, Interruption
from workers.ledger import Ledger
from workers.log_paths import log_path
from workers.logs import LogUnwritable, TaskLog
from workers.masking import Masker
from workers.outcome import Failed, HandedBack, Outcome, StopReason, TaskStopped, outcome_of
from workers.surroundings import own_surroundings
from workers.task_instance import Database

logger = logging.getLogger(__name__)

#: How long after the end of `execution_timeout` a task may still be about to react. One that sits in C code, where no signal handler
#: runs, does not: it may wait for a lock of some database.
UNRESPONSIVE_AFTER = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What attempts of one process share."""

    hostname: str
    log_folder: Path
    mask: Masker
    dags: DagCache
    heartbeat: Heartbeat
    interruption: Interruption
    #: Runs a transaction for user code.
    database: Database


def run_attempt(claim: Claim, shared: Surroundings, ledger: Ledger, *, claimed: float) -> Conclusion:
    """Run the task of `claim` and return what has to be written; `claimed` is as in `Heartbeat.watch`."""
    path = log_path(shared.log_folder, claim.key, claim.try_number)
    try:
        log = TaskLog(
            path,
            attempt_id=claim.attempt_id,
            hostname=shared.hostname,
            try_number=claim.try_number,
            mask=shared.mask,
        )
    except LogUnwritable as error:
        return conclude(Failed(error), claim, None)
    with log:
        with log.captured(), own_surroundings():
            conclusion = _Attempt(claim, shared, ledger, log).run(claimed)
        if log.broken is not None:
            logger.warning("The log %s is not complete: %s", path, log.broken.strerror)
    return conclusion


class _Attempt:
    def __init__(self, claim: Claim, shared: Surroundings, ledger: Ledger, log: TaskLog) -> None:
        self._claim = claim
        self._shared = shared
        self._ledger = ledger
        self._guard = Guard()
        self._execution = Execution(
            claim, dags=shared.dags, database=shared.database, guard=self._guard, log=log, hostname=shared.hostname
        )

    def run(self, claimed: float) -> Conclusion:
        """Run the task with its heartbeat kept, and its callbacks."""
        heartbeat, interruption = self._shared.heartbeat, self._shared.interruption
        with heartbeat.watch(
            self._claim.attempt_id,
            claimed=claimed,
            lost=partial(interruption.fence, self._guard),
            cancelled=partial(interruption.cancel, self._guard),
            overdue=self._give_up,
            lasting=partial(self._ledger.say_running, self._claim),
        ) as watch:
            self._guard.killed_after = partial(heartbeat.kill_if_watched_after, watch)
            self._guard.limited_to = lambda limit: heartbeat.call_if_watched_after(watch, limit + UNRESPONSIVE_AFTER)
            outcome = self._outcome()
            self._execution.report(outcome)
            self._execution.call_back(outcome)
        return self._conclude(outcome)

    def _conclude(self, outcome: Outcome) -> Conclusion:
        return conclude(outcome, self._claim, self._execution.task, self._shared.mask)

    def _outcome(self) -> Outcome:
        try:
            with self._shared.interruption.guarding(self._guard):
                return self._execution.perform()
        except BaseException as error:  # noqa: BLE001  # the purpose of this: user code may raise anything at all
            if isinstance(error, TaskStopped) and self._is_of_the_worker(error.reason):
                return HandedBack()
            return outcome_of(error)

    def _is_of_the_worker(self, reason: StopReason) -> bool:
        """Return whether a SIGTERM went to the whole worker, of which this process learned first."""
        return reason is StopReason.TERMINATED and self._shared.interruption.worker_stops_soon()

    def _give_up(self) -> None:
        """End an attempt whose task does not react to the end of its time, and the process with it; in the heartbeat's thread."""
        limit = self._execution.task.execution_timeout if self._execution.task else None
        outcome = Failed(TaskTimeout(f"execution_timeout of {limit} is over, and the task did not react to it"))
        try:
            self._guard.kill()
            self._execution.report(outcome)
            self._execution.call_back(outcome)
            self._ledger.conclude(self._conclude(outcome))
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
