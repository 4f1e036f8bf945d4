"""Rows as the database has them become what the window knows, whatever has changed since (S0.1)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from backfill.engine.board import Board
from backfill.engine.codes import CODES, NONE, QUEUED, REMOVED, SUCCESS
from backfill.engine.run import NO_DETAILS, NO_ROW, NO_TRIES, SLOT_BITS, SLOT_MASK, Details, RunState, Tries
from backfill.facts import PreviousRun, RunFacts, TaskInstanceFacts
from backfill.keys import UNMAPPED
from backfill.states import TaskInstanceState


class Intake:
    """Takes in runs and rows."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._shared: dict[Tries, Tries] = {}

    def admit(
        self, facts: RunFacts, rows: Iterable[TaskInstanceFacts], *, is_first: bool, previous: PreviousRun | None
    ) -> None:
        """Let a run into the window with all its rows."""
        board = self._board
        run = RunState(board.graph, facts, is_first=is_first, previous=previous)
        board.enter(run)
        is_untouched = self._place(run, rows)
        all_tasks = range(len(board.graph.tasks))
        for task in all_tasks:
            if run.ids[task] == NO_ROW:
                board.move(run, task, REMOVED)
                is_untouched = False
        board.judge_tasks(run, board.graph.entries if is_untouched else all_tasks)

    def take_in(self, rows: Iterable[TaskInstanceFacts]) -> list[TaskInstanceFacts]:
        """Take in rows of any run; return those that differ from what was known. Runs outside of the window do not count."""
        board = self._board
        places, runs = board.places, board.runs
        changed: list[TaskInstanceFacts] = []
        unknown: dict[int, list[TaskInstanceFacts]] = defaultdict(list)
        for row in rows:
            place = places.get(row[0])
            if place is None:
                unknown[row[1]].append(row)
                continue
            run, slot = runs[place >> SLOT_BITS], place & SLOT_MASK
            if row[3] != run.indexes[slot]:
                unknown[row[1]].append(row)
            elif self._update(run, slot, row):
                changed.append(row)
        for dag_run_id, news in unknown.items():
            if dag_run_id in board.by_id:
                changed += self._take_in_news(board.by_id[dag_run_id], news)
        return changed

    # -- rows that have their slot --------------------------------------------------------------------------------------

    def _update(self, run: RunState, slot: int, row: TaskInstanceFacts) -> bool:
        """Write what differs into a slot, with what follows from it; return whether anything did."""
        code, tries = CODES[row[4]], row[5:8]
        details = row[8:] if code < SUCCESS else (None, *row[9:])
        known = run.details.get(slot, NO_DETAILS)
        if code == run.state[slot] and tries == run.tries[slot] and details == known:
            return False
        run.tries[slot] = self._shared.setdefault(tries, tries)
        self._keep(run, slot, details)
        if code != run.state[slot]:
            self._board.move(run, slot, code)
        elif code < QUEUED and details[1] != known[1]:
            self._board.reconsider(run, slot)
        elif code >= SUCCESS or details[3] != known[3]:  # it has run again meanwhile, or decided otherwise
            self._board.wake_watchers(run, run.task_of(slot))
        return True

    def _keep(self, run: RunState, slot: int, details: Details) -> None:
        if details == NO_DETAILS:
            run.details.pop(slot, None)
        else:
            run.details[slot] = details

    # -- rows that have none yet ----------------------------------------------------------------------------------------

    def _place(self, run: RunState, rows: Iterable[TaskInstanceFacts]) -> bool:
        """Give the rows of a new run their slots; return whether all of them are in their initial state."""
        index = self._board.graph.index
        is_untouched = True
        indexed: dict[int, list[TaskInstanceFacts]] = defaultdict(list)
        for row in rows:
            task = index.get(row[2])
            if task is None:
                self._notice_bystander(run, row)
            elif row[3] != UNMAPPED:
                indexed[task].append(row)
            else:
                self._name(run, task, row)
                self._update(run, task, row)
                is_untouched = is_untouched and run.state[task] == NONE
        for task, more in indexed.items():
            if run.ids[task] != NO_ROW and all(row.state == TaskInstanceState.REMOVED for row in more):
                continue  # it was expanded once, and is not any more
            if self._is_half_expanded(run, task, more):
                continue
            self._expand(run, task, more)
        return is_untouched and not indexed

    def _take_in_news(self, run: RunState, rows: list[TaskInstanceFacts]) -> list[TaskInstanceFacts]:
        """Take in rows of a run that are new to it, or that have another map index than they had.

        One that is `removed` before it was ever seen has no effect.
        """
        index = self._board.graph.index
        changed = [row for row in rows if row[2] not in index and self._notice_bystander(run, row)]
        ours = [row for row in rows if row[2] in index and row.state != TaskInstanceState.REMOVED]
        indexed: dict[int, list[TaskInstanceFacts]] = defaultdict(list)
        for row in ours:
            indexed[index[row[2]]].append(row)
        for task, more in indexed.items():
            if more[0].map_index == UNMAPPED:
                run = self._start_over(run, more)
            elif self._is_half_expanded(run, task, more):
                ours = [row for row in ours if index[row[2]] != task]
            else:
                self._expand(run, task, more)
        return changed + ours

    def _is_half_expanded(self, run: RunState, task: int, rows: Iterable[TaskInstanceFacts]) -> bool:
        """Return whether `rows` are the first portions of an expansion: row -1 still waits to be index 0, the last of all (S4.7).

        Until then the task counts as not expanded: whoever drives the job goes on with it.
        """
        waits = task not in run.expanded and run.ids[task] != NO_ROW and run.state[task] < QUEUED
        return waits and all(row.map_index > 0 for row in rows)

    def _expand(self, run: RunState, task: int, rows: list[TaskInstanceFacts]) -> None:
        """Take in rows of a mapped task that came with its expansion; what was row -1 is index 0 (S4.7)."""
        is_whole = task in run.lengths  # else it grows, perhaps by portions: the answer says
        if task not in run.expanded:
            is_whole = any(row.map_index == 0 for row in rows)
            if not is_whole:
                self._let_go(run, task)
        self._board.grow(run, task, 1 + max(row.map_index for row in rows))
        slots = run.expanded[task]
        fresh = [slots[row.map_index] for row in rows if run.ids[slots[row.map_index]] == NO_ROW]
        for row in rows:
            self._name(run, slots[row.map_index], row)
        self._board.appear(run, task, [slot for slot in fresh if run.state[slot] == REMOVED])
        for row in rows:
            self._update(run, slots[row.map_index], row)
        if task in run.asked and is_whole:
            run.lengths[task] = len(slots)

    def _let_go(self, run: RunState, task: int) -> None:
        """Forget a row -1 that ended before it was index 0: it never is, the rest of the expansion makes another (S3.20)."""
        if run.state[task] != REMOVED:
            self._board.move(run, task, REMOVED)
        self._board.places.pop(run.ids[task], None)
        run.ids[task], run.tries[task] = NO_ROW, NO_TRIES
        run.details.pop(task, None)

    def _name(self, run: RunState, slot: int, row: TaskInstanceFacts) -> None:
        if run.ids[slot] != row.id:  # a row -1 that is `removed`, while another one is index 0
            self._board.places.pop(run.ids[slot], None)
        run.ids[slot] = row.id
        self._board.places[row.id] = run.base | slot

    def _start_over(self, run: RunState, rows: list[TaskInstanceFacts]) -> RunState:
        """Take a run in anew, and return it: a row came or changed its index in a way that no expansion does."""
        merged = {row.id: row for row in [*run.rows(), *rows]}
        bystanders = run.bystanders
        self._board.leave(run)
        self.admit(run.facts, merged.values(), is_first=run.is_first, previous=run.previous)
        anew = self._board.by_id[run.facts.id]
        anew.bystanders = bystanders
        return anew

    def _notice_bystander(self, run: RunState, row: TaskInstanceFacts) -> bool:
        """Remember the row of a task that was not chosen (S13.7); return whether it is news. Vanished tasks do not count."""
        known, now = run.bystanders.get(row.id), (row.task_id, str(row.state))
        if row.task_id not in self._board.graph.others or known == now:
            return False
        run.bystanders[row.id] = now
        return True
