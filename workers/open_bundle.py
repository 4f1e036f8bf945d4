"""A bundle on its way through a worker process: in chunks, each claimed by one statement that also writes how the last one ended.

So there is one commit for a chunk, not two for each attempt. What that may cost others is bounded:

- a chunk holds no more than `CHUNK_WORK` by what its tasks took lately in this process. A task that takes longer, or of which nothing
  is known, is claimed alone, and what ended before it is written before it begins;
- where a task lasts in spite of that, the heartbeat's thread writes what ended before it, after `WRITTEN_AFTER`;
- after `GIVEN_BACK_AFTER` it gives the rest of the bundle back, so that other processes take what waits behind the long one.

The main thread takes attempts through, the other one only looks; each step of either is under one lock, in which it is decided whose
an attempt is. Against everybody else the rows decide.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backfill.exceptions import ServiceUnavailable
from backfill.executors.durations import Durations
from backfill.messages import Attempt
from backfill.store.claims import Claim
from workers.conclusion import Conclusion, Ended
from workers.heartbeat import Heartbeat, Watch
from workers.ledger import Entry, Ledger, Taken, ValueRefused, Writing

logger = logging.getLogger(__name__)

#: Work that is claimed at once, in seconds. A commit takes one or two milliseconds, a small part of it; and as each end waits for
#: those behind it, this is what others wait for it at most.
CHUNK_WORK = 0.03
#: How long an end may wait to be written while the next task runs, in seconds: longer than a chunk, so that this is the exception.
WRITTEN_AFTER = 0.04
#: How long a task may run before what waits behind it is given back, in seconds. To send it again costs a few milliseconds, and a busy
#: machine makes short tasks look long now and then: the work of eight chunks tells the one from the other.
GIVEN_BACK_AFTER = 0.25
#: How long a bundle may take before what is left of it is given back, in seconds: several times what the executor aims at.
LONGEST_BUNDLE = 1.0
#: Attempts claimed at once, however short they are.
LARGEST_CHUNK = 100


@dataclass(slots=True, eq=False)
class Member:
    """A claimed attempt. Times are on the clock of the heartbeat."""

    claim: Claim
    watch: Watch
    #: When its claim was known to have succeeded.
    claimed: float
    #: Whether its task begins with the claim, and not after another one.
    is_first: bool
    began: float = 0.0


class OpenBundle:
    """Attempts that are taken through one after the other. Other threads than the main one call `look` and `force_end` only."""

    def __init__(
        self, attempts: Sequence[Attempt], *, ledger: Ledger, heartbeat: Heartbeat, durations: Durations
    ) -> None:
        self._ledger = ledger
        self._heartbeat = heartbeat
        self._durations = durations
        #: When its first chunk was claimed.
        self._opened: float | None = None
        #: Guards what follows.
        self._lock = threading.Lock()
        self._unclaimed = deque(attempts)
        self._claimed: deque[Member] = deque()
        self._running: Member | None = None
        self._ended: list[Entry] = []
        self._unbegun: list[Claim] = []
        self._unwanted: list[Attempt] = []
        self._is_over = False
        #: Held by whoever writes.
        self._writing = threading.Lock()

    # -- main thread ----------------------------------------------------------------------------------------------------

    def claim_next(self) -> bool:
        """Write what waits and claim the next chunk in one transaction; return whether there is anything to run."""
        while not self._claimed:
            with self._lock:
                chunk = self._next_chunk()
            if not chunk:
                return False
            self._claim(chunk)
        return True

    def begin(self, start: Callable[[Member], bool]) -> Member | None:
        """Return the next claimed attempt once `start` has let it begin, which says no to one that is not ours any more."""
        while True:
            with self._lock:
                if not self._claimed:
                    return None
                member = self._claimed.popleft()
                member.began = member.claimed if member.is_first else self._heartbeat.now()
                if start(member):
                    self._running = member
                    return member
                if member.watch.is_cancelled and not member.watch.is_lost:
                    self._unbegun.append(member.claim)
            self._heartbeat.remove(member.watch)

    def end(self, member: Member, conclusion: Conclusion, *, loading: float = 0.0) -> None:
        """Note how the running attempt ended; `loading` are the seconds in which this process got to know its DAG."""
        entry = _entry(member, conclusion, self._heartbeat.now(), loading)
        self._durations.note((member.claim.dag_id, member.claim.task_id), entry.duration)
        with self._lock:
            if self._running is not member:
                return  # the other thread has ended it
            self._running = None
            self._ended.append(entry)
            if isinstance(conclusion, Ended) and conclusion.stop_run is not None:
                self._spare(conclusion.stop_run.dag_run_id)

    def give_back_rest(self) -> None:
        """Let no further attempt begin; those that are left are given back with the next write."""
        with self._lock:
            self._give_back_rest()

    @property
    def must_write(self) -> bool:
        """Whether something has to be written before the next attempt begins."""
        with self._lock:  # asked after each end, so that the last one tells
            last = self._ended[-1].conclusion if self._ended else None
        return isinstance(last, Ended) and last.stop_run is not None

    def write(self) -> None:
        """Write what waits, however long the database is away."""
        self._write(())

    def close(self) -> None:
        """Write what waits and give back what is left."""
        self.give_back_rest()
        self.write()

    def let_go(self) -> None:
        """Watch nothing more of it, whether or not it could be written: others find what is left."""
        with self._lock:
            self._is_over = True
            watches = [member.watch for member in self._claimed]
            self._claimed.clear()
        self._heartbeat.remove(*watches)

    # -- heartbeat's thread ---------------------------------------------------------------------------------------------

    def look(self, now: float) -> float | None:
        """Write what has waited too long, and give back what waits behind a task that lasts; return when to look again."""
        with self._lock:
            if self._is_over:
                return None
            running = self._running
            if running is None:
                return now + WRITTEN_AFTER
            lasts = now >= running.began + GIVEN_BACK_AFTER
            if lasts and (self._claimed or self._unclaimed):
                logger.debug("The task %s lasts: what waits behind it is given back", running.claim.key)
                self._give_back_rest()
            overdue = bool(self._ended) and now >= self._ended[0].ended + WRITTEN_AFTER
            due = overdue or bool(self._unbegun or self._unwanted)
            so_far = (running, now - running.began) if lasts else None
        if due and not self._write_if_possible(so_far):
            return now + WRITTEN_AFTER
        with self._lock:
            waits = self._claimed or self._unclaimed or self._ended
        return now + WRITTEN_AFTER if waits else None

    def force_end(self, member: Member, conclusion: Conclusion) -> None:
        """End the running attempt in the main thread's place, and write all there is: the process ends after this."""
        with self._lock:
            self._running = None
            self._ended.append(_entry(member, conclusion, self._heartbeat.now()))
            self._give_back_rest()
        self._write(())

    # -- both -----------------------------------------------------------------------------------------------------------

    def _next_chunk(self) -> list[Attempt]:
        """Take what fits into one chunk; once the bundle has lasted too long the rest is given back instead."""
        if self._opened is not None and self._heartbeat.now() > self._opened + LONGEST_BUNDLE:
            self._give_back_rest()
        chunk: list[Attempt] = []
        work = 0.0
        while self._unclaimed and len(chunk) < LARGEST_CHUNK:
            key = self._unclaimed[0].key
            expected = self._durations.expected((key.dag_id, key.task_id))
            if chunk and (expected is None or work + expected > CHUNK_WORK):
                break
            chunk.append(self._unclaimed.popleft())
            if expected is None or expected > CHUNK_WORK:
                if expected is not None and expected > GIVEN_BACK_AFTER:
                    self._give_back_rest()
                break
            work += expected
        return chunk

    def _claim(self, chunk: Sequence[Attempt]) -> None:
        taken = self._write(chunk)
        claims = taken.claims
        known = self._heartbeat.now()
        self._opened = known if self._opened is None else self._opened
        members = [
            Member(claim, Watch(claim.attempt_id, taken.since), known, is_first=not number)
            for number, claim in enumerate(claims)
        ]
        if len(claims) < len(chunk):
            logger.debug(
                "%d of %d attempts are stale or came twice; they are dropped", len(chunk) - len(claims), len(chunk)
            )
        if members:
            alone = len(members) == 1 and not self._unclaimed
            self._heartbeat.add([m.watch for m in members], look_at=None if alone else known + WRITTEN_AFTER)
            with self._lock:
                self._claimed.extend(members)

    def _give_back_rest(self) -> None:
        self._unbegun += [member.claim for member in self._claimed]
        self._unwanted += self._unclaimed
        self._heartbeat.remove(*(member.watch for member in self._claimed))
        self._claimed.clear()
        self._unclaimed.clear()

    def _spare(self, dag_run_id: int) -> None:
        """Give back what was claimed of a run that is being stopped: it never began, so it must not count as having run (S6.8)."""
        spared = [member for member in self._claimed if member.claim.dag_run_id == dag_run_id]
        self._unbegun += [member.claim for member in spared]
        self._heartbeat.remove(*(member.watch for member in spared))
        self._claimed = deque(member for member in self._claimed if member.claim.dag_run_id != dag_run_id)

    def _write(self, claim: Sequence[Attempt], *, patiently: bool = True) -> Taken:
        with self._writing:
            return self._write_alone(claim, patiently=patiently)

    def _write_if_possible(self, so_far: tuple[Member, float] | None) -> bool:
        """Write once, unless the main thread does; return whether nothing is left of it."""
        if not self._writing.acquire(blocking=False):
            return False
        try:
            self._write_alone((), patiently=False)
        except (ServiceUnavailable, ValueRefused) as error:  # the main thread does it again, and hears of it
            logger.warning("Ends of attempts wait for the database: %s", error)
            return False
        finally:
            self._writing.release()
        if so_far is not None:
            member, seconds = so_far
            self._ledger.say_running(member.claim, seconds)
        return True

    def _write_alone(self, claim: Sequence[Attempt], *, patiently: bool) -> Taken:
        with self._lock:
            writing = Writing(tuple(self._ended), tuple(self._unbegun), tuple(self._unwanted), tuple(claim))
            self._ended, self._unbegun, self._unwanted = [], [], []
        try:
            return self._ledger.write(writing, patiently=patiently)
        except BaseException:
            with self._lock:
                self._ended[:0], self._unbegun[:0], self._unwanted[:0] = (
                    writing.ended,
                    writing.unbegun,
                    writing.unwanted,
                )
            raise


def _entry(member: Member, conclusion: Conclusion, ended: float, loading: float = 0.0) -> Entry:
    return Entry(member.claim, conclusion, member.began, ended, began_with_claim=member.is_first, loading=loading)
