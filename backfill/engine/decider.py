"""Decides what idle task instances do next, until nothing changes any more (S4.1, S4.2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, assert_never

from backfill.engine.board import Board
from backfill.engine.codes import (
    NONE,
    QUEUED,
    SCHEDULED,
    SKIPPED,
    SUCCESS,
    UP_FOR_RESCHEDULE,
    UP_FOR_RETRY,
    UPSTREAM_FAILED,
    WORDS,
)
from backfill.engine.judge import Judge
from backfill.engine.run import NO_DETAILS, SLOT_BITS, SLOT_MASK, RunState
from backfill.engine.verdicts import Verdict
from backfill.keys import UNMAPPED
from backfill.states import TaskInstanceState

_DATED: Final = (UP_FOR_RETRY, UP_FOR_RESCHEDULE)


@dataclass(slots=True)
class Decisions:
    """What follows from the dependencies. True if there is anything to do."""

    #: Task instances that were settled, with their final state (S3.5, S3.6). The window has them so already.
    settle: list[tuple[int, TaskInstanceState]] = field(default_factory=list)
    #: `scheduled` ones that are `none` again, as their dependencies are not met any more (S3.3). The window has them so already.
    unschedule: list[int] = field(default_factory=list)
    #: (dag_run_id, task_id) of mapped tasks whose length has to be looked up now (S4.7): the window waits for
    #: `take_in` with the new rows and for `set_length`.
    expand: list[tuple[int, str]] = field(default_factory=list)

    def going_on_with(self, expansions: Iterable[tuple[int, str]]) -> Decisions:
        """Return these decisions with `expansions` that were begun before."""
        self.expand[:0] = [each for each in expansions if each not in self.expand]
        return self

    def __bool__(self) -> bool:
        return bool(self.settle or self.unschedule or self.expand)


class Decider:
    """Judges what the board says has to be judged."""

    def __init__(self, board: Board, judge: Judge) -> None:
        self._board = board
        self._judge = judge

    def decide(self, now: datetime) -> Decisions:
        """Judge until nothing changes: a chain of skips of any length settles in one call."""
        board, decisions = self._board, Decisions()
        board.slots_to_judge.update(dict.fromkeys(board.due.pop_until(now)))
        runs, tasks, slots = board.runs, board.tasks_to_judge, board.slots_to_judge
        while tasks or slots:
            (place, _), judge = (tasks.popitem(), self._judge_task) if tasks else (slots.popitem(), self._judge_slot)
            run = runs.get(place >> SLOT_BITS)
            if run is not None:  # else it has left since
                judge(run, place & SLOT_MASK, now, decisions)
        return decisions

    def _judge_task(self, run: RunState, task: int, now: datetime, decisions: Decisions) -> None:
        """Judge all idle task instances of a task at once; if they have kin, each by itself."""
        slots = run.expanded.get(task)
        if slots is None:
            if run.state[task] < QUEUED:
                self._carry_out(run, task, task, self._judge.verdict(run, task, UNMAPPED), now, decisions)
            return
        if self._board.graph.has_kin[task]:
            self._board.slots_to_judge.update((run.base | slot, None) for slot in slots if run.state[slot] < QUEUED)
            return
        verdict = self._judge.verdict(run, task, UNMAPPED)
        if run.verdicts.get(task) is not verdict:
            run.verdicts[task] = verdict
            for slot in slots:
                if run.state[slot] < QUEUED:
                    self._carry_out(run, task, slot, verdict, now, decisions)

    def _judge_slot(self, run: RunState, slot: int, now: datetime, decisions: Decisions) -> None:
        if run.state[slot] < QUEUED:
            task = run.task_of(slot)
            index = run.indexes[slot] if self._board.graph.has_kin[task] else UNMAPPED
            self._carry_out(run, task, slot, self._judge.verdict(run, task, index), now, decisions)

    def _carry_out(
        self, run: RunState, task: int, slot: int, verdict: Verdict, now: datetime, decisions: Decisions
    ) -> None:
        """Do what `verdict` says about one idle task instance."""
        match verdict:
            case Verdict.PASS:
                self._let_go(run, task, slot, now, decisions)
            case Verdict.WAIT:
                self._hold_back(run, slot, decisions)
            case Verdict.HELD:
                self._hold_back(run, slot, decisions)
                self._board.held.add(run.base | slot)
            case Verdict.SKIP:
                self._settle(run, slot, SKIPPED, decisions)
            case Verdict.FAIL:
                self._settle(run, slot, UPSTREAM_FAILED, decisions)
            case Verdict.EXPAND:
                self._board.stop_waiting(run.base | slot)
                if task not in run.asked:
                    run.asked.add(task)
                    decisions.expand.append((run.facts.id, self._board.graph.tasks[task].task_id))
            case _:
                assert_never(verdict)

    def _let_go(self, run: RunState, task: int, slot: int, now: datetime, decisions: Decisions) -> None:
        """Lines 1 to 6 pass: wait for a date, settle by itself, or be ready."""
        board, spec, place = self._board, self._board.graph.tasks[task], run.base | slot
        state = run.state[slot]
        board.held.discard(place)
        if state in _DATED and (date := self._date(run, slot)) is not None and date > now:
            board.due.add(place, date)
        elif spec.is_subdag:
            board.startable[place] = None
        elif spec.settles_itself:
            self._settle(run, slot, SUCCESS, decisions)
        else:
            board.ready.add(place, task, run.facts.id, scheduled=state == SCHEDULED)

    def _date(self, run: RunState, slot: int) -> datetime | None:
        """Return the retry or reschedule date (line 7)."""
        return None if self._board.graph.options.ignore_task_deps else run.details.get(slot, NO_DETAILS)[1]

    def _hold_back(self, run: RunState, slot: int, decisions: Decisions) -> None:
        board = self._board
        board.stop_waiting(run.base | slot)
        if run.state[slot] == SCHEDULED:
            run.state[slot] = NONE
            board.totals[SCHEDULED] -= 1
            board.totals[NONE] += 1
            decisions.unschedule.append(run.ids[slot])

    def _settle(self, run: RunState, slot: int, code: int, decisions: Decisions) -> None:
        decisions.settle.append((run.ids[slot], WORDS[code]))
        run.close_try(slot, counts=code == SUCCESS)
        self._board.move(run, slot, code)
