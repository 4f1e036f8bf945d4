"""Why a task instance is not running (S11.6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from backfill.engine.board import Board
from backfill.engine.codes import QUEUED, SUCCESS, UP_FOR_RESCHEDULE, WORDS
from backfill.engine.graph import TaskSpec
from backfill.engine.judge import Judge
from backfill.engine.limits import Limit, Occupancy, full_limits
from backfill.engine.past import look_back
from backfill.engine.run import SLOT_BITS, SLOT_MASK, RunState
from backfill.engine.verdicts import Verdict
from backfill.engine.waiting import Awaited, name_past, name_slots, unfinished_slots
from backfill.keys import UNMAPPED

#: A sentence names so many of those waited for; the rest is counted.
_NAMED = 3
_PAST_LINE = 6
_WHY = {
    1: "it may still be skipped by",
    3: "its mapping waits for",
    4: "it waits for the setup",
    5: "its trigger rule {rule} waits for",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """The first thing that holds a task instance; `text` says it in one clause."""

    text: str
    #: Line of S4.1; None: none of them holds it.
    line: int | None = None
    #: What it waits for.
    waits_for: tuple[Awaited, ...] = ()
    #: The date that it waits for (line 7).
    due: datetime | None = None
    #: The limits of S5 that have no room for it.
    limits: tuple[Limit, ...] = ()
    #: Number of ready task instances that go before it (S5.5); None: it is not ready.
    rank: int | None = None


def explain(
    board: Board,
    judge: Judge,
    ti_id: int,
    now: datetime,
    occupancy: Occupancy | None,
    limit: int | None,
    *,
    ranked: bool = True,
) -> Reason:
    """Return what holds a task instance, as the window stands.

    Without `occupancy` no limit is looked at; `limit` is `core.parallelism`. Without `ranked` its place among the ready ones
    is not worked out, which takes time in proportion to their number.
    """
    run, slot = board.find(ti_id)
    code = run.state[slot]
    if code >= QUEUED:
        return Reason(text=f"it has ended as {WORDS[code]}" if code >= SUCCESS else f"it is {WORDS[code]}")
    task = run.task_of(slot)
    spec = board.graph.tasks[task]
    index = run.indexes[slot] if board.graph.has_kin[task] else UNMAPPED
    verdict, line = judge.finding(run, task, index)
    match verdict:
        case Verdict.PASS:
            reason = _after_the_lines(board, run, slot, now, occupancy, limit)
            return _ranked(board, run.base | slot, reason) if ranked and reason.line is None else reason
        case Verdict.WAIT | Verdict.HELD:
            return _waiting(run, spec, index, line)
        case Verdict.EXPAND:
            return Reason(text="the length of its mapping is being looked up", line=line)
        case Verdict.SKIP:
            return Reason(text="it is about to be skipped", line=line)
        case Verdict.FAIL:
            return Reason(text="it is about to become upstream_failed", line=line)
        case _:
            assert_never(verdict)


def _waiting(run: RunState, spec: TaskSpec, index: int, line: int) -> Reason:
    """Say what one of lines 1 to 6 waits for."""
    if line == _PAST_LINE:
        past = name_past(run, look_back(run, spec).because_of)
        flag = "wait_for_downstream" if len(spec.past) > 1 else "depends_on_past"
        return Reason(text=f"{flag} waits for {_listed(past)}", line=line, waits_for=past)
    awaited = name_slots(run, unfinished_slots(run, spec, index, line))
    return Reason(text=f"{_WHY[line].format(rule=spec.rule)} {_listed(awaited)}", line=line, waits_for=awaited)


def _after_the_lines(
    board: Board, run: RunState, slot: int, now: datetime, occupancy: Occupancy | None, limit: int | None
) -> Reason:
    """Say whether line 7, a limit or just its turn holds a task instance that may go by lines 1 to 6."""
    place, spec = run.base | slot, board.graph.tasks[run.task_of(slot)]
    if place in board.due:
        due = run.row(slot).next_attempt_at
        if due is not None and due > now:
            word = "reschedule" if run.state[slot] == UP_FOR_RESCHEDULE else "retry"
            return Reason(text=f"its {word} is due at {due.isoformat()}", line=7, due=due)
    full = tuple(_full_limits(board, spec, run, occupancy, limit))
    if full:
        names = " and ".join(f"pool {spec.pool!r}" if each is Limit.POOL else each.value for each in full)
        return Reason(text=f"{names} {'has' if len(full) == 1 else 'have'} no room for it", limits=full)
    return Reason(text="it is ready")


def _ranked(board: Board, place: int, reason: Reason) -> Reason:
    """Say how many ready task instances go before one that is ready (S5.5)."""
    rank = sum(_order(board, other) < _order(board, place) for other in board.ready)
    if reason.limits:
        return replace(reason, rank=rank)
    return Reason(text=f"it is ready, and {rank} ready task instances go before it", rank=rank)


def _full_limits(
    board: Board, spec: TaskSpec, run: RunState, occupancy: Occupancy | None, limit: int | None
) -> Iterator[Limit]:
    if limit is not None and board.places_taken >= limit:
        yield Limit.PARALLELISM
    if occupancy is not None:
        yield from full_limits(board.graph, spec, run.facts.id, occupancy)


def _order(board: Board, place: int) -> tuple[int, int, int, int]:
    """Return the key of S5.5."""
    run, slot = board.runs[place >> SLOT_BITS], place & SLOT_MASK
    spec = board.graph.tasks[run.task_of(slot)]
    return -spec.weight, run.facts.ordinal, spec.index, run.indexes[slot]


def _listed(awaited: Sequence[Awaited]) -> str:
    """Return the first few by name and the number of the others."""
    named = [str(each) for each in awaited[:_NAMED]]
    if len(awaited) > _NAMED:
        named.append(f"{len(awaited) - _NAMED} more")
    return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
