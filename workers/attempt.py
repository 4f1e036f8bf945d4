"""Everything around one claimed attempt: its log, its heartbeat, the signals that may stop it, and what is left to be written."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import traceback
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from backfill.exceptions import TaskTimeout
from backfill.store.claims import Claim
from workers.conclusion import Conclusion, conclude
from workers.dags import DagCache
from workers.execution import Execution
from workers.heartbeat import Heartbeat
from workers.interruption import Guard, Interruption
from workers.ledger import Ledger
from workers.log_paths import log_file
from workers.logs import Capture, LogUnwritable, TaskLog
from workers.masking import Masker
from workers.open_bundle import Member, OpenBundle
from workers.outcome import Failed, HandedBack, Outcome, StopReason, TaskStopped, outcome_of
from workers.secret_values import secrets_within
from workers.surroundings import Surroundings
from workers.task_instance import Database

logger = logging.getLogger(__name__)

#: How long after the end of `execution_timeout` a task may still be about to react. One that sits in C code, where no signal handler
#: runs, does not: it may wait for a lock of some database.
UNRESPONSIVE_AFTER = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What attempts of one process share."""

    hostname: str
    log_folder: str
    mask: Masker
    dags: DagCache
    heartbeat: Heartbeat
    interruption: Interruption
    #: Runs a transaction for user code.
    database: Database


@dataclass(frozen=True, slots=True)
class Between:
    """What is put back in its place between the attempts of one bundle."""

    capture: Capture
    surroundings: Surroundings


class RunningAttempt:
    """One claimed attempt, from just before its task begins to what has to be written for it."""

    def __init__(self, member: Member, shared: Shared, between: Between, ledger: Ledger, opened: OpenBundle) -> None:
        self.member = member
        self._between = between
        self._claim = claim = _started(member)
        self._shared = shared
        self._ledger = ledger
        self._opened = opened
        self._guard = Guard()
        self._execution: Execution | None = None
        #: How the task ended, once that is known.
        self._ended: Outcome | None = None
        #: Knows the secrets of this attempt's conf and params as well.
        self._mask = shared.mask.copy()
        self._mask.learn(secrets_within(claim.conf))
        self._path = log_file(shared.log_folder, claim.key, claim.try_number)

    @property
    def loading(self) -> float:
        """Seconds that it took to load the DAG."""
        return self._execution.loading if self._execution is not None else 0.0

    def may_begin(self) -> bool:
        """Return whether the attempt is still ours; from here on the heartbeat's thread can stop it."""
        heartbeat, interruption, watch = self._shared.heartbeat, self._shared.interruption, self.member.watch
        self._guard.killed_after = partial(heartbeat.kill_if_watched_after, watch)
        self._guard.limited_to = lambda limit: heartbeat.call_if_watched_after(watch, limit + UNRESPONSIVE_AFTER)
        return heartbeat.begin(
            watch,
            began=None if self.member.is_first else self.member.began,
            lost=partial(interruption.fence, self._guard),
            cancelled=partial(interruption.cancel, self._guard),
            overdue=self._give_up,
            lasting=self._say_running,
        )

    def run(self) -> Conclusion:
        """Run the task and return what has to be written, also where the code around it fails: memory may run out anywhere."""
        try:
            return self._run_logged()
        except Exception as error:  # noqa: BLE001  # whatever it is, the attempt must not be left as running
            return self._conclude_in_spite_of(error)
        finally:
            self._shared.heartbeat.remove(self.member.watch)

    def _run_logged(self) -> Conclusion:
        claim, shared = self._claim, self._shared
        try:
            log = TaskLog(
                self._path,
                attempt_id=claim.attempt_id,
                hostname=shared.hostname,
                try_number=claim.try_number,
                mask=self._mask,
            )
        except LogUnwritable as error:
            return conclude(Failed(error), claim, None, self._mask)
        with log:
            with self._between.capture.to(log):
                try:
                    conclusion = self._run(log)
                finally:
                    self._between.surroundings.restore()
            if log.broken is not None:
                logger.warning("The log %s is not complete: %s", self._path, log.broken.strerror)
        return conclusion

    def _run(self, log: TaskLog) -> Conclusion:
        """Run the task, and its callbacks."""
        shared = self._shared
        self._execution = execution = Execution(
            self._claim,
            dags=shared.dags,
            database=shared.database,
            guard=self._guard,
            log=log,
            hostname=shared.hostname,
            tell=self._between.surroundings.tell,
            hide=self._mask.learn,
        )
        self._ended = outcome = self._outcome(execution)
        for follow in (execution.report, execution.call_back):
            try:
                follow(outcome)
            except Exception as error:  # noqa: BLE001  # the end of the task is worth more than what is told of it
                _note(error)
        return self._conclude(outcome)

    def _conclude_in_spite_of(self, error: Exception) -> Conclusion:
        """Return what has to be written though the code around the task failed: how the task ended, if that is known."""
        _let_go(error)
        _note(error)
        if self._ended is not None:
            with contextlib.suppress(Exception):
                return self._conclude(self._ended)
        return self._conclude(Failed(error))

    def _say_running(self) -> None:
        self._ledger.say_running(self._claim, self._shared.heartbeat.now() - self.member.began)

    def _conclude(self, outcome: Outcome) -> Conclusion:
        task = self._execution.task if self._execution is not None else None
        return conclude(outcome, self._claim, task, self._mask)

    def _outcome(self, execution: Execution) -> Outcome:
        try:
            with self._shared.interruption.guarding(self._guard):
                return execution.perform()
        except BaseException as error:  # noqa: BLE001  # the purpose of this: user code may raise anything at all
            if isinstance(error, TaskStopped) and self._is_of_the_worker(error.reason):
                return HandedBack()
            if isinstance(error, MemoryError):
                _let_go(error)
            return outcome_of(error)

    def _is_of_the_worker(self, reason: StopReason) -> bool:
        """Return whether a SIGTERM went to the whole worker, of which this process learned first."""
        return reason is StopReason.TERMINATED and self._shared.interruption.worker_stops_soon()

    def _give_up(self) -> None:
        """End an attempt whose task does not react to the end of its time, and the process with it; in the heartbeat's thread."""
        execution = self._execution
        limit = execution.task.execution_timeout if execution is not None and execution.task else None
        outcome = Failed(TaskTimeout(f"execution_timeout of {limit} is over, and the task did not react to it"))
        try:
            self._guard.kill()
            if execution is not None:
                execution.report(outcome)
                execution.call_back(outcome)
            self._opened.force_end(self.member, self._conclude(outcome))
        finally:
            os.kill(os.getpid(), signal.SIGKILL)


def _started(member: Member) -> Claim:
    """Return the claim with the attempt's own start, where that is later."""
    claim = member.claim
    if member.is_first:
        return claim
    start = claim.start_date + timedelta(seconds=member.began - member.claimed)
    first = start if claim.first_start_date == claim.start_date else claim.first_start_date
    return claim._replace(start_date=start, first_start_date=first)


def _let_go(error: BaseException) -> None:
    """Free what the functions held through which `error` came, so that there is memory for what has to follow."""
    each: BaseException | None = error
    seen: set[int] = set()
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        traceback.clear_frames(each.__traceback__)
        each = each.__cause__ or each.__context__
    gc.collect()


def _note(error: Exception) -> None:
    with contextlib.suppress(Exception):  # what memory ran out for may need some more to be told
        logger.error("The code around a task failed; how the task ended is not changed by that", exc_info=error)
