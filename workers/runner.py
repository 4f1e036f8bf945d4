"""Takes bundles of attempts through claim, run and conclusion, one attempt after the other (architecture, "The protocol")."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, Engine

from backfill.config import Settings, signing_key
from backfill.messages import Attempt, Bundle, ExecutorEvent
from backfill.states import TaskInstanceState
from backfill.store.attempts import Claim
from backfill.store.database import repeat
from workers.attempt import Surroundings, run_attempt
from workers.conclusion import Conclusion, Ended, conclude
from workers.dags import DagCache
from workers.deadman import dead_mans_switch
from workers.heartbeat import Heartbeat
from workers.interruption import Interruption
from workers.ledger import Ledger, ValueRefused
from workers.masking import Masker, secrets_of
from workers.outcome import Failed, StopReason

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Puts an event on a stream.
Publish = Callable[[str, ExecutorEvent], None]

#: For these nobody waits for a database that is away.
_LEAVING = frozenset({StopReason.WORKER_STOPS, StopReason.ORPHANED})


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How one attempt of a bundle ended, for whoever shows it."""

    attempt: Attempt
    state: TaskInstanceState
    error: str | None


class Runner:
    """Runs the bundles that one process is given; the process's main thread calls it.

    `stopping` says whether the worker was told to stop. `publish` must not raise for a stream that cannot be reached.
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
    ) -> None:
        self._engine = engine
        self._hostname = hostname
        self._publish = publish
        self._stopping = stopping
        self._key = signing_key(settings)
        self.interruption = Interruption(stopping)
        self.heartbeat = Heartbeat(
            self._ledger("").renew,
            interval=settings.task.heartbeat_interval,
            timeout=settings.task.heartbeat_timeout,
            switch=dead_mans_switch(),
            tick=partial(self._tick, tick),
        )
        self._shared = Surroundings(
            hostname=hostname,
            log_folder=settings.log_folder,
            mask=Masker(secrets_of(settings) | {self._key.decode()}),
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
        with self.interruption.listening():
            return self._run(bundle, self._ledger(bundle.stream))

    def end(self) -> None:
        """End the heartbeat's thread."""
        self.heartbeat.end()

    def _run(self, bundle: Bundle, ledger: Ledger) -> tuple[AttemptEnd, ...]:
        ends: list[AttemptEnd] = []
        open_conclusion: _Open | None = None
        left: Sequence[Attempt] = ()
        for position, attempt in enumerate(bundle.attempts):
            if self.interruption.reason is not None or self._stopping():
                left = bundle.attempts[position:]
                break
            claimed = self.heartbeat.now()
            claim = self._claim(ledger, attempt, open_conclusion)
            open_conclusion = None
            if claim is not None:
                open_conclusion = _Open(claim, run_attempt(claim, self._shared, ledger, claimed=claimed))
                ends.extend(_end(attempt, open_conclusion.conclusion))
        if open_conclusion is not None:
            self._conclude(ledger, open_conclusion)
        ledger.put_back(left)
        return tuple(ends)

    def _claim(self, ledger: Ledger, attempt: Attempt, before: _Open | None) -> Claim | None:
        """Claim `attempt` in the transaction that writes the conclusion before it, if there is one."""
        if before is None:
            return ledger.claim(attempt)
        try:
            return ledger.claim(attempt, before.conclusion)
        except ValueRefused:
            self._conclude(ledger, before)
            return ledger.claim(attempt)

    def _conclude(self, ledger: Ledger, what: _Open) -> None:
        try:
            ledger.conclude(what.conclusion)
        except ValueRefused as error:
            ledger.conclude(conclude(Failed(error), what.claim, None, self._shared.mask))

    def _ledger(self, stream: str) -> Ledger:
        return Ledger(
            self._engine,
            hostname=self._hostname,
            publish=partial(self._publish, stream),
            leaving=lambda: self.interruption.reason in _LEAVING,
        )

    def _undisturbed(self, work: Callable[[Connection], T]) -> T:
        with self.interruption.undisturbed():
            return repeat(self._engine, work)

    def _tick(self, tick: Callable[[], bool]) -> bool:
        self.interruption.notice_parent()
        return tick()


@dataclass(frozen=True, slots=True)
class _Open:
    """A conclusion that is not written yet."""

    claim: Claim
    conclusion: Conclusion


def _end(attempt: Attempt, conclusion: Conclusion) -> list[AttemptEnd]:
    if not isinstance(conclusion, Ended):
        return []
    return [AttemptEnd(attempt, conclusion.finish.state, conclusion.finish.error)]
