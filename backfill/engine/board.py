"""All runs of the window, and what a change of one task instance means for the others.

A change costs O(out-degree): it moves counts, and notes which tasks and task instances have to be judged again. Judging
them is the work of `Decider`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backfill.engine.codes import (
    CHANGES,
    NONE,
    QUEUED,
    REMOVED,
    RUNNING,
    SCHEDULED,
    SHARES,
    SUCCESS,
    WORDS,
    Share,
    ended_badly,
)
from backfill.engine.due import Due
from backfill.engine.graph import Graph
from backfill.engine.past import snapshot
from backfill.engine.ready import Ready
from backfill.engine.rules import AT_ONCE
from backfill.engine.run import SLOT_BITS, SLOT_MASK, RunState
from backfill.facts import PreviousRun


class Board:
    """The runs in the window by ordinal, the places of their task instances, and what is to be judged."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.runs: dict[int, RunState] = {}
        self.by_id: dict[int, RunState] = {}
        #: Place of each task instance id.
        self.places: dict[int, int] = {}
        #: By id of the run before, wherever that is: the run that looks back at it.
        self._after: dict[int, RunState] = {}
        #: Number of task instances by code, in the whole window.
        self.totals = [0] * len(WORDS)
        self.ready = Ready(graph)
        self.due = Due()
        #: What to judge: tasks as a whole (places of their first slots), and single task instances. Ordered sets.
        self.tasks_to_judge: dict[int, None] = {}
        self.slots_to_judge: dict[int, None] = {}
        #: Places of task instances that line 6 holds back for good (S9.3 a).
        self.held: set[int] = set()
        #: Places of `SubDagOperator` task instances whose dependencies are met, an ordered set; and of running ones of whose
        #: subdag all that is left is blocked.
        self.startable: dict[int, None] = {}
        self.stuck_subdags: frozenset[int] = frozenset()
        #: Ordinals of runs without unfinished task instances.
        self.finished: set[int] = set()
        #: Grows with each change, so that an analysis can tell whether it is still true.
        self.version = 0

    # -- runs come and go -----------------------------------------------------------------------------------------------

    def enter(self, run: RunState) -> None:
        """Let a run in whose slots are all idle, and connect it with its neighbours."""
        ordinal = run.facts.ordinal
        if ordinal in self.runs or run.facts.id in self.by_id:
            raise ValueError(f"run {run.facts.id} with ordinal {ordinal} is in the window already")
        self.runs[ordinal] = self.by_id[run.facts.id] = run
        self.totals[NONE] += run.unfinished
        if not run.unfinished:
            self.finished.add(ordinal)
        self._follow(run, run.previous)
        later = self._after.get(run.facts.id)
        if later is not None:
            self._follow(later, later.previous)
        self.version += 1

    def leave(self, run: RunState) -> None:
        """Let a run go; the run after it keeps what it has to know of it (S4.9)."""
        del self.runs[run.facts.ordinal], self.by_id[run.facts.id]
        for ti_id in run.ids:
            self.places.pop(ti_id, None)
        if run.unfinished:
            for slot in range(len(run.ids)):
                self.stop_waiting(run.base | slot)
        for code in range(len(WORDS)):
            self.totals[code] -= run.state.count(code)
        self.finished.discard(run.facts.ordinal)
        later = run.later
        self._unfollow(run)
        if later is not None:
            self.tell_previous(later, snapshot(run, later))
        self.version += 1

    def tell_previous(self, run: RunState, previous: PreviousRun | None) -> None:
        """Replace what is known of the run before `run`."""
        self._unfollow(run)
        self._follow(run, previous)
        self._judge_past(run)
        self.version += 1

    def _follow(self, run: RunState, previous: PreviousRun | None) -> None:
        """Let `run` look back at `previous`, live if that is in the window."""
        run.previous = previous
        if previous is None or previous.dag_run_id is None:
            return
        self._after[previous.dag_run_id] = run
        run.earlier = self.by_id.get(previous.dag_run_id)
        if run.earlier is not None:
            run.earlier.later = run
            self._judge_past(run)

    def _unfollow(self, run: RunState) -> None:
        """Cut `run` from the run before it."""
        if run.previous is not None and run.previous.dag_run_id is not None:
            self._after.pop(run.previous.dag_run_id, None)
        if run.earlier is not None:
            run.earlier.later = None
            run.earlier = None

    def _judge_past(self, run: RunState) -> None:
        self.judge_tasks(run, self.graph.looking_back)

    @property
    def in_flight(self) -> int:
        """Number of task instances in the window that are `queued` or `running`."""
        return self.totals[QUEUED] + self.totals[RUNNING]

    @property
    def places_taken(self) -> int:
        """The same without `SubDagOperator` ones, which take no place (S5.4)."""
        subdags = (run.state[task] for task in self.graph.subdags for run in self.runs.values())
        return self.in_flight - sum(QUEUED <= code < SUCCESS for code in subdags)

    def at(self, place: int) -> tuple[RunState, int] | None:
        """Return the run and slot of a place; None if its run has left."""
        run = self.runs.get(place >> SLOT_BITS)
        return None if run is None else (run, place & SLOT_MASK)

    def find(self, ti_id: int) -> tuple[RunState, int]:
        """Return the run and slot of a task instance; `KeyError` if it is not in the window."""
        place = self.places[ti_id]
        return self.runs[place >> SLOT_BITS], place & SLOT_MASK

    def judge_tasks(self, run: RunState, tasks: Iterable[int]) -> None:
        """Have all task instances of these tasks judged."""
        for task in tasks:
            self.tasks_to_judge[run.base | task] = None

    # -- states change --------------------------------------------------------------------------------------------------

    def move(self, run: RunState, slot: int, new: int) -> None:
        """Change a state, with everything that follows from it."""
        old = run.state[slot]
        run.state[slot] = new
        self.totals[old] -= 1
        self.totals[new] += 1
        self.version += 1
        place = run.base | slot
        if old < QUEUED:
            if new == SCHEDULED and place in self.ready:
                self.ready.mark_scheduled(place)
                return
            self.stop_waiting(place)
        if new < QUEUED:
            self.slots_to_judge[place] = None
        if old >= SUCCESS or new >= SUCCESS:
            self._pass_on(run, slot, old, new)

    def stop_waiting(self, place: int) -> None:
        """Let a place be neither ready, nor startable, nor due, nor held; whatever it is now, it is judged anew before it goes."""
        self.ready.discard(place)
        self.due.discard(place)
        self.held.discard(place)
        self.startable.pop(place, None)

    def reconsider(self, run: RunState, slot: int) -> None:
        """Have an idle task instance judged anew whose date has changed."""
        self.stop_waiting(run.base | slot)
        self.slots_to_judge[run.base | slot] = None
        self.version += 1

    def _pass_on(self, run: RunState, slot: int, old: int, new: int) -> None:
        """Tell the tasks that look at this one that it ended, or that it stands otherwise than it did."""
        task = run.task_of(slot)
        self._count_unfinished(run, task, (new < SUCCESS) - (old < SUCCESS))
        ends = old < SUCCESS and new < REMOVED
        if ends:
            self._count_end(run, task, new)
        else:
            self._count_change(run, task, CHANGES[old][new])
        if self.graph.kin_down[task]:
            self._count_among_kin(run, task, slot, CHANGES[old][new], new if ends else None)
        for other in self.graph.kin_watchers[task]:
            for its_slot in run.relevant(task, run.indexes[slot], other):
                self.slots_to_judge[run.base | its_slot] = None
        if not ends or ended_badly(new) or run.is_over(task):
            self.wake_watchers(run, task)

    def _count_unfinished(self, run: RunState, task: int, change: int) -> None:
        run.unfinished += change
        if task in run.open:
            run.open[task] += change
        if not run.unfinished:
            self.finished.add(run.facts.ordinal)
        elif change > 0:
            self.finished.discard(run.facts.ordinal)

    def _count_end(self, run: RunState, task: int, code: int) -> None:
        """Count an end; only the last of a task's upstream ends, or one that decides at once, calls for a judgement."""
        base, left, judge = run.base, run.tally.left, self.tasks_to_judge
        below = self.graph.wide_down[task]
        for other in below:
            left[other] = still_left = left[other] - 1
            if not still_left:
                judge[base | other] = None
        if code != SUCCESS:
            for other in below:
                run.tally.add_end(other, SHARES[code])
        for other in self.graph.at_once[code][task]:
            judge[base | other] = None

    def _count_change(self, run: RunState, task: int, change: Share) -> None:
        for other in self.graph.wide_down[task]:
            run.tally.add(other, change)
            self.tasks_to_judge[run.base | other] = None

    def _count_among_kin(self, run: RunState, task: int, slot: int, change: Share, end: int | None) -> None:
        """Count a change for those task instances of the same mapped group to which this one is relevant (S4.5)."""
        for other in self.graph.kin_down[task]:
            tally = run.kin_tallies.get(other)
            if tally is None:  # not expanded: its one row looks at all of them
                self.tasks_to_judge[run.base | other] = None
                continue
            rule, wide_left = self.graph.tasks[other].rule, run.tally.left[other]
            for its_slot in run.relevant(task, run.indexes[slot], other):
                position = run.indexes[its_slot]
                tally.add(position, change)
                if end is None or end in AT_ONCE[rule] or not (wide_left or tally.left[position]):
                    self.slots_to_judge[run.base | its_slot] = None

    def wake_watchers(self, run: RunState, task: int) -> None:
        """Have those judged that look at `task` by other lines than the trigger rule."""
        for other in self.graph.watchers[task]:
            if task in self.graph.tasks[other].sources:
                run.lengths.pop(other, None)
                run.asked.discard(other)
                run.verdicts.pop(other, None)
            self.tasks_to_judge[run.base | other] = None
        if run.later is not None:
            self.judge_tasks(run.later, self.graph.past_watchers[task])

    # -- mappings are expanded ------------------------------------------------------------------------------------------

    def grow(self, run: RunState, task: int, length: int) -> None:
        """Give an expanded task slots for the map indexes below `length`; they have no rows yet."""
        slots = run.expanded.get(task)
        if slots is None:
            slots = run.expanded[task] = [task]
            run.indexes[task] = 0
            run.keys.pop(task, None)
            run.open[task] = int(run.state[task] < SUCCESS)
        for index in range(len(slots), length):
            slots.append(len(run.ids))
            run.add_slot(task, index)
            self.totals[REMOVED] += 1

    def appear(self, run: RunState, task: int, slots: Sequence[int]) -> None:
        """Note that rows have come for these slots of an expanded task; each counts as idle until it is moved."""
        for slot in slots:
            run.state[slot] = NONE
        count = len(slots)
        self.totals[REMOVED] -= count
        self.totals[NONE] += count
        self._count_unfinished(run, task, count)
        idle = SHARES[NONE]
        self._count_change(run, task, Share(*(count * each for each in idle)))
        run.verdicts.pop(task, None)
        for other in self.graph.recounted[task]:
            run.recount_kin(other)
            self.tasks_to_judge[run.base | other] = None
        self.wake_watchers(run, task)
        self.version += 1
