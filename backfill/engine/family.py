"""The windows of a job whose DAG has subdags: one for each DAG, seen as one (S13).

A run of a subdag enters its window when its `SubDagOperator` starts, and stays there, also after its end, until the run of the
target leaves: till then a retry may let it go on. It has the ordinal of the run that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from backfill.engine.codes import CODES, SUCCESS
from backfill.engine.graph import Graph
from backfill.engine.limits import PLENTY, Occupancy
from backfill.engine.window import Blocked, Counts, Decisions, Reason, RunOutcome, Window
from backfill.facts import PreviousRun, RunFacts, TaskInstanceFacts
from backfill.keys import TaskInstanceKey
from backfill.states import DagRunState, TaskInstanceState

_ENDED = (DagRunState.SUCCESS, DagRunState.FAILED)


@dataclass(frozen=True, slots=True)
class Branch:
    """A subdag: its compiled form, and the task that stands for it."""

    graph: Graph
    #: `dag_id` of the DAG that the task belongs to; that is the target, or a subdag given before this one.
    parent: str
    task_id: str


class Family:
    """The windows of a target and its subdags; what it has in common with `Window` means the same."""

    def __init__(self, root: Graph, branches: Sequence[Branch]) -> None:
        self._root = root.dag_id
        self._branches = {branch.graph.dag_id: branch for branch in branches}
        self._windows = {graph.dag_id: Window(graph) for graph in (root, *(branch.graph for branch in branches))}
        #: Where the tasks of each DAG stand among those of all: the places of the tasks that stand for it.
        self._paths = {root.dag_id: ()} | {name: self._path(name) for name in self._branches}
        #: By run in the window, its DAG.
        self._dag_of: dict[int, str] = {}
        #: Runs of subdags that have ended and are still here.
        self._ended: set[int] = set()

    def _path(self, dag_id: str) -> tuple[int, ...]:
        branch = self._branches.get(dag_id)
        if branch is None:
            return ()
        return (*self._path(branch.parent), self._graph(branch.parent).index[branch.task_id])

    def _graph(self, dag_id: str) -> Graph:
        return self._windows[dag_id].graph

    def _window_of(self, dag_run_id: int) -> Window:
        return self._windows[self._dag_of[dag_run_id]]

    def _window_with(self, ti_id: int) -> Window:
        for window in self._windows.values():
            if window.knows(ti_id):
                return window
        raise KeyError(ti_id)

    # -- the relations between runs -------------------------------------------------------------------------------------

    def operator_row(self, dag_run_id: int) -> TaskInstanceFacts | None:
        """Return the row of the task that stands for the run of a subdag; None for a run of the target."""
        run = self.run(dag_run_id)
        branch = self._branches.get(run.dag_id)
        return None if branch is None else self._windows[branch.parent].row_at(run.ordinal, branch.task_id)

    def subdag_of(self, ti_id: int) -> str | None:
        """Return the id of the subdag that a task instance stands for; None if it stands for none."""
        row, dag_id = self.facts(ti_id), self.key(ti_id).dag_id
        found = (name for name, each in self._branches.items() if each.parent == dag_id and each.task_id == row.task_id)
        return next(found, None)

    def runs_below(self, dag_run_id: int, subdag: str | None = None) -> list[RunFacts]:
        """Return the runs of subdags, also of subdags of these, that belong to a run, ended ones too.

        With `subdag` only its run and those below.
        """
        top = self.run(dag_run_id)
        names = self.below(top.dag_id) if subdag is None else [subdag, *self.below(subdag)]
        return [run for name in names if (run := self._windows[name].run_at(top.ordinal)) is not None]

    def below(self, dag_id: str) -> list[str]:
        """Return the subdags of a DAG and theirs, each after the one that it belongs to."""
        found: list[str] = []
        for name, branch in self._branches.items():
            if branch.parent == dag_id or branch.parent in found:
                found.append(name)
        return found

    def run_of(self, subdag: str, ordinal: int) -> RunFacts | None:
        """Return the run of a subdag of that ordinal, if it is here and has not ended."""
        run = self._windows[subdag].run_at(ordinal)
        return None if run is None or run.id in self._ended else run

    def open_below(self, dag_run_id: int) -> list[RunFacts]:
        """Return those of `runs_below` that have not ended."""
        return [run for run in self.runs_below(dag_run_id) if run.id not in self._ended]

    def abandoned(self) -> list[RunFacts]:
        """Return the runs of subdags that go on although the task instance that stands for them has ended otherwise."""
        return [run for name in self._branches for run in self.open_runs(name) if self._is_abandoned(run)]

    def _is_abandoned(self, run: RunFacts) -> bool:
        row = self.operator_row(run.id)
        return row is None or CODES[row.state] >= SUCCESS

    def open_runs(self, dag_id: str) -> list[RunFacts]:
        """Return the runs of one DAG that have not ended."""
        return [run for run in self._windows[dag_id].runs() if run.id not in self._ended]

    def note_ends(self, dag_run_ids: Iterable[int]) -> None:
        """Note that runs of subdags have ended; what happens to their rows from now on has no effect."""
        self._ended.update(dag_run_id for dag_run_id in dag_run_ids if self._dag_of.get(dag_run_id) in self._branches)

    def not_begun(self, dag_id: str) -> int:
        """Return how many runs of a subdag are to be expected in the runs under way in which it has none yet."""
        branch = self._branches[dag_id]
        parent = self._windows[branch.parent]
        begun = sum(self._awaits(parent, run, branch) for run in parent.runs())
        return begun + (self.not_begun(branch.parent) if branch.parent in self._branches else 0)

    def _awaits(self, parent: Window, run: RunFacts, branch: Branch) -> bool:
        row = parent.row_at(run.ordinal, branch.task_id)
        return (
            row is not None
            and CODES[row.state] < SUCCESS
            and self._windows[branch.graph.dag_id].run_at(run.ordinal) is None
        )

    # -- facts go in ----------------------------------------------------------------------------------------------------

    def admit(
        self, run: RunFacts, rows: Iterable[TaskInstanceFacts], *, first: bool, previous: PreviousRun | None
    ) -> None:
        """As `Window.admit`; the run of a subdag may come again, as it is now."""
        window = self._windows[run.dag_id]
        if run.id in self._dag_of:
            window.remove(run.id)
        self._dag_of[run.id] = run.dag_id
        self._ended.discard(run.id)
        window.admit(run, rows, first=first, previous=previous)
        if run.state in _ENDED:
            self.note_ends([run.id])

    def take_in(self, rows: Iterable[TaskInstanceFacts]) -> list[TaskInstanceFacts]:
        """As `Window.take_in`; what happens in an ended run of a subdag has no effect."""
        by_dag: dict[str, list[TaskInstanceFacts]] = {}
        for row in rows:
            dag_id = self._dag_of.get(row.dag_run_id)
            if dag_id is not None and row.dag_run_id not in self._ended:
                by_dag.setdefault(dag_id, []).append(row)
        return [row for dag_id, found in by_dag.items() for row in self._windows[dag_id].take_in(found)]

    def set_length(self, dag_run_id: int, task_id: str, length: int | None) -> None:
        """As `Window.set_length`."""
        self._window_of(dag_run_id).set_length(dag_run_id, task_id, length)

    def awaits_rows(self, dag_run_id: int, task_id: str) -> bool:
        """As `Window.awaits_rows`."""
        return dag_run_id in self._dag_of and self._window_of(dag_run_id).awaits_rows(dag_run_id, task_id)

    def update_previous(self, dag_run_id: int, previous: PreviousRun | None) -> None:
        """As `Window.update_previous`."""
        self._window_of(dag_run_id).update_previous(dag_run_id, previous)

    def awaiting_previous(self) -> list[int]:
        """As `Window.awaiting_previous`."""
        return list(chain.from_iterable(window.awaiting_previous() for window in self._windows.values()))

    def held_by_previous(self) -> list[int]:
        """As `Window.held_by_previous`."""
        return list(chain.from_iterable(window.held_by_previous() for window in self._windows.values()))

    def remove(self, dag_run_id: int) -> None:
        """As `Window.remove`."""
        self._window_of(dag_run_id).remove(dag_run_id)
        del self._dag_of[dag_run_id]
        self._ended.discard(dag_run_id)

    # -- decisions come out ---------------------------------------------------------------------------------------------

    def decide(self, now: datetime) -> Decisions:
        """As `Window.decide`."""
        decisions = Decisions()
        for window in self._windows.values():
            each = window.decide(now)
            decisions.settle += each.settle
            decisions.unschedule += each.unschedule
            decisions.expand += each.expand
        return decisions

    def pick(self, occupancy: Occupancy, limit: int | None = None, *, at_once: int = PLENTY) -> list[int]:
        """As `Window.pick`; of tasks of equal weight and date those of a subdag go where the task stands that stands for it."""
        left = min(at_once, PLENTY if limit is None else max(0, limit - self.places_taken))
        for window in self._windows.values():
            window.begin_turns(occupancy.pool_sizes)
        picked: list[int] = []
        while len(picked) < left:
            turns = [
                ((turn.negative_weight, turn.ordinal, (*self._paths[name], turn.task)), turn, window)
                for name, window in self._windows.items()
                if (turn := window.next_turn(occupancy)) is not None
            ]
            if not turns:
                break
            _, turn, window = min(turns, key=lambda candidate: candidate[0])
            picked.append(window.take_turn(turn, occupancy))
        return picked

    def ready_unplaced(self, picked: Iterable[int] = ()) -> list[int]:
        """As `Window.ready_unplaced`."""
        chosen = list(picked)
        return list(chain.from_iterable(window.ready_unplaced(chosen) for window in self._windows.values()))

    def ready_count(self) -> int:
        """As `Window.ready_count`."""
        return sum(window.ready_count() for window in self._windows.values())

    def startable(self) -> list[int]:
        """As `Window.startable`."""
        return list(chain.from_iterable(window.startable() for window in self._windows.values()))

    def next_due(self) -> datetime | None:
        """As `Window.next_due`."""
        return min((due for window in self._windows.values() if (due := window.next_due()) is not None), default=None)

    # -- runs finish ----------------------------------------------------------------------------------------------------

    def finished_runs(self) -> list[RunOutcome]:
        """As `Window.finished_runs`, without those of subdags that are known to have ended."""
        return [
            outcome
            for window in self._windows.values()
            for outcome in window.finished_runs()
            if outcome.dag_run_id not in self._ended
        ]

    def stuck_runs(self) -> list[int]:
        """As `Window.stuck_runs`: stuck runs of the target, each with the runs of subdags that have not ended."""
        for name in reversed(self._branches):
            self._note_stuck(name)
        stuck = self._windows[self._root].stuck_runs()
        return [run_id for top in stuck for run_id in (*(run.id for run in self.open_below(top)), top)]

    def _note_stuck(self, name: str) -> None:
        """Tell the window above a subdag which of the task instances that stand for it are blocked with it."""
        siblings = [each for each, branch in self._branches.items() if branch.parent == self._branches[name].parent]
        rows = [
            self.operator_row(run_id)
            for each in siblings
            for run_id in self._windows[each].stuck_runs()
            if run_id not in self._ended
        ]
        running = [row.id for row in rows if row is not None and row.state == TaskInstanceState.RUNNING]
        self._windows[self._branches[name].parent].note_stuck_subdags(running)

    # -- questions ------------------------------------------------------------------------------------------------------

    def idle(self) -> bool:
        """As `Window.idle`."""
        return not self.abandoned() and all(window.idle() for window in self._windows.values())

    def blocked(self) -> list[Blocked]:
        """As `Window.blocked`."""
        return list(chain.from_iterable(window.blocked() for window in self._windows.values()))

    @property
    def places_taken(self) -> int:
        """As `Window.places_taken`."""
        return sum(window.places_taken for window in self._windows.values())

    def counts(self) -> Counts:
        """As `Window.counts`."""
        all_of_them = [window.counts() for window in self._windows.values()]
        return Counts(
            waiting=sum(each.waiting for each in all_of_them),
            running=sum(each.running for each in all_of_them),
            succeeded=sum(each.succeeded for each in all_of_them),
            failed=sum(each.failed for each in all_of_them),
            upstream_failed=sum(each.upstream_failed for each in all_of_them),
            skipped=sum(each.skipped for each in all_of_them),
        )

    def knows(self, ti_id: int) -> bool:
        """As `Window.knows`."""
        return any(window.knows(ti_id) for window in self._windows.values())

    def facts(self, ti_id: int) -> TaskInstanceFacts:
        """As `Window.facts`."""
        return self._window_with(ti_id).facts(ti_id)

    def key(self, ti_id: int) -> TaskInstanceKey:
        """As `Window.key`."""
        return self._window_with(ti_id).key(ti_id)

    def task_id(self, ti_id: int) -> str:
        """As `Window.task_id`."""
        return self._window_with(ti_id).task_id(ti_id)

    def size_of(self, dag_run_id: int) -> int:
        """As `Window.size_of`."""
        return self._window_of(dag_run_id).size_of(dag_run_id) if dag_run_id in self._dag_of else 0

    def run(self, dag_run_id: int) -> RunFacts:
        """As `Window.run`."""
        return self._window_of(dag_run_id).run(dag_run_id)

    def runs(self) -> list[RunFacts]:
        """As `Window.runs`."""
        return list(chain.from_iterable(window.runs() for window in self._windows.values()))

    def run_ids(self) -> list[int]:
        """As `Window.run_ids`."""
        return list(self._dag_of)

    def rows(self, dag_run_id: int) -> list[TaskInstanceFacts]:
        """As `Window.rows`."""
        return self._window_of(dag_run_id).rows(dag_run_id)

    def explain(
        self,
        ti_id: int,
        now: datetime,
        occupancy: Occupancy | None = None,
        limit: int | None = None,
        *,
        ranked: bool = True,
    ) -> Reason:
        """As `Window.explain`; its place is that among the task instances of its own DAG."""
        return self._window_with(ti_id).explain(ti_id, now, occupancy, limit, ranked=ranked)


#: What the loop works on: one window, or those of a family.
Windows = Window | Family
