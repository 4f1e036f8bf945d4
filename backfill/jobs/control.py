"""What the operator wants of a drive: to go on, to pause, or to stop (semantics, section 11)."""

from __future__ import annotations

import os
from collections.abc import Callable

from backfill.exceptions import Interrupted
from backfill.executors import Mailbox
from backfill.states import JobState
from backfill.store.leases import JobControl


class Control:
    """Wishes of the operator: an interrupt of this process, and what the job's row says."""

    def __init__(self) -> None:
        self._interrupted_by: str | None = None
        self._mailbox: Mailbox | None = None
        self._last_acts: list[Callable[[], object]] = []
        self._held_back = False

    def wake_by(self, mailbox: Mailbox) -> None:
        """Wake the loop through `mailbox` when an interrupt comes, or has come."""
        self._mailbox = mailbox
        if self._interrupted_by is not None:
            mailbox.wake()

    def before_leaving_at_once(self, act: Callable[[], object]) -> None:
        """Have `act`, which is safe in a signal handler, done at a second interrupt, before those that were given earlier.

        It ends task processes of this machine, or tells the operator how to go on.
        """
        self._last_acts.append(act)

    def interrupt(self, by: str) -> None:
        """Ask the loop to stop in order; a second time, end local task processes and this one at once (S11.4).

        Called from a signal handler or another thread. The second time nothing is written: the lease runs out.
        """
        if self._interrupted_by is not None:
            for act in reversed(self._last_acts):
                act()
            os._exit(Interrupted.exit_code)
        self._interrupted_by = by
        if self._mailbox is not None:
            self._mailbox.wake()

    def check(self) -> None:
        """Raise `Interrupted` if an interrupt has come."""
        if self._interrupted_by is not None:
            raise Interrupted(f"The job was interrupted by {self._interrupted_by}.")

    def dispatches(self, wish: JobControl) -> bool:
        """Return whether dates may be admitted and task instances sent."""
        return self._interrupted_by is None and wish.state == JobState.RUNNING and not wish.cancel_requested

    def obey(self, wish: JobControl, *, take_back: Callable[[], None], stop_here: Callable[[], None]) -> None:
        """Carry out what is wished.

        A pause: `take_back` what nobody claimed, once (S11.1). An interrupt: that, then `stop_here` the task processes of this
        machine, and raise `Interrupted` (S11.4).
        """
        if self._interrupted_by is not None:
            take_back()
            stop_here()
            self.check()
        if self.dispatches(wish):
            self._held_back = False
        elif not self._held_back:
            take_back()
            self._held_back = True
