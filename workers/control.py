"""The order to hold attempts against their rows at once, from a coordinator to all workers (`CeleryExecutor.terminate`).

The main process passes it on to the children that have one of the attempts in hand, and they look at their rows (S7.6, S11.5). Rows
decide what is stopped: a child may have gone on to another attempt since the order was given.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

from celery.worker import state as worker_state
from celery.worker.control import control_command

from backfill.exceptions import MessageError
from backfill.messages import LOOK, Bundle

#: What the main process sends to its children. Nothing happens where it is not handled, and a system call that it meets goes on.
SIGNAL = signal.SIGURG


def on_order(look: Callable[[], object]) -> None:
    """Have `look` called in this process, in its main thread, when an order comes."""
    signal.signal(SIGNAL, lambda _number, _frame: look())
    signal.siginterrupt(SIGNAL, False)


@control_command(name=LOOK, visible=False)  # type: ignore[untyped-decorator]  # Celery has no types
def pass_on(_state: Any, attempt_ids: Any = (), **_: Any) -> None:
    """Tell the children that hold one of these attempts."""
    wanted = {attempt_id for attempt_id in attempt_ids if isinstance(attempt_id, str)}
    for pid in _children_with(wanted):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, SIGNAL)


def _children_with(wanted: set[str]) -> Iterator[int]:
    for request in tuple(worker_state.active_requests):
        try:
            bundle = Bundle.decode(request.args[0])
        except (MessageError, LookupError, TypeError):
            continue
        if request.worker_pid and any(attempt.attempt_id in wanted for attempt in bundle.attempts):
            yield request.worker_pid
