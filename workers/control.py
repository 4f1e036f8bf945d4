"""The order to hold attempts against their rows at once, from a coordinator to all workers (`CeleryExecutor.terminate`).

The main process passes it on to the children that have one of the attempts in hand, and they look at their rows (S7.6, S11.5). Rows
decide what is stopped: a child may have gone on to another attempt since the order was given.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from celery.worker import state as worker_state
from celery.worker.control import control_command

from backfill.exceptions import MessageError
from backfill.messages import LOOK, Bundle

#: What the main process sends to its children. Nothing happens where it is not waited for, since it is ignored by default.
SIGNAL = signal.SIGURG


def on_order(look: Callable[[], object]) -> None:
    """Have `look` called in this process, in a thread of its own, when an order comes; to be called before others start threads.

    No handler is set: it would run between two instructions of the task only, and a task may be in C code for an hour. Blocked in
    all threads, the signal waits until it is asked for, and none is lost.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL})
    threading.Thread(target=_wait_for_orders, args=(look,), name="orders", daemon=True).start()


def _wait_for_orders(look: Callable[[], object]) -> None:
    while True:
        signal.sigwait({SIGNAL})
        look()


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
