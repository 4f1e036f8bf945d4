"""What an idle task instance waits for, named so that people and reports can tell it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from backfill.engine.codes import SUCCESS, WORDS
from backfill.engine.graph import TaskSpec
from backfill.engine.past import PastTask
from backfill.engine.run import RunState
from backfill.keys import UNMAPPED
from backfill.states import TaskInstanceState


@dataclass(frozen=True, slots=True)
class AwaitedTask:
    """A task instance, or a task of a run where it has none, that another one waits for."""

    task_id: str
    logical_date: datetime
    map_index: int = UNMAPPED
    #: None: it has no row, or its date no run.
    state: TaskInstanceState | None = None
    #: None: it belongs to the run before.
    ti_id: int | None = None

    def __str__(self) -> str:
        index = "" if self.map_index == UNMAPPED else f"[{self.map_index}]"
        return f"{self.task_id}{index} of {self.logical_date.isoformat()} ({self.state or 'no such task instance'})"


@dataclass(frozen=True, slots=True)
class AwaitedPool:
    """A pool that a task instance waits for; `slots` None: it does not exist."""

    pool: str
    slots: int | None

    def __str__(self) -> str:
        return f"pool {self.pool!r} ({'does not exist' if self.slots is None else f'{self.slots} slots'})"


@dataclass(frozen=True, slots=True)
class AwaitedSubdag:
    """The run of a subdag in which nothing can go any more."""

    task_id: str
    logical_date: datetime

    def __str__(self) -> str:
        return f"the subdag of {self.task_id} of {self.logical_date.isoformat()} (it is stuck)"


Awaited = AwaitedTask | AwaitedPool | AwaitedSubdag


def unfinished_slots(run: RunState, spec: TaskSpec, index: int, line: int) -> list[int]:
    """Return the unfinished slots of the same run that `spec` waits for at line 1, 3, 4 or 5 of S4.1."""
    tasks = {1: spec.deciders, 3: spec.sources, 4: spec.indirect_setups, 5: spec.upstream}[line]
    slots = (slot for task in tasks for slot in run.relevant(spec.index, index, task))
    return [slot for slot in slots if run.state[slot] < SUCCESS]


def name_slots(run: RunState, slots: Iterable[int]) -> tuple[AwaitedTask, ...]:
    """Return the task instances in `slots` by name."""
    return tuple(
        AwaitedTask(
            run.graph.tasks[run.task_of(slot)].task_id,
            run.facts.logical_date,
            run.indexes[slot],
            WORDS[run.state[slot]],
            run.ids[slot],
        )
        for slot in slots
    )


def name_past(run: RunState, because_of: Iterable[PastTask]) -> tuple[AwaitedTask, ...]:
    """Return by name what holds a task of `run` back in the run before."""
    named: list[AwaitedTask] = []
    for past in because_of:
        state = None if past.code is None else WORDS[past.code]
        named.append(AwaitedTask(run.graph.tasks[past.task].task_id, past.logical_date, state=state))
    return tuple(dict.fromkeys(named))
