"""One run in the window: an array for each column, a slot for each task instance.

Slot i below the number of tasks belongs to task i: its one row, or its index 0 once it is expanded. Slots for further
indexes follow in the order in which they came.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from backfill.engine.codes import REMOVED, SHARES, SUCCESS, WORDS
from backfill.engine.graph import Graph
from backfill.engine.kinship import kin_slots
from backfill.engine.tally import Counts, Tally
from backfill.engine.verdicts import Verdict
from backfill.facts import PreviousRun, RunFacts, TaskInstanceFacts
from backfill.keys import UNMAPPED, TaskInstanceKey

#: A place is `ordinal << SLOT_BITS | slot`: one whole number that names a slot in the window; run dates sort first.
SLOT_BITS: Final = 24
SLOT_MASK: Final = (1 << SLOT_BITS) - 1

#: try_number, max_tries, try_open. Few different ones exist at a time, so that they are shared.
Tries = tuple[int, int, bool]
#: attempt_id (none once finished), next_attempt_at, infrastructure_failures, skips; kept only where one is set.
Details = tuple[str | None, datetime | None, int, tuple[str, ...] | None]

#: Id of a slot without a row.
NO_ROW: Final = 0
NO_TRIES: Final[Tries] = (0, 0, False)
NO_DETAILS: Final[Details] = (None, None, 0, None)


class RunState:
    """What the engine knows of one run. Only `Board` and `Intake` change it."""

    __slots__ = (
        "asked",
        "base",
        "bystanders",
        "details",
        "earlier",
        "expanded",
        "facts",
        "graph",
        "ids",
        "indexes",
        "is_first",
        "keys",
        "kin_tallies",
        "later",
        "lengths",
        "open",
        "owners",
        "previous",
        "state",
        "tally",
        "tries",
        "unfinished",
        "verdicts",
    )

    def __init__(self, graph: Graph, facts: RunFacts, *, is_first: bool, previous: PreviousRun | None) -> None:
        size = len(graph.tasks)
        self.graph = graph
        self.facts = facts
        self.base = facts.ordinal << SLOT_BITS
        #: The first run of the range (S4.10).
        self.is_first = is_first
        #: P of S4.9 as last told; where it is in the window `earlier` is it, and `later` is this one for it.
        self.previous = previous
        self.earlier: RunState | None = None
        self.later: RunState | None = None

        #: By slot: code, row id, map index, tries; `details` are sparse.
        self.state = bytearray(size)
        self.ids = [NO_ROW] * size
        self.indexes = [UNMAPPED] * size
        self.tries: list[Tries] = [NO_TRIES] * size
        self.details: dict[int, Details] = {}
        #: Tasks of the slots from `size` on.
        self.owners: list[int] = []
        self.unfinished = size
        #: Keys that were asked for, by slot.
        self.keys: dict[int, TaskInstanceKey] = {}

        #: Expanded tasks: their slots by map index, and how many of these are unfinished.
        self.expanded: dict[int, list[int]] = {}
        self.open: dict[int, int] = {}
        #: Dynamic mappings whose length was asked for, and those whose length is known (None: there is none to be had).
        self.asked: set[int] = set()
        self.lengths: dict[int, int | None] = {}

        #: Counts of S4.3 over direct upstream tasks without a common mapped group, by task …
        self.tally = Tally(graph.wide_up_count)
        #: … and over those with one, for each expanded task that has such, by map index.
        self.kin_tallies: dict[int, Tally] = {}
        #: What was last found for all task instances of an expanded task at once.
        self.verdicts: dict[int, Verdict] = {}
        #: Task instances of tasks that were not chosen, by id: task id and state (S13.7).
        self.bystanders: dict[int, tuple[str, str]] = {}

    # -- slots ----------------------------------------------------------------------------------------------------------

    def task_of(self, slot: int) -> int:
        """Return the task that a slot belongs to."""
        size = len(self.graph.tasks)
        return slot if slot < size else self.owners[slot - size]

    def slots_of(self, task: int) -> Sequence[int]:
        """Return the slots of a task in the order of map indexes."""
        return self.expanded.get(task) or (task,)

    def relevant(self, task: int, index: int, other: int) -> Sequence[int]:
        """Return the slots of `other` that are relevant to `task` at map index `index` (S4.5)."""
        theirs = self.expanded.get(other)
        if theirs is None:
            return (other,)
        kinship = self.graph.kin.get((task, other))
        if kinship is None or index == UNMAPPED:
            return theirs
        return kin_slots(index, kinship, len(self.slots_of(task)), theirs, len(self.slots_of(kinship.gauge)))

    def states_of(self, task: int) -> Iterator[int]:
        """Yield the codes of a task's instances, without `removed` ones."""
        return (code for code in map(self.state.__getitem__, self.slots_of(task)) if code != REMOVED)

    def is_over(self, task: int) -> bool:
        """Return whether no instance of a task is unfinished."""
        unfinished = self.open.get(task)
        return self.state[task] >= SUCCESS if unfinished is None else not unfinished

    def add_slot(self, task: int, index: int) -> None:
        """Add a slot for a further map index of an expanded task; it counts as `removed` until a row is there."""
        self.state.append(REMOVED)
        self.ids.append(NO_ROW)
        self.indexes.append(index)
        self.tries.append(NO_TRIES)
        self.owners.append(task)

    # -- counts ---------------------------------------------------------------------------------------------------------

    def upstream_counts(self, task: int, index: int) -> Counts:
        """Return n, left, k, f and x over the relevant direct upstream instances of `task` at `index` (S4.3)."""
        wide = self.tally.at(task)
        if not self.graph.has_kin[task]:
            return wide
        kin = self.kin_tallies[task].at(index) if index != UNMAPPED else self._count_kin(task)
        return (wide[0] + kin[0], wide[1] + kin[1], wide[2] + kin[2], wide[3] + kin[3], wide[4] + kin[4])

    def recount_kin(self, task: int) -> None:
        """Count anew what an expanded task's upstream tasks in common mapped groups have."""
        slots = self.expanded.get(task)
        if slots is None or not self.graph.has_kin[task]:
            return
        tally = self.kin_tallies[task] = Tally([0] * len(slots))
        for other in self.graph.kin_up[task]:
            for index in range(len(slots)):
                for slot in self.relevant(task, index, other):
                    tally.add(index, SHARES[self.state[slot]])

    def _count_kin(self, task: int) -> Counts:
        """Count what kin an unexpanded task has: all of them, as it has no index yet."""
        tally = Tally([0])
        for other in self.graph.kin_up[task]:
            for slot in self.slots_of(other):
                tally.add(0, SHARES[self.state[slot]])
        return tally.at(0)

    # -- rows -----------------------------------------------------------------------------------------------------------

    def row(self, slot: int) -> TaskInstanceFacts:
        """Return what is known of the row in a slot."""
        attempt_id, next_attempt_at, infrastructure_failures, skips = self.details.get(slot, NO_DETAILS)
        try_number, max_tries, try_open = self.tries[slot]
        return TaskInstanceFacts(  # by place: this is read for every task instance that leaves
            self.ids[slot],
            self.facts.id,
            self.graph.tasks[self.task_of(slot)].task_id,
            self.indexes[slot],
            WORDS[self.state[slot]],
            try_number,
            max_tries,
            try_open,
            attempt_id,
            next_attempt_at,
            infrastructure_failures,
            skips,
        )

    def rows(self) -> list[TaskInstanceFacts]:
        """Return all rows of chosen tasks, by task and map index."""
        slots = (slot for task in range(len(self.graph.tasks)) for slot in self.slots_of(task))
        return [self.row(slot) for slot in slots if self.ids[slot]]

    def close_try(self, slot: int, *, counts: bool) -> None:
        """Note the end of a task instance without an attempt; it `counts` as a try if it succeeded (S6.1)."""
        try_number, max_tries, try_open = self.tries[slot]
        self.tries[slot] = (try_number + (counts and not try_open), max_tries, False)

    def skips(self, slot: int) -> tuple[str, ...]:
        """Return the task ids that a task instance decided to skip."""
        return self.details.get(slot, NO_DETAILS)[3] or ()
