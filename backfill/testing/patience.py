"""The end of a scenario in which nothing can ever happen again, though by the rules its job would wait for others."""

from __future__ import annotations

from sqlalchemy import Engine

from backfill.coordinator import orders
from backfill.executors import Mailbox

#: Looks in vain at what others hold, before a job is given up.
_LOOKS = 20
#: Seconds between two of them at most: scripted tasks have ended when they are handed over, so that nobody keeps it waiting.
_PAUSE = 0.02


class ImpatientMailbox(Mailbox):
    """The mailbox of a job that is alone in its database: after some waits in vain it has that job cancelled.

    A closed pool, and runs of nobody that take all of `max_active_runs`, are waited for without end otherwise (S9.3).
    """

    def __init__(self, engine: Engine, job_id: int) -> None:
        super().__init__()
        self._engine = engine
        self._job_id = job_id
        self._in_vain = 0

    def wait(self, timeout: float | None = None) -> bool:
        """Wait as every mailbox does, but not for long and not for ever."""
        something = super().wait(_PAUSE if timeout is None else min(timeout, _PAUSE))
        self._in_vain = 0 if something else self._in_vain + 1
        if self._in_vain == _LOOKS:
            orders.request_cancel(self._engine, self._job_id)
            self.wake()
        return something
