"""What a worker writes about its attempts: claims, conclusions, hand-backs; and the events that follow each commit.

Ends are written together, and with the next claims where there are some: one commit for all of them.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypeVar, assert_never

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from backfill.exceptions import ServiceUnavailable
from backfill.messages import Attempt, ExecutorEvent
from backfill.states import TaskInstanceState
from backfill.store.attempts import (
    Finish,
    finish_if_current,
    give_up_heartbeats,
    hand_back_if_running,
    renew_heartbeats,
    select_cancelled,
    stop_run_after_failure,
)
from backfill.store.claims import Claim, claim_if_queued, renew_if_claimed, unclaim_if_running
from backfill.store.database import Transactions, is_passing, repeat
from backfill.store.task_instances import take_back_if_queued
from workers.conclusion import Conclusion, Ended, Left, StopRun
from workers.heartbeat import Renewal
from workers.outcome import HandedBack, Orphaned

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Pause before the database is tried again after it has not answered for a while, in seconds.
_PAUSE = 1.0
#: Characters of an error that an event has; the row has more.
LONGEST_INFO = 1000
#: What the executor is told of an attempt whose process lost its parent.
_ORPHANED = "the process that its worker belongs to is gone"


class ValueRefused(Exception):
    """Raised when the database will not have what a task returned."""


@dataclass(frozen=True, slots=True)
class Entry:
    """How one attempt ended, and when; times are on the clock that the ledger was given."""

    claim: Claim
    conclusion: Conclusion
    began: float
    ended: float
    #: False: its task waited for another one after the claim, so that the claim's date is too early.
    began_with_claim: bool = True
    #: Seconds of it in which the process got to know the DAG; the next attempt will not need them.
    loading: float = 0.0

    @property
    def duration(self) -> float:
        """Seconds that the next attempt of the task may take, by this one."""
        return max(0.0, self.ended - self.began - self.loading)


@dataclass(frozen=True, slots=True)
class Writing:
    """What is written in one transaction, in this order."""

    ended: Sequence[Entry] = ()
    #: Claimed, and never begun: given back at no cost (S3.8).
    unbegun: Sequence[Claim] = ()
    #: Not even claimed: likewise.
    unwanted: Sequence[Attempt] = ()
    #: To be claimed.
    claim: Sequence[Attempt] = ()

    def __bool__(self) -> bool:
        return bool(self.ended or self.unbegun or self.unwanted or self.claim)

    @property
    def is_one_statement(self) -> bool:
        """Whether nothing but ends is written, by one statement, which needs no transaction around it.

        A claim does: whoever does not hear what was claimed could not know it again.
        """
        if self.unbegun or self.unwanted or self.claim:
            return False
        return all(isinstance(each.conclusion, Ended) and each.conclusion.stop_run is None for each in self.ended)


@dataclass(frozen=True, slots=True)
class Taken:
    """What could be claimed, in the order asked for."""

    claims: Sequence[Claim] = ()
    #: On the ledger's clock, a time shortly before the heartbeats of the claims were written.
    since: float = 0.0


@dataclass(slots=True)
class _Tries:
    """What tries of one transaction did, of which none is known to have been committed; one of them may have been all the same."""

    count: int = 0
    took_effect: set[str] = field(default_factory=set)
    claimed: dict[str, Claim] = field(default_factory=dict)


class Ledger:
    """Writes for one process. `publish` gets the events of a commit; while `leaving()` nobody waits for a database that is away.

    `alone` is for what is one statement, by which it commits itself.

    `refused` says what becomes of an attempt whose end the database will not have. `clock` is what times are on.
    """

    def __init__(
        self,
        engine: Transactions,
        *,
        alone: Transactions | None = None,
        hostname: str,
        publish: Callable[[Sequence[ExecutorEvent]], None],
        leaving: Callable[[], bool],
        refused: Callable[[Claim, ValueRefused], Conclusion],
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._alone = alone or engine
        self._hostname = hostname
        self._publish = publish
        self._leaving = leaving
        self._refused = refused
        self._clock = clock

    def write(self, writing: Writing, *, patiently: bool = True) -> Taken:
        """Do all of `writing` in one transaction, tell the coordinator, and return what could be claimed.

        Where the database will not have a value, ends are written one by one, so that it harms its own task only. Raises
        `ServiceUnavailable` while the database is away: if not `patiently`, or if the process is leaving.
        """
        if not writing:
            return Taken()
        try:
            return self._write(writing, patiently)
        except ValueRefused as error:
            if not writing.ended:
                raise
            if len(writing.ended) == 1:
                (entry,) = writing.ended
                entries = [replace(entry, conclusion=self._refused(entry.claim, error))]
                return self._write(replace(writing, ended=entries), patiently)
        for entry in writing.ended:
            self.write(Writing(ended=(entry,)), patiently=patiently)
        return self._write(replace(writing, ended=()), patiently)

    def renew(self, attempt_ids: Sequence[str], begun: Mapping[str, float]) -> Renewal:
        """Renew heartbeats and return what the rows say; raises whatever goes wrong."""
        ago = {attempt_id: timedelta(seconds=seconds) for attempt_id, seconds in begun.items()}
        with self._engine.begin() as tx:
            current = renew_heartbeats(tx, attempt_ids, started_ago=ago)
            return Renewal(current, select_cancelled(tx, current))

    def say_running(self, claim: Claim, seconds: float) -> None:
        """Tell the coordinator that an attempt runs since `seconds`. Short ones end before that would help anybody (S8.1)."""
        event = ExecutorEvent(claim.task_instance_id, claim.attempt_id, TaskInstanceState.RUNNING, duration=seconds)
        self._publish([event])

    def _write(self, writing: Writing, patiently: bool) -> Taken:
        if not writing:
            return Taken()
        tries = _Tries()
        taken = self._transaction(lambda tx: self._try(tx, writing, tries), patiently, alone=writing.is_one_statement)
        events = [event for entry in writing.ended if (event := _report(entry, tries.took_effect)) is not None]
        events += [_given_back(claim.task_instance_id, claim.attempt_id) for claim in writing.unbegun]
        events += [_given_back(attempt.task_instance_id, attempt.attempt_id) for attempt in writing.unwanted]
        if events:
            self._publish(events)
        return taken

    def _try(self, tx: Connection, writing: Writing, tries: _Tries) -> Taken:
        since = self._clock()
        tries.count += 1
        tries.took_effect |= _write(tx, writing, since)  # of an end that others have made void nobody takes notice
        if tries.count > 1 and writing.is_one_statement:  # the first try may have done it: that it is told harms nobody
            tries.took_effect |= {entry.claim.attempt_id for entry in writing.ended}
        return Taken(self._claim(tx, writing.claim, tries), since)

    def _claim(self, tx: Connection, attempts: Sequence[Attempt], tries: _Tries) -> list[Claim]:
        """Claim `attempts`; what an earlier try has claimed, whose commit went through and whose answer was lost, is known again."""
        host, pid = self._hostname, os.getpid()
        claims = {claim.attempt_id: claim for claim in claim_if_queued(tx, attempts, hostname=host, pid=pid)}
        doubtful = [claim for attempt_id, claim in tries.claimed.items() if attempt_id not in claims]
        for attempt_id in renew_if_claimed(tx, doubtful, hostname=host, pid=pid):
            claims[attempt_id] = tries.claimed[attempt_id]
        tries.claimed |= claims
        in_order = dict.fromkeys(each.attempt_id for each in attempts)
        return [claims[attempt_id] for attempt_id in in_order if attempt_id in claims]

    def _transaction(self, work: Callable[[Connection], T], patiently: bool, *, alone: bool) -> T:
        """Return what `work` returns; if `patiently`, however long the database is away. `alone`: it executes one statement."""
        engine = self._alone if alone else self._engine
        while True:
            try:
                return repeat(engine, work) if patiently else repeat(engine, work, attempts=1)
            except ServiceUnavailable as error:
                if self._leaving() or not patiently:
                    raise
                logger.warning("Waiting for the database: %s", error)
                time.sleep(_PAUSE)
            except DBAPIError as error:
                if is_passing(error):
                    raise
                raise ValueRefused(str(error.orig).strip()) from error


def _write(tx: Connection, writing: Writing, now: float) -> set[str]:
    """Write ends and what is given back; return the attempts that were current.

    What was claimed and never begun leaves its run before that is stopped: `fail_stop` must find it as what it is, not running.
    """
    ended = [entry for entry in writing.ended if isinstance(entry.conclusion, Ended)]
    took_effect = finish_if_current(tx, [_finish(entry, now) for entry in ended])
    left = [entry.conclusion for entry in writing.ended if isinstance(entry.conclusion, Left)]
    hand_back_if_running(tx, [each.attempt_id for each in left if isinstance(each.how, HandedBack)])
    # whoever would hear the event may be gone: the coordinator that looks next finds it lost (S8.3)
    give_up_heartbeats(tx, [each.attempt_id for each in left if isinstance(each.how, Orphaned)])
    unclaim_if_running(tx, [claim.attempt_id for claim in writing.unbegun])
    take_back_if_queued(tx, [(each.task_instance_id, each.attempt_id) for each in writing.unwanted])
    for entry in ended:
        stop_run = _stop_run(entry)
        if stop_run is not None and entry.claim.attempt_id in took_effect:
            stop_run_after_failure(
                tx, stop_run.dag_run_id, spared_task_ids=stop_run.spared_task_ids, error=stop_run.error
            )
    return took_effect


def _stop_run(entry: Entry) -> StopRun | None:
    return entry.conclusion.stop_run if isinstance(entry.conclusion, Ended) else None


def _finish(entry: Entry, now: float) -> Finish:
    assert isinstance(entry.conclusion, Ended)
    return replace(
        entry.conclusion.finish,
        started_ago=None if entry.began_with_claim else timedelta(seconds=now - entry.began),
        ended_ago=timedelta(seconds=now - entry.ended),
    )


def _report(entry: Entry, took_effect: set[str]) -> ExecutorEvent | None:
    """Return what the coordinator is told of what is committed."""
    match entry.conclusion:
        case Left(how=Orphaned()) as left:
            return ExecutorEvent(
                left.task_instance_id, left.attempt_id, TaskInstanceState.FAILED, _ORPHANED, infrastructure=True
            )
        case Left() as left:
            return _given_back(left.task_instance_id, left.attempt_id)
        case Ended(finish=finish) if finish.attempt_id in took_effect:
            info = None if finish.error is None else finish.error[:LONGEST_INFO]
            return ExecutorEvent(
                finish.task_instance_id, finish.attempt_id, finish.state, info, duration=entry.duration
            )
        case Ended(finish=finish):
            logger.warning("Attempt %s is not current any more; its end is thrown away", finish.attempt_id)
            return None
        case _:
            assert_never(entry.conclusion)


def _given_back(task_instance_id: int, attempt_id: str) -> ExecutorEvent:
    return ExecutorEvent(task_instance_id, attempt_id, TaskInstanceState.NONE)
