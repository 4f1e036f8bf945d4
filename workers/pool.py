"""Celery's pool of processes, with a way to idle children that does not cost more with each child there is.

Celery's own registers, or takes out again, the pipes of all children each time that its loop goes round, which is three times for
each message: with 64 children that is most of what the main process does, and what every child waits for.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from celery.concurrency import asynpool, prefork
from kombu.asynchronous import ERR, WRITE

_AsynPool: Any = asynpool.AsynPool  # Celery has no types


class Pool(_AsynPool):  # type: ignore[misc]  # as above
    """Looks for as many idle children as messages wait for one; Celery's code hands the messages over."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        #: What waited longest when the loop went round last.
        self._oldest: Any = None
        super().__init__(*arguments, **options)

    def _create_write_handlers(self, hub: Any, **options: Any) -> None:
        """Let Celery make its handlers, and exchange the one that is called each time that the loop goes round."""
        super()._create_write_handlers(hub, **options)
        if self.sched_strategy == asynpool.SCHED_STRATEGY_FAIR:  # else busy children get messages as well
            self._hub = hub
            self.on_poll_start = self._look_for_idle

    def _look_for_idle(self) -> None:
        """Have the loop tell which idle children can be written to, if anything waits for them."""
        hub, waits = self._hub, self.outbound_buffer
        idle = self._all_inqueues - self._active_writes - self._busy_workers if waits else frozenset()
        if not idle:
            self._look_no_more(hub)
        before, self._oldest = self._oldest, waits[0] if waits else None
        # where those that were chosen did not take it, any of them will do
        chosen = idle if waits and before is self._oldest else islice(idle, len(waits))
        asynpool.iterate_file_descriptors_safely(
            chosen, self._all_inqueues, hub.add, None, WRITE | ERR, consolidate=True
        )

    def _look_no_more(self, hub: Any) -> None:
        """Take out what was looked for: a pipe that nothing is to be written to would wake the loop at once, again and again."""
        looked_for = hub.consolidate - self._active_writes
        asynpool.iterate_file_descriptors_safely(looked_for, self._all_inqueues, hub.remove_writer)


class TaskPool(prefork.TaskPool):  # type: ignore[misc]  # as above
    """`-P prefork`, with these processes."""

    Pool = Pool
