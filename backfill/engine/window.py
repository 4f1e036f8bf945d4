"""The window: the runs of a job that are under way, and what their task instances do next.

It is pure: facts go in, decisions come out, the same for the same facts. It knows no database and no clock. The caller

- admits runs, and takes in rows whenever they may have changed (`admit`, `take_in`),
- writes what the dependencies decide (`decide`), looks up lengths of mappings (`set_length`),
- dispatches what is ready and has a place (`pick`), and tells the outcome by taking in the rows,
- finishes runs (`finished_runs`, `stuck_runs`) and lets them go (`remove`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from backfill.engine.blocked import Blockage, Blocked, BlockReason
from backfill.engine.board import Board
from backfill.engine.codes import (
    FAILED,
    QUEUED,
    RUNNING,
    SKIPPED,
    SUCCESS,
    UPSTREAM_FAILED,
)
from backfill.engine.decider import Decider, Decisions
from backfill.engine.graph import Graph
from backfill.engine.intake import Intake
from backfill.engine.judge import Judge
from backfill.engine.limits import PLENTY, Occupancy
from backfill.engine.options import Options
from backfill.engine.outcome import RunOutcome, outcome
from backfill.engine.past import look_back
from backfill.engine.ready import Turn
from backfill.engine.reasons import Reason, explain
from backfill.engine.run import SLOT_BITS, SLOT_MASK, RunState
from backfill.engine.verdicts import Verdict
from backfill.engine.waiting import AwaitedPool, AwaitedSubdag, AwaitedTask
from backfill.facts import PreviousRun, RunFacts, TaskInstanceFacts
from backfill.keys import TaskInstanceKey
from backfill.states import TaskInstanceState

__all__ = [
    "AwaitedPool",
    "AwaitedSubdag",
    "AwaitedTask",
    "BlockReason",
    "Blocked",
    "Counts",
    "Decisions",
    "Options",
    "Reason",
    "RunOutcome",
    "Window",
]


@dataclass(frozen=True, slots=True)
class Counts:
    """The task instances of the window by state (S9.5). `removed` ones are not counted."""

    #: Unfinished and not in flight.
    waiting: int
    #: In flight.
    running: int
    succeeded: int
    #: `failed` and `upstream_failed`; the latter also by themselves.
    failed: int
    upstream_failed: int
    skipped: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.waiting + self.running + self.succeeded + self.failed + self.skipped


class Window:
    """The runs under way of one job and DAG."""

    def __init__(self, graph: Graph, options: Options | None = None) -> None:
        if options is not None and options != graph.options:
            raise ValueError("the graph was compiled with other options than the window's")
        self._graph = graph
        self._board = Board(graph)
        self._judge = Judge(graph)
        self._intake = Intake(self._board)
        self._decider = Decider(self._board, self._judge)
        self._blockage = Blockage(self._board, self._judge)

    @property
    def graph(self) -> Graph:
        """The compiled DAG."""
        return self._graph

    # -- facts go in ----------------------------------------------------------------------------------------------------

    def admit(
        self, run: RunFacts, rows: Iterable[TaskInstanceFacts], *, first: bool, previous: PreviousRun | None
    ) -> None:
        """Let a run in, with all its rows as they are.

        `first`: it is the first of the range (S4.10). `previous` is P of S4.9; if its run is in the window too, it is
        followed as it goes, and remembered when it leaves. Raises `ValueError` if the run, or its ordinal, is in already.
        """
        self._intake.admit(run, rows, is_first=first, previous=previous)

    def take_in(self, rows: Iterable[TaskInstanceFacts]) -> list[TaskInstanceFacts]:
        """Take in rows as they are in the database now, whatever changed them; return those that were known otherwise.

        Rows of runs that are not in the window, and of tasks that are not in the DAG, have no effect.
        """
        return self._intake.take_in(rows)

    def set_length(self, dag_run_id: int, task_id: str, length: int | None) -> None:
        """Answer `Decisions.expand`: the mapped task has `length` indexes, whose rows were taken in before.

        None: the values that it is mapped over are not stored. Then the row -1 becomes `upstream_failed`, or `success` under
        `mark_success`; expanded rows stay. The answer holds until a source changes. If the row -1 has ended meanwhile, and so has no
        indexes, it is asked for again should that be cleared.
        """
        run, task = self._board.by_id[dag_run_id], self._graph.index[task_id]
        if length and task not in run.expanded and run.is_over(task):
            run.asked.discard(task)
            run.lengths.pop(task, None)
            return
        run.asked.add(task)
        run.lengths[task] = length
        self._board.judge_tasks(run, [task])

    def awaits_rows(self, dag_run_id: int, task_id: str) -> bool:
        """Return whether `Decisions.expand` asked for the rows of a mapped task, and no source has changed since (S4.7)."""
        run = self._board.by_id.get(dag_run_id)
        return run is not None and self._graph.index[task_id] in run.asked

    def update_previous(self, dag_run_id: int, previous: PreviousRun | None) -> None:
        """Replace what is known of the run before a run, after a look into the database."""
        self._board.tell_previous(self._board.by_id[dag_run_id], previous)

    def awaiting_previous(self) -> list[int]:
        """Return the ids of the runs that wait for a run before them which another active job drives (S4.9).

        The window learns of its progress only by `update_previous`.
        """
        return self._held_by_outside_run({Verdict.WAIT})

    def held_by_previous(self) -> list[int]:
        """Return the ids of the runs that a run outside of the window holds back, also where only an operator can help."""
        return self._held_by_outside_run({Verdict.WAIT, Verdict.HELD})

    # -- decisions come out ---------------------------------------------------------------------------------------------

    def decide(self, now: datetime) -> Decisions:
        """Judge what has changed, until nothing changes any more (S4.1, S4.2); what is settled is so in the window already.

        If a write of the caller did not take effect, because the row had changed, `take_in` of that row corrects it.
        """
        return self._decider.decide(now)

    def pick(self, occupancy: Occupancy, limit: int | None = None, *, at_once: int = PLENTY) -> list[int]:
        """Return the ids of the task instances to dispatch now, in the order of S5.5, never above a limit of S5.

        `limit` is `core.parallelism`: so many of this window may be in flight, None for no limit. No more than `at_once` are
        picked, whatever the limits allow. What the picked ones take is counted in `occupancy`. They stay ready until `take_in` says that their rows are not idle any more.
        """
        self._blockage.see_pools(occupancy.pool_sizes)
        most = PLENTY if limit is None else max(0, limit - self._board.places_taken)
        return self._ids(self._board.ready.pick(occupancy, min(most, at_once)))

    def ready_unplaced(self, picked: Iterable[int] = ()) -> list[int]:
        """Return the ready task instances, but for those just `picked`, whose row does not say `scheduled` yet (S3.2)."""
        chosen = set(picked)
        return [ti_id for ti_id in self._ids(self._board.ready.unplaced()) if ti_id not in chosen]

    def ready_count(self) -> int:
        """Return how many task instances are ready and have no place in flight yet."""
        return len(self._board.ready)

    def startable(self) -> list[int]:
        """Return the ids of the `SubDagOperator` task instances whose dependencies are met: the caller starts them (S13.2)."""
        return self._ids(self._board.startable)

    def next_due(self) -> datetime | None:
        """Return the next retry or reschedule date that a task instance waits for."""
        return self._board.due.soonest()

    def fail_stop(self, ti_id: int) -> list[tuple[int, TaskInstanceState]]:
        """Return what becomes of the other task instances of a run after `ti_id` failed under `fail_stop` (S6.8).

        Nothing is changed: the caller writes it and takes in the rows.
        """
        run, slot = self._board.find(ti_id)
        spared = {spec.index for spec in self._graph.tasks if spec.is_teardown} | {run.task_of(slot)}
        return [
            (run.ids[other], TaskInstanceState.FAILED if code == RUNNING else TaskInstanceState.SKIPPED)
            for other, code in enumerate(run.state)
            if (code < SUCCESS or code == UPSTREAM_FAILED) and run.task_of(other) not in spared
        ]

    # -- a turn at a time, where several windows share limits ----------------------------------------------------------

    def begin_turns(self, pool_sizes: Mapping[str, int]) -> None:
        """Get ready for `next_turn`, as `pick` does."""
        self._blockage.see_pools(pool_sizes)
        self._board.ready.put_back()

    def next_turn(self, occupancy: Occupancy) -> Turn | None:
        """Return the turn of the task instance of this window that goes first now; None: none has room."""
        return self._board.ready.next_turn(occupancy)

    def take_turn(self, turn: Turn, occupancy: Occupancy) -> int:
        """Count what `turn` takes in `occupancy`, and return the id of its task instance."""
        return self._ids([self._board.ready.take_turn(turn, occupancy)])[0]

    # -- runs finish ----------------------------------------------------------------------------------------------------

    def finished_runs(self) -> list[RunOutcome]:
        """Return how the runs ended that have nothing unfinished (S2.14), until they are removed."""
        return [outcome(self._board.runs[ordinal]) for ordinal in sorted(self._board.finished)]

    def stuck_runs(self) -> list[int]:
        """Return the ids of the runs that have only blocked work left (S9.3), by run date."""
        return self._blockage.stuck_runs()

    def remove(self, dag_run_id: int) -> None:
        """Let a run leave the window; a run that looks back at it remembers how it stood."""
        self._board.leave(self._board.by_id[dag_run_id])

    # -- questions ------------------------------------------------------------------------------------------------------

    def idle(self) -> bool:
        """Return whether nothing in the window can go any more by itself: nothing in flight, due, undecided, or ready for a
        pool that could ever take it. What the subdag of a running `SubDagOperator` does is seen in the window of that.
        """  # noqa: D205  # one sentence
        board = self._board
        if board.places_taken or board.startable or len(board.due) or board.tasks_to_judge or board.slots_to_judge:
            return False
        if any(run.asked - run.lengths.keys() for run in board.runs.values()):
            return False
        return not len(board.ready) or all(self._blockage.never_goes(spec) for spec in board.ready.tasks())

    def blocked(self) -> list[Blocked]:
        """Return what can never run, and why (S9.3), by run date, topology and map index."""
        return self._blockage.blocked()

    def note_stuck_subdags(self, ti_ids: Iterable[int]) -> None:
        """Note which running `SubDagOperator` task instances are blocked, as all that their subdags have left is (S9.3)."""
        stuck = frozenset(self._board.places[ti_id] for ti_id in ti_ids)
        if stuck != self._board.stuck_subdags:
            self._board.stuck_subdags = stuck
            self._board.version += 1

    @property
    def places_taken(self) -> int:
        """Number of task instances in flight, without those that stand for subdags, which take no place (S5.4)."""
        return self._board.places_taken

    def counts(self) -> Counts:
        """Return the numbers of S9.5 of the window, in constant time."""
        totals = self._board.totals
        return Counts(
            waiting=sum(totals[:QUEUED]),
            running=totals[QUEUED] + totals[RUNNING],
            succeeded=totals[SUCCESS],
            failed=totals[FAILED] + totals[UPSTREAM_FAILED],
            upstream_failed=totals[UPSTREAM_FAILED],
            skipped=totals[SKIPPED],
        )

    def knows(self, ti_id: int) -> bool:
        """Return whether a task instance is in the window."""
        return ti_id in self._board.places

    def facts(self, ti_id: int) -> TaskInstanceFacts:
        """Return what is known of a task instance; the attempt id of a finished one is not kept. `KeyError` if it is unknown."""
        run, slot = self._board.find(ti_id)
        return run.row(slot)

    def key(self, ti_id: int) -> TaskInstanceKey:
        """Return the key of a task instance; `KeyError` if it is not in the window."""
        place = self._board.places[ti_id]
        run, slot = self._board.runs[place >> SLOT_BITS], place & SLOT_MASK
        key = run.keys.get(slot)
        if key is None:
            task_id = self._graph.tasks[run.task_of(slot)].task_id
            key = run.keys[slot] = TaskInstanceKey(run.facts.dag_id, task_id, run.facts.run_id, run.indexes[slot])
        return key

    def task_id(self, ti_id: int) -> str:
        """Return the task of a task instance; `KeyError` if it is not in the window."""
        run, slot = self._board.find(ti_id)
        return self._graph.tasks[run.task_of(slot)].task_id

    def run(self, dag_run_id: int) -> RunFacts:
        """Return a run as it was admitted; `KeyError` if it is not in the window."""
        return self._board.by_id[dag_run_id].facts

    def runs(self) -> list[RunFacts]:
        """Return the runs in the window, as they were admitted."""
        return [run.facts for run in self._board.by_id.values()]

    def run_at(self, ordinal: int) -> RunFacts | None:
        """Return the run of that ordinal; None if it is not in the window."""
        run = self._board.runs.get(ordinal)
        return None if run is None else run.facts

    def row_at(self, ordinal: int, task_id: str) -> TaskInstanceFacts | None:
        """Return the row of an unmapped task in the run of that ordinal; None if that run is not in the window."""
        run = self._board.runs.get(ordinal)
        return None if run is None else run.row(self._graph.index[task_id])

    def run_ids(self) -> list[int]:
        """Return the ids of the runs in the window."""
        return list(self._board.by_id)

    def size_of(self, dag_run_id: int) -> int:
        """Return how many task instances a run has; 0 for one that is not in the window."""
        run = self._board.by_id.get(dag_run_id)
        return 0 if run is None else len(run.ids)

    def rows(self, dag_run_id: int) -> list[TaskInstanceFacts]:
        """Return the rows of the chosen tasks of a run, by topology and map index."""
        return self._board.by_id[dag_run_id].rows()

    def explain(
        self,
        ti_id: int,
        now: datetime,
        occupancy: Occupancy | None = None,
        limit: int | None = None,
        *,
        ranked: bool = True,
    ) -> Reason:
        """Return the first thing that holds a task instance (S11.6): a line of S4.1, a limit of S5, or its turn.

        Limits are looked at only with `occupancy`; `limit` is `core.parallelism`. Without `ranked` its turn is not worked out,
        which takes time in proportion to the number of ready ones.
        """
        return explain(self._board, self._judge, ti_id, now, occupancy, limit, ranked=ranked)

    # -------------------------------------------------------------------------------------------------------------------

    def _ids(self, places: Iterable[int]) -> list[int]:
        found = map(self._board.at, places)
        return [run.ids[slot] for run, slot in (pair for pair in found if pair is not None)]

    def _held_by_outside_run(self, verdicts: set[Verdict]) -> list[int]:
        outside = (run for run in self._board.runs.values() if run.previous is not None and run.earlier is None)
        return [run.facts.id for run in outside if any(v in verdicts for v in self._unfinished_looks_back(run))]

    def _unfinished_looks_back(self, run: RunState) -> Iterator[Verdict]:
        for task in self._graph.looking_back:
            if not run.is_over(task):
                yield look_back(run, self._graph.tasks[task]).verdict
