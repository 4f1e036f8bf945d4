"""What `backfill why` answers: sentences for people, and the same as values for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from backfill.engine.waiting import Awaited, AwaitedPool, AwaitedSubdag
from backfill.store.inspection import Occupant


class Held(StrEnum):
    """What holds a task instance; the word by which programs know it."""

    FINISHED = "finished"
    RUNNING = "running"
    #: It waits for a worker.
    QUEUED = "queued"
    #: Lines 1 and 3 to 5 of S4.1: something in its own run.
    UPSTREAM = "upstream"
    #: Line 6: the run before.
    PAST = "past"
    #: Line 7: a date.
    RETRY = "retry"
    RESCHEDULE = "reschedule"
    #: A limit of S5.
    LIMIT = "limit"
    #: Nothing but its place in the order of S5.5, or what holds the job as a whole.
    TURN = "turn"
    #: It is in a subdag whose run has not begun.
    SUBDAG = "subdag"
    #: The coordinator is about to settle or to expand it.
    DECISION = "decision"
    #: It can never run (S9.3).
    BLOCKED = "blocked"
    #: Its date has no run in the window yet.
    NOT_ADMITTED = "not_admitted"
    #: Its run was closed before it could run.
    CLOSED = "closed"
    #: The DAG cannot be loaded here, so that nobody can tell.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAnswer:
    """Why one task instance is where it is. `answer` is the sentence that says it, `remarks` are further ones."""

    job_id: int
    dag_id: str
    task_id: str
    logical_date: datetime
    #: None: the task instance does not exist yet, or all indexes of a mapped task are meant.
    map_index: int | None
    #: A `TaskInstanceState` word; None: there is no such task instance yet.
    state: str | None
    run_id: str | None = None
    try_number: int = 0
    held_by: Held
    answer: str
    remarks: tuple[str, ...] = ()
    #: The line of S4.1 that holds it.
    line: int | None = None
    #: Names of the limits that have no room for it.
    limits: tuple[str, ...] = ()
    waits_for: tuple[Awaited, ...] = ()
    #: Who takes up the room under the first of the limits.
    occupied_by: Sequence[Occupant] = ()
    #: Retry or reschedule date.
    due: datetime | None = None
    #: Ready task instances that go before it (S5.5).
    rank: int | None = None

    def remarking(self, *remarks: str) -> TaskAnswer:
        """Return the answer with further remarks."""
        return replace(self, remarks=(*self.remarks, *(remark for remark in remarks if remark)))

    def to_json(self) -> dict[str, Any]:
        """Return the answer in its JSON shape (docs/cli.md)."""
        return {
            "job_id": self.job_id,
            "dag_id": self.dag_id,
            "task_id": self.task_id,
            "run_id": self.run_id,
            "logical_date": self.logical_date,
            "map_index": self.map_index,
            "state": self.state,
            "try_number": self.try_number,
            "held_by": str(self.held_by),
            "answer": self.answer,
            "remarks": list(self.remarks),
            "line": self.line,
            "limits": list(self.limits),
            "waits_for": [_awaited(each) for each in self.waits_for],
            "occupied_by": [_occupant(each) for each in self.occupied_by],
            "due": self.due,
            "rank": self.rank,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAnswer:
    """Why the run of one date is not finished, or how it ended."""

    job_id: int
    dag_id: str
    logical_date: datetime
    #: None: there is no run yet.
    run_id: str | None = None
    #: A `DagRunState` word; None: there is no run yet.
    state: str | None = None
    answer: str
    remarks: tuple[str, ...] = ()
    #: The tasks that are not finished or, of a run that has ended, ended badly; in topological order.
    tasks: tuple[TaskAnswer, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the answer in its JSON shape (docs/cli.md)."""
        return {
            "job_id": self.job_id,
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "logical_date": self.logical_date,
            "state": self.state,
            "answer": self.answer,
            "remarks": list(self.remarks),
            "tasks": [task.to_json() for task in self.tasks],
        }


def _awaited(awaited: Awaited) -> dict[str, Any]:
    if isinstance(awaited, AwaitedPool):
        return {"pool": awaited.pool, "slots": awaited.slots}
    if isinstance(awaited, AwaitedSubdag):
        return {"subdag_of": awaited.task_id, "logical_date": awaited.logical_date}
    return {
        "task_id": awaited.task_id,
        "logical_date": awaited.logical_date,
        "map_index": awaited.map_index,
        "state": awaited.state and str(awaited.state),
    }


def _occupant(occupant: Occupant) -> dict[str, Any]:
    return {
        "dag_id": occupant.dag_id,
        "task_id": occupant.task_id,
        "logical_date": occupant.logical_date,
        "map_index": occupant.map_index,
        "state": occupant.state,
        "slots": occupant.pool_slots,
        "job_id": occupant.job_id,
        "seconds": occupant.age and occupant.age.total_seconds(),
    }


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """How many task instances of a job are held by the same; `example` is one of them."""

    held_by: Held
    count: int
    #: What holds them, as the end of "`count` task instances are …".
    what: str
    example: str

    def to_json(self) -> dict[str, Any]:
        """Return the count in its JSON shape."""
        return {"held_by": str(self.held_by), "count": self.count, "what": self.what, "example": self.example}


@dataclass(frozen=True, slots=True, kw_only=True)
class DatesAnswer:
    """How far the dates of a job are, and why no more of them are in the window."""

    total: int
    finished: int
    in_window: int
    not_admitted: int
    #: None: all dates are admitted.
    why: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the numbers in their JSON shape."""
        return {
            "total": self.total,
            "finished": self.finished,
            "in_window": self.in_window,
            "not_admitted": self.not_admitted,
            "why": self.why,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class JobAnswer:
    """Why a job, or one task of it, does not go faster."""

    job_id: int
    dag_id: str
    state: str
    #: The task asked about, by its name (in a subdag `part.load`); None: all of them.
    task_id: str | None = None
    #: How the job is, and what holds it as a whole.
    sentences: tuple[str, ...]
    reasons: tuple[ReasonCount, ...] = ()
    dates: DatesAnswer
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return the answer in its JSON shape (docs/cli.md)."""
        return {
            "job_id": self.job_id,
            "dag_id": self.dag_id,
            "state": self.state,
            "task_id": self.task_id,
            "sentences": [*self.sentences, *self.notes],
            "reasons": [reason.to_json() for reason in self.reasons],
            "dates": self.dates.to_json(),
        }
