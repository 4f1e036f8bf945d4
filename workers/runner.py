"""Takes bundles of attempts through claim, run and conclusion, one attempt after the other (architecture, "The protocol")."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, Engine

from backfill.config import Settings, signing_key
from backfill.executors.durations import Durations
from backfill.keys import TaskInstanceKey
from backfill.messages import Bundle, ExecutorEvent
from backfill.states import TaskInstanceState
from backfill.store.claims import Claim
from backfill.store.database import repeat
from backfill.store.direct import DirectEngine
from workers.attempt import Between, RunningAttempt, Shared
from workers.conclusion import Conclusion, Ended, conclude
from workers.dags import DagCache
from workers.deadman import dead_mans_switch
from workers.heartbeat import Heartbeat
from workers.interruption import Interruption
from workers.ledger import Ledger
from workers.logs import Capture
from workers.masking import Masker, secrets_of
from workers.open_bundle import Member, OpenBundle
from workers.outcome import Failed, StopReason
from workers.secret_values import secrets_of_environment
from workers.surroundings import Surroundings

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Puts events that happened together on a stream.
Publish = Callable[[str, Sequence[ExecutorEvent]], None]

#: For these nobody waits for a database that is away.
_LEAVING = frozenset({StopReason.WORKER_STOPS, StopReason.ORPHANED})


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How one attempt of a bundle ended, for whoever shows it."""

    key: TaskInstanceKey
    try_number: int
    state: TaskInstanceState
    error: str | None


class Runner:
    """Runs the bundles that one process is given; the process's main thread calls it.

    `stopping` says whether the worker was told to stop. `publish` must not raise for a stream that cannot be reached. `mark` gets
    the id of each attempt just before its task begins, and None when that is over.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        publish: Publish,
        *,
        hostname: str,
        stopping: Callable[[], bool] = lambda: False,
        tick: Callable[[], bool] = lambda: False,
        mark: Callable[[str | None], None] = lambda _attempt_id: None,
    ) -> None:
        self._engine = engine
        self._transactions, self._alone = DirectEngine(engine), DirectEngine(engine, autocommit=True)
        self._hostname = hostname
        self._publish = publish
        self._stopping = stopping
        self._mark = mark
        self._open: OpenBundle | None = None
        self._durations = Durations()
        self._key = signing_key(settings)
        self.interruption = Interruption(stopping)
        self.heartbeat = Heartbeat(
            lambda attempt_ids, begun: self._ledger("").renew(attempt_ids, begun),
            interval=settings.task.heartbeat_interval,
            timeout=settings.task.heartbeat_timeout,
            switch=dead_mans_switch(),
            tick=partial(self._tick, tick),
            look=self._look,
        )
        self._shared = Shared(
            hostname=hostname,
            log_folder=str(settings.log_folder),
            mask=Masker(secrets_of(settings) | secrets_of_environment(os.environ) | {self._key.decode()}),
            dags=DagCache(self._key, settings.core.dags_folder),
            heartbeat=self.heartbeat,
            interruption=self.interruption,
            database=self._undisturbed,
        )

    def run_bundle(self, bundle: Bundle) -> tuple[AttemptEnd, ...]:
        """Run the attempts of `bundle` that can be claimed, and return how they ended.

        When the process is told to stop, those not begun are put back (S3.8). Raises `ServiceUnavailable` if it was told so while
        the database is away: what is left is for the sweep to find.
        """
        ledger = self._ledger(bundle.stream)
        opened = OpenBundle(bundle.attempts, ledger=ledger, heartbeat=self.heartbeat, durations=self._durations)
        with self.interruption.listening(), Surroundings() as surroundings, Capture() as capture:
            self._open = opened
            try:
                return tuple(self._run(opened, ledger, Between(capture, surroundings)))
            except MemoryError:
                with contextlib.suppress(Exception):
                    logger.exception("Memory has run out: this process is killed, and what it held will be run again")
                _end_process()
                raise
            finally:
                self._open = None
                self._mark(None)
                opened.let_go()

    def end(self) -> None:
        """End the heartbeat's thread."""
        self.heartbeat.end()

    def _run(self, opened: OpenBundle, ledger: Ledger, between: Between) -> list[AttemptEnd]:
        ends: list[AttemptEnd] = []
        while not self._told_to_stop() and opened.claim_next():
            while (attempt := self._begin(opened, ledger, between)) is not None:
                conclusion = attempt.run()
                self._mark(None)
                opened.end(attempt.member, conclusion, loading=attempt.loading)
                ends += _end(attempt.member.claim, conclusion)
                if self._told_to_stop():
                    opened.give_back_rest()
                elif opened.must_write:
                    opened.write()
        opened.close()
        return ends

    def _begin(self, opened: OpenBundle, ledger: Ledger, between: Between) -> RunningAttempt | None:
        """Return the next attempt that is still ours, with its heartbeat told what to do about it."""
        attempt: RunningAttempt | None = None

        def start(member: Member) -> bool:
            nonlocal attempt
            attempt = RunningAttempt(member, self._shared, between, ledger, opened)
            return attempt.may_begin()

        member = opened.begin(start)
        if member is None:
            return None
        self._mark(member.claim.attempt_id)
        return attempt

    def _told_to_stop(self) -> bool:
        return self.interruption.reason is not None or self._stopping()

    def _ledger(self, stream: str) -> Ledger:
        return Ledger(
            self._transactions,
            alone=self._alone,
            hostname=self._hostname,
            publish=partial(self._publish, stream),
            leaving=lambda: self.interruption.reason in _LEAVING,
            refused=lambda claim, error: conclude(Failed(error), claim, None, self._shared.mask),
            clock=self.heartbeat.now,
        )

    def _look(self, now: float) -> float | None:
        opened = self._open
        return None if opened is None else opened.look(now)

    def _undisturbed(self, work: Callable[[Connection], T]) -> T:
        with self.interruption.undisturbed():
            return repeat(self._engine, work)

    def _tick(self, tick: Callable[[], bool]) -> bool:
        self.interruption.notice_parent()
        return tick()


def _end_process() -> None:
    """Kill this process: there is no memory to write what it holds.

    The main process sees that at once, and what was lost is run again. Celery would raise the error there, which ends all children.
    """
    os.kill(os.getpid(), signal.SIGKILL)


def _end(claim: Claim, conclusion: Conclusion) -> list[AttemptEnd]:
    if not isinstance(conclusion, Ended):
        return []
    return [AttemptEnd(claim.key, claim.try_number, conclusion.finish.state, conclusion.finish.error)]
