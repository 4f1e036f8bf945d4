"""Work that is left and can never run (S9.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from backfill.engine.board import Board
from backfill.engine.codes import QUEUED, SUCCESS
from backfill.engine.graph import TaskSpec
from backfill.engine.judge import Judge
from backfill.engine.limits import pool_never_suffices
from backfill.engine.past import look_back
from backfill.engine.run import RunState
from backfill.engine.verdicts import Verdict
from backfill.engine.waiting import Awaited, AwaitedPool, AwaitedSubdag, name_past, name_slots, unfinished_slots
from backfill.keys import UNMAPPED

_PAST_LINE = 6


class BlockReason(StrEnum):
    """Why a task instance is blocked."""

    #: A task instance of the run before ended badly, is driven by nobody or is blocked itself (S9.3 a).
    PAST = "past"
    #: All that it waits for in its own run is blocked (S9.3 b).
    UPSTREAM = "upstream"
    #: Its pool does not exist, or is too small for it (S9.3 c).
    POOL = "pool"
    #: All that is left in the run of its subdag is blocked: unlike the others it is `running`.
    SUBDAG = "subdag"


@dataclass(frozen=True, slots=True)
class Blocked:
    """A blocked task instance, with what it waits for."""

    ti_id: int
    reason: BlockReason
    waits_for: tuple[Awaited, ...]

    def __str__(self) -> str:
        return "waits for " + ", ".join(map(str, self.waits_for))


class Blockage:
    """Finds the blocked task instances of the whole window; the result is kept until something changes."""

    def __init__(self, board: Board, judge: Judge) -> None:
        self._board = board
        self._judge = judge
        #: Slots by pool, as last seen (None: never yet), and the tasks that no pool will ever take.
        self._pool_sizes: dict[str, int] | None = None
        self._hopeless: frozenset[int] = frozenset()
        self._found: dict[int, Blocked] = {}
        self._found_at = -1

    def see_pools(self, pool_sizes: Mapping[str, int]) -> None:
        """Remember which pools there are; until the first time no task is blocked by its pool."""
        if pool_sizes != self._pool_sizes:
            self._pool_sizes = dict(pool_sizes)
            tasks = self._board.graph.tasks
            self._hopeless = frozenset(spec.index for spec in tasks if pool_never_suffices(spec, pool_sizes))
            self._found_at = -1

    def blocked(self) -> list[Blocked]:
        """Return what is blocked, by run date, topology and map index."""
        return list(self._find().values())

    def stuck_runs(self) -> list[int]:
        """Return the ids of the runs all of whose unfinished task instances are blocked, by run date."""
        found = self._find()
        if not found:
            return []
        return [
            run.facts.id
            for run in self._runs_by_date()
            if run.unfinished and all(run.base | slot in found for slot, code in enumerate(run.state) if code < SUCCESS)
        ]

    def never_goes(self, spec: TaskSpec) -> bool:
        """Return whether ready task instances of a task can never get a place in their pool."""
        return spec.index in self._hopeless

    def _find(self) -> dict[int, Blocked]:
        """Return the blocked task instances by place."""
        board = self._board
        if not board.held and not self._hopeless and not board.stuck_subdags:
            return {}
        if self._found_at != board.version:
            self._found = {}
            for run in self._runs_by_date():
                for spec in board.graph.tasks:
                    self._look_at(run, spec)
            self._found_at = board.version
        return self._found

    def _runs_by_date(self) -> list[RunState]:
        return sorted(self._board.runs.values(), key=lambda run: run.facts.logical_date)

    def _look_at(self, run: RunState, spec: TaskSpec) -> None:
        """Note the blocked ones of a task's instances; what they may wait for has been looked at before."""
        if run.base | spec.index in self._board.stuck_subdags:
            awaited = AwaitedSubdag(spec.task_id, run.facts.logical_date)
            self._found[run.base | spec.index] = Blocked(run.ids[spec.index], BlockReason.SUBDAG, (awaited,))
            return
        for index, slots in self._judged_together(run, spec):
            idle = [slot for slot in slots if run.state[slot] < QUEUED and run.base | slot not in self._board.due]
            cause = self._cause(run, spec, index) if idle else None
            if cause is not None:
                self._found.update({run.base | slot: replace(cause, ti_id=run.ids[slot]) for slot in idle})

    def _judged_together(self, run: RunState, spec: TaskSpec) -> Iterator[tuple[int, list[int]]]:
        slots = list(run.slots_of(spec.index))
        if self._board.graph.has_kin[spec.index] and spec.index in run.expanded:
            yield from ((run.indexes[slot], [slot]) for slot in slots)
        else:
            yield UNMAPPED, slots

    def _cause(self, run: RunState, spec: TaskSpec, index: int) -> Blocked | None:
        """Return why idle task instances can never go, without their id."""
        verdict, line = self._judge.finding(run, spec.index, index)
        if verdict is Verdict.PASS:
            return self._pool(spec)
        if line == _PAST_LINE:
            return self._past(run, spec, is_final=verdict is Verdict.HELD)
        if verdict is Verdict.WAIT:
            slots = unfinished_slots(run, spec, index, line)
            if slots and all(run.base | slot in self._found for slot in slots):
                return Blocked(0, BlockReason.UPSTREAM, name_slots(run, slots))
        return None

    def _pool(self, spec: TaskSpec) -> Blocked | None:
        if spec.settles_itself or spec.is_subdag or not self.never_goes(spec):
            return None
        return Blocked(0, BlockReason.POOL, (AwaitedPool(spec.pool, (self._pool_sizes or {}).get(spec.pool)),))

    def _past(self, run: RunState, spec: TaskSpec, *, is_final: bool) -> Blocked | None:
        because_of = look_back(run, spec).because_of
        before = run.earlier
        if not is_final and before is not None:
            slots = (slot for past in because_of for slot in before.slots_of(past.task))
            is_final = any(before.base | slot in self._found for slot in slots)
        return Blocked(0, BlockReason.PAST, name_past(run, because_of)) if is_final else None
