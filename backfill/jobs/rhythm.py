"""When the loop has to look at what no event announces: the sweep, limits that others occupy, a broker that is away."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Pauses after each fruitless attempt to reach the broker, in seconds; the last one repeats (S7.3).
BROKER_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)

#: Share of the time that attempts have to wait in their queue, for which the loop may let reports gather, and the most
#: of it in seconds. Work of a higher priority waits for so long, too.
LINGER_SHARE = 0.7
LONGEST_LINGER = 0.4

#: While more is ready than has a place nothing would come of more runs: for so long, in seconds, the next portion of them is not let
#: in (unless something ends), and ends of runs are written together.
MORE_RUNS_AFTER = 0.3
ENDS_GATHER_FOR = 0.1

Clock = Callable[[], float]


class Hold:
    """Something waits for a moment to pass. A round of the loop that begins after that moment ends the hold.

    So the loop wakes for it once, in time, and a hold that nobody looks at does not keep it awake.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: float | None = None

    def __bool__(self) -> bool:
        return self._until is not None

    def begin(self, seconds: float) -> None:
        """Wait for `seconds`, unless the wait has begun already."""
        if self._until is None:
            self._until = self._clock() + seconds

    def end(self) -> None:
        """Wait no longer."""
        self._until = None

    def end_if_over(self) -> None:
        """Wait no longer, if the moment has passed."""
        if self._until is not None and self._until <= self._clock():
            self._until = None

    def ends_in(self) -> float | None:
        """Return the seconds until the moment, None if nothing waits."""
        return None if self._until is None else max(0.0, self._until - self._clock())


class Rhythm:
    """Deadlines of one loop, on the monotonic clock, in seconds."""

    def __init__(self, *, sweep_every: float, look_every: float, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._sweep_every = sweep_every
        self._look_every = look_every
        self._sweep_at = clock() + sweep_every
        self._failures = 0
        self._goes_on = False
        self._has_more_runs = False
        #: When the ends of runs that have gathered are written.
        self._ends_at: float | None = None
        self._wait_for_worker = 0.0
        #: The next date has no room (S1.7); a run of another type is at the date of a subdag (S2.6); ready task instances
        #: have no place (S1.7); the broker is away (S7.3).
        self.admission = Hold(clock)
        self.subdags = Hold(clock)
        self.dispatch = Hold(clock)
        self.broker = Hold(clock)

    def begin_round(self) -> None:
        """Let what has waited long enough be looked at in the round that begins."""
        self._goes_on = self._has_more_runs = False
        for hold in (self.admission, self.subdags, self.dispatch, self.broker):
            hold.end_if_over()

    def go_on(self) -> None:
        """Begin the next round at once: this one did only a portion of what there is to do."""
        self._goes_on = True

    def go_on_with_runs(self) -> None:
        """Let in the runs that are left with the next round, at once; where what is ready has no place, a little later."""
        self._has_more_runs = True
        self._let_runs_wait()

    def hold_until_others_move(self, hold: Hold) -> None:
        """Look again at what others may free, after `delay_on_limit_secs` (S1.7)."""
        hold.begin(self._look_every)
        self._let_runs_wait()

    def ends_wait(self, *, may_wait: bool) -> bool:
        """Return whether ends of runs, if they `may_wait`, are written with others a moment later; asked once in each round.

        They do while nobody waits for the room that they make: more is ready than has a place.
        """
        now = self._clock()
        if not (may_wait and self.dispatch) or (self._ends_at is not None and now >= self._ends_at):
            self._ends_at = None
            return False
        if self._ends_at is None:
            self._ends_at = now + ENDS_GATHER_FOR
        return True

    def something_ended(self, *, frees_places: bool = True) -> None:
        """Look at once: this job itself has freed what it occupied; not `frees_places`: the last dispatch saw that already."""
        self.admission.end()
        self.subdags.end()
        if frees_places:
            self.dispatch.end()

    def sweep_due(self) -> bool:
        """Return whether the sweep is due, and if so set the next one."""
        if self._clock() < self._sweep_at:
            return False
        self._sweep_at = self._clock() + self._sweep_every
        return True

    def workers_kept_waiting(self, seconds: float | None) -> None:
        """Note for how long an attempt, the luckiest of those just reported, waited in its queue; None: none was claimed."""
        self._wait_for_worker = max(0.0, seconds or 0.0)

    def linger(self) -> float:
        """Return the seconds for which more reports may be awaited after the first.

        That holds nothing up: what would be sent at once would wait for longer in its queue. On an idle system it is nothing.
        """
        return min(LONGEST_LINGER, LINGER_SHARE * self._wait_for_worker)

    def broker_failed(self) -> float:
        """Note that publishing failed; return the pause before the next attempt."""
        pause = BROKER_PAUSES[min(self._failures, len(BROKER_PAUSES) - 1)]
        self._failures += 1
        self.broker.begin(pause)
        return pause

    def broker_answered(self) -> None:
        """Note that publishing worked."""
        self._failures = 0
        self.broker.end()

    def due_in(self) -> float:
        """Return the seconds until the next deadline."""
        if self._goes_on or self._has_more_runs:
            return 0.0
        ends = [] if self._ends_at is None else [max(0.0, self._ends_at - self._clock())]
        holds = (hold.ends_in() for hold in (self.admission, self.subdags, self.dispatch, self.broker))
        return min(
            [max(0.0, self._sweep_at - self._clock()), *ends, *(seconds for seconds in holds if seconds is not None)]
        )

    def _let_runs_wait(self) -> None:
        if self._has_more_runs and self.dispatch:
            self._has_more_runs = False
            self.admission.begin(MORE_RUNS_AFTER)
