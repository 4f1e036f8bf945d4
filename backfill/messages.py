"""What travels between coordinator and workers: the wire contract, versioned, JSON only.

A `Bundle` goes to a worker through the queue, an `ExecutorEvent` comes back through the event stream. Both are hints: the
rows in the database decide, so that any of them may be lost, late, doubled or forged without harm (architecture, "The protocol").
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, cast
from uuid import UUID

from backfill.exceptions import MessageError
from backfill.keys import TaskInstanceKey
from backfill.states import TaskInstanceState

#: Raised by one with each change that an older worker could misread.
WIRE_VERSION = 1
#: Name under which the Celery task is registered; tasks are sent by name, so the coordinator needs no worker code.
TASK_NAME = "backfill.run"
#: What goes wrong where something is read as what it is not; RecursionError is JSON that is nested too deeply.
_BROKEN = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
#: Bits of a row's id, and of the whole numbers in its other columns.
_ID, _INTEGER = 64, 32


@dataclass(frozen=True, slots=True)
class Attempt:
    """One hand-over of a task instance to an executor (S7.1). `attempt_id` is the row's `external_executor_id`."""

    task_instance_id: int
    key: TaskInstanceKey
    attempt_id: str
    try_number: int


@dataclass(frozen=True, slots=True)
class DagSource:
    """Where a worker finds the DAG: shipped by content hash, or by id in a file below its own DAGs folder."""

    dag_id: str
    pickle_hash: str | None = None
    file: str | None = None
    #: Content hash of the file when the job was made; a worker whose file differs refuses (`donot_pickle`).
    file_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Bundle:
    """Attempts of one job that travel in one message and run one after the other; usually a single one."""

    job_id: int
    dag: DagSource
    attempts: tuple[Attempt, ...]
    #: Redis stream that takes the events of these attempts.
    stream: str

    def encode(self) -> dict[str, Any]:
        """Return the JSON-able form that `decode` reads."""
        body = asdict(self)
        body["v"] = WIRE_VERSION
        body["attempts"] = [[a.task_instance_id, list(a.key), a.attempt_id, a.try_number] for a in self.attempts]
        return body

    @classmethod
    def decode(cls, body: object) -> Bundle:
        """Return the bundle that `encode` wrote; `MessageError` names what is wrong with anything else."""
        if not isinstance(body, dict) or body.get("v") != WIRE_VERSION:
            version = body.get("v") if isinstance(body, dict) else type(body).__name__
            raise MessageError(f"A message of version {version!r} came in; this worker reads version {WIRE_VERSION}.")
        try:
            attempts = tuple(
                Attempt(
                    _whole(ti, _ID),
                    TaskInstanceKey(str(k[0]), str(k[1]), str(k[2]), _whole(k[3], _INTEGER)),
                    str(UUID(attempt)),
                    _whole(number, _INTEGER),
                )
                for ti, k, attempt, number in body["attempts"]
            )
            dag = DagSource(**body["dag"])
            return cls(job_id=_whole(body["job_id"], _ID), dag=dag, attempts=attempts, stream=str(body["stream"]))
        except _BROKEN as error:
            raise MessageError(f"A message is broken: {error!r}.") from error


@dataclass(frozen=True, slots=True)
class ExecutorEvent:
    """What an executor says about one attempt (S8.1). Only the attempt id makes it count.

    `infrastructure` is true when the executor knows that the attempt was lost with its worker, not ended by the task.
    """

    task_instance_id: int
    attempt_id: str
    state: TaskInstanceState
    info: str | None = None
    infrastructure: bool = False

    def encode(self) -> str:
        """Return the JSON text that `decode` reads."""
        return json.dumps(
            [self.task_instance_id, self.attempt_id, self.state, self.info, self.infrastructure], separators=(",", ":")
        )

    @classmethod
    def decode(cls, text: str | bytes) -> ExecutorEvent:
        """Return the event that `encode` wrote; `MessageError` for anything else."""
        try:
            ti, attempt, state, info, infrastructure = cast("list[Any]", json.loads(text))
            return cls(
                _whole(ti, _ID),
                str(UUID(attempt)),
                TaskInstanceState(state),
                None if info is None else str(info),
                bool(infrastructure),
            )
        except _BROKEN as error:
            raise MessageError(f"An event is broken: {error!r}.") from error


def _whole(value: Any, bits: int) -> int:
    """Return a whole number that a column of so many bits takes; `ValueError` for others, which no statement could name."""
    number = int(value)
    if number.bit_length() >= bits:
        raise ValueError(f"{number:.3e} is too large")
    return number


#: Field of an entry of a job's stream that bears no event: the operator wants something, as the job's row says.
ORDER = "order"


def event_stream(job_id: int) -> str:
    """Return the name of the Redis stream that carries the events of a job."""
    return f"backfill:events:{job_id}"
