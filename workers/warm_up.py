"""A new process connects, and has the statements that every attempt passes planned, before its first task comes.

Else the first task of each of many processes waits for all of them to do so at once.
"""

from __future__ import annotations

import logging
import threading
from uuid import UUID

import cloudpickle  # noqa: F401  # for `pickle`, when it loads the first DAG: children get it by fork
from sqlalchemy import Engine

from backfill.keys import TaskInstanceKey
from backfill.messages import Attempt
from backfill.states import TaskInstanceState
from backfill.store.attempts import Finish, finish_if_current
from backfill.store.claims import claim_if_queued
from backfill.store.database import repeat
from backfill.store.direct import DirectEngine
from backfill.store.pickles import load_pickle
from workers.events import EventPublisher

logger = logging.getLogger(__name__)

#: A statement is sent in full, is prepared, and has its plan.
_TIMES = 3
#: An attempt that does not exist: no row has such an id.
_NOBODY = Attempt(0, TaskInstanceKey("", "", ""), str(UUID(int=0)), 0)
_NOTHING = Finish(_NOBODY.task_instance_id, _NOBODY.attempt_id, TaskInstanceState.SUCCESS)


def warm_up_aside(engine: Engine, events: EventPublisher) -> None:
    """Warm this process up in a thread of its own, so that nobody waits for servers that are away."""
    threading.Thread(target=warm_up, args=(engine, events), name="warm-up", daemon=True).start()


def warm_up(engine: Engine, events: EventPublisher) -> None:
    """Connect, and have plans made; changes nothing, and raises nothing."""
    try:
        for _ in range(_TIMES):
            with DirectEngine(engine).begin() as tx:
                claim_if_queued(tx, [_NOBODY], hostname="", pid=0)
                finish_if_current(tx, [_NOTHING])
        repeat(engine, lambda tx: load_pickle(tx, ""), attempts=1)
        events.connect()
    except Exception as error:  # noqa: BLE001  # whatever it is, the first task will meet it, and say so
        logger.debug("This process could not be warmed up: %s", error)
