"""What travels between coordinator and workers: the wire contract, versioned, JSON only.

A `Bundle` goes to a worker through the queue, an `ExecutorEvent` comes back through the event stream. Both are hints: the
rows in the database decide, so that any of them may be lost, late, doubled or forged without harm (architecture, "The protocol").
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast
from uuid import UUID

from backfill.exceptions import MessageError
from backfill.keys import TaskInstanceKey
from backfill.states import TaskInstanceState

#: Raised by one with each change that an older worker could misread.
WIRE_VERSION = 2
#: How a UUID is usually written: a tenth of the time that it takes to make one of the text.
_UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: Name under which the Celery task is registered; tasks are sent by name, so the coordinator needs no worker code.
TASK_NAME = "backfill.run"
#: What goes wrong where something is read as what it is not; RecursionError is JSON that is nested too deeply.
_BROKEN = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
#: Bits of a row's id, and of the whole numbers in its other columns.
_ID, _INTEGER = 64, 32
#: Name of the order to all workers to hold some attempts against their rows at once (remote control).
LOOK = "backfill_look"


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
        return {
            "job_id": self.job_id,
            "dag": asdict(self.dag),
            "attempts": [[a.task_instance_id, a.key, a.attempt_id, a.try_number] for a in self.attempts],
            "stream": self.stream,
            "v": WIRE_VERSION,
        }

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
                    _uuid(attempt),
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
    #: The attempt was lost with others of its process, and nobody knows which of them the process was at: it costs no budget, and
    #: the next attempt has to travel alone, so that it is known the next time (S8.3).
    alone: bool = False
    #: Seconds that the attempt took, or has taken so far; None where nobody measured.
    duration: float | None = None

    def encode(self) -> str:
        """Return the JSON text that `decode` reads."""
        return json.dumps(self._fields(), separators=(",", ":"))

    @classmethod
    def decode(cls, text: str | bytes) -> ExecutorEvent:
        """Return the event that `encode` wrote; `MessageError` for anything else."""
        events = decode_events(text)
        if len(events) != 1:
            raise MessageError(f"{len(events)} events came where one was expected.")
        return events[0]

    def _fields(self) -> list[Any]:
        duration = None if self.duration is None else round(self.duration, 5)
        return [
            self.task_instance_id,
            self.attempt_id,
            self.state,
            self.info,
            self.infrastructure,
            self.alone,
            duration,
        ]

    @classmethod
    def _of(cls, fields: list[Any]) -> ExecutorEvent:
        ti, attempt, state, info, infrastructure, alone, duration = fields
        return cls(
            _whole(ti, _ID),
            _uuid(attempt),
            TaskInstanceState(state),
            None if info is None else str(info),
            bool(infrastructure),
            bool(alone),
            None if duration is None else float(duration),
        )


def encode_events(events: Sequence[ExecutorEvent]) -> str:
    """Return events that happened together as the JSON text of one entry of a stream, which `decode_events` reads."""
    return json.dumps([event._fields() for event in events], separators=(",", ":"))  # of this module


def decode_events(text: str | bytes) -> list[ExecutorEvent]:
    """Return the events that `encode_events` wrote, or the one that `ExecutorEvent.encode` did; `MessageError` for anything else."""
    try:
        found = cast("list[Any]", json.loads(text))
        several = found if isinstance(found[0], list) else [found]
        return [ExecutorEvent._of(fields) for fields in several]  # noqa: SLF001  # as above
    except _BROKEN as error:
        raise MessageError(f"An event is broken: {error!r}.") from error


def _uuid(text: object) -> str:
    """Return the text of a UUID as it is usually written; `ValueError` for anything else."""
    if isinstance(text, str) and _UUID.fullmatch(text):
        return text
    return str(UUID(cast("str", text)))


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
