"""What the engine would do with the runs of a job if every task that runs succeeded: `plan` rests on it, and nothing is written.

The rules are the engine's own. One run after the other goes through a window without limits; of the runs before only the last is
kept, which is all that `depends_on_past` looks at.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from itertools import count
from typing import NamedTuple

from backfill.engine.graph import Graph
from backfill.engine.limits import UNLIMITED_POOL, Occupancy
from backfill.engine.window import Window
from backfill.facts import PreviousRun, RunFacts, TaskInstanceFacts
from backfill.keys import UNMAPPED
from backfill.states import (
    ENDED_BADLY,
    ENDED_WELL,
    FINISHED,
    UNFINISHED,
    DagRunState,
    RunType,
    TaskInstanceState,
)
from backfill.store import mapping
from backfill.store.alignment import TaskTemplate
from backfill.store.database import Tx
from backfill.store.dates import PlannedDate


class Lot(StrEnum):
    """What becomes of a task instance."""

    RUN = "run"
    #: It has ended, and is left as it is.
    DONE = "done"
    #: It has ended, and is cleared first.
    RERUN = "rerun"
    LEFT_OUT = "left_out"
    BLOCKED = "blocked"


class PlannedTask(NamedTuple):
    """One task instance of a plan."""

    dag_id: str
    task_id: str
    logical_date: datetime
    #: -1 also where the number of indexes is known only in the run.
    map_index: int
    lot: Lot
    #: Its state now; None: there is no such task instance yet.
    state: str | None
    why: str | None


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """One run as it would go."""

    tasks: tuple[PlannedTask, ...]
    #: How many task instances of each task would go to workers, all that can go together at a time.
    rounds: tuple[Counter[str], ...]
    #: Tasks whose subdags would run.
    subdags: frozenset[str] = frozenset()


class _Row(NamedTuple):
    """A row as it would be when its run is taken, and what becomes of it if nothing holds it."""

    facts: TaskInstanceFacts
    lot: Lot
    state: str | None


class Rehearsal:
    """Lets the runs of a plan pass through the engine, in the order of admission."""

    def __init__(
        self,
        tx: Tx,
        graph: Graph,
        templates: Sequence[TaskTemplate],
        previous: Mapping[datetime, PreviousRun],
        now: datetime,
        again: Collection[int] = (),
    ) -> None:
        """`again` are task instances that are cleared with what ended badly, though they did not (S13.5)."""
        self._tx = tx
        self._graph = _without_limits(graph)
        self._window = Window(self._graph)
        self._templates: dict[str, list[TaskTemplate]] = defaultdict(list)
        for template in templates:
            self._templates[template.task_id].append(template)
        self._previous = previous
        self._now = now
        self._again = frozenset(again)
        self._ids = count(1)
        self._last: RunFacts | None = None
        #: All runs that have nothing yet go alike, where none looks at the one before.
        self._of_a_fresh_run: Rehearsed | None = None
        self._rows: dict[int, _Row] = {}
        #: Ids of indexes that stand for any number of them.
        self._any_number: set[int] = set()
        #: Tasks of the present run whose subdags have begun.
        self._begun: set[str] = set()
        #: Mapped tasks of the present run whose values are not stored, and no task of it is to store them.
        self._lengthless: set[str] = set()

    def run(
        self,
        date: PlannedDate,
        present: Sequence[TaskInstanceFacts],
        *,
        dag_id: str,
        rerun_failed: bool,
        first: bool,
    ) -> Rehearsed:
        """Return how the run of `date` would go, of which the task instances `present` are there."""
        if present or self._graph.past_task_ids:
            return self._rehearse(date, present, dag_id=dag_id, rerun_failed=rerun_failed, first=first)
        if self._of_a_fresh_run is None:
            self._of_a_fresh_run = self._rehearse(date, (), dag_id=dag_id, rerun_failed=rerun_failed, first=first)
        tasks = (task._replace(logical_date=date.logical_date) for task in self._of_a_fresh_run.tasks)
        return replace(self._of_a_fresh_run, tasks=tuple(tasks))

    def _rehearse(
        self,
        date: PlannedDate,
        present: Sequence[TaskInstanceFacts],
        *,
        dag_id: str,
        rerun_failed: bool,
        first: bool,
    ) -> Rehearsed:
        facts = _run_facts(date, dag_id)
        by_task: dict[str, list[TaskInstanceFacts]] = defaultdict(list)
        for there in present:
            by_task[there.task_id].append(there)
        rows = [
            row
            for task_id in self._graph.task_ids
            for row in self._align(facts, task_id, by_task[task_id], date, rerun_failed)
        ]
        self._rows = {row.facts.id: row for row in rows}
        self._any_number.clear()
        self._lengthless.clear()
        before, waits_for = self._before(facts)
        self._window.admit(facts, [row.facts for row in rows], first=first, previous=before)
        self._begun.clear()
        rounds = tuple(self._rounds(facts))
        blocked = {found.ti_id: str(found) for found in self._window.blocked()}
        tasks = tuple(self._planned(facts, row, blocked, waits_for) for row in self._window.rows(facts.id))
        if self._last is not None:
            self._window.remove(self._last.id)
        self._last = facts
        return Rehearsed(tasks, rounds, frozenset(self._begun))

    # -- the rows of a run ----------------------------------------------------------------------------------------------

    def _align(
        self,
        run: RunFacts,
        task_id: str,
        present: Iterable[TaskInstanceFacts],
        date: PlannedDate,
        rerun_failed: bool,
    ) -> list[_Row]:
        """Return the rows of a task when its run is taken: cleared as asked for, in line with the DAG (S2.9, S2.12)."""
        live = {row.map_index: row for row in present if row.state != TaskInstanceState.REMOVED}
        templates = self._templates[task_id]
        expanded = [index for index in sorted(live) if index > UNMAPPED]
        wanted = expanded if expanded and templates[0].dynamic else [template.map_index for template in templates]
        return [self._row(run, task_id, index, live.get(index), date, rerun_failed) for index in wanted]

    def _row(
        self,
        run: RunFacts,
        task_id: str,
        index: int,
        there: TaskInstanceFacts | None,
        date: PlannedDate,
        rerun_failed: bool,
    ) -> _Row:
        fresh = _fresh_row(next(self._ids), run.id, task_id, index)
        if there is None or there.state in UNFINISHED:
            return _Row(fresh, Lot.RUN, there.state if there else None)
        if date.action == "clear" or (rerun_failed and (there.state in ENDED_BADLY or there.id in self._again)):
            return _Row(fresh, Lot.RERUN, there.state)
        return _Row(there._replace(id=fresh.id, dag_run_id=run.id), Lot.DONE, there.state)

    def _before(self, run: RunFacts) -> tuple[PreviousRun | None, str | None]:
        """Return P of S4.9 when the run's turn comes, and what to say of it where another job is to bring it about."""
        if not self._graph.past_task_ids:
            return None, None
        found, last = self._previous.get(run.logical_date), self._last
        if last is not None and (found is None or found.logical_date <= last.logical_date):
            seen = frozenset(self._graph.past_task_ids)
            return PreviousRun(last.logical_date, last.id, True, {}, seen), None
        if found is None or not found.driven:
            return found, None
        # other jobs, too, are taken to end well
        well: dict[str, tuple[str, ...]] = {
            task_id: (str(TaskInstanceState.SUCCESS),) for task_id in self._graph.past_task_ids
        }
        return found._replace(dag_run_id=found.dag_run_id or -run.id, states=well), (
            f"once another job has finished {found.logical_date.isoformat()}"
        )

    # -- the engine goes on until nothing can -----------------------------------------------------------------------------

    def _rounds(self, run: RunFacts) -> Iterable[Counter[str]]:
        pools = dict.fromkeys(self._graph.pools, UNLIMITED_POOL)
        while True:
            decisions = self._window.decide(self._now)
            for _, task_id in decisions.expand:
                self._expand(run, task_id)
            picked = self._window.pick(Occupancy(pool_sizes=pools), None)
            subdags = [self._window.facts(ti_id) for ti_id in self._window.startable()]
            if not picked and not subdags and not decisions.expand:
                return
            rows = [self._window.facts(ti_id) for ti_id in picked]
            self._window.take_in([row._replace(state=TaskInstanceState.SUCCESS) for row in (*rows, *subdags)])
            self._begun.update(row.task_id for row in subdags)
            if rows:
                yield Counter(row.task_id for row in rows)

    def _expand(self, run: RunFacts, task_id: str) -> None:
        """Give a mapped task its indexes: as many as what is stored says, or one that stands for any number (S4.7)."""
        known = [row for row in self._window.rows(run.id) if row.task_id == task_id]
        sources = self._graph.mapping_sources(task_id)
        to_come = any(self._runs_anew(source) for source in sources)
        if to_come and not self._graph.options.mark_success:
            length: int | None = len(known)
            self._any_number.update(row.id for row in known if row.map_index == UNMAPPED)
        else:
            stored = mapping.return_values_lengths(self._tx, run.id, sorted(sources))
            length = self._graph.mapping_length(task_id, stored)
        if length is None:
            self._lengthless.add(task_id)
        elif length > 0:
            self._window.take_in(self._indexed(run, task_id, known, length))
        self._window.set_length(run.id, task_id, length)

    def _runs_anew(self, task_id: str) -> bool:
        rows = (row for row in self._rows.values() if row.facts.task_id == task_id)
        return any(row.lot in {Lot.RUN, Lot.RERUN} for row in rows)

    def _indexed(
        self, run: RunFacts, task_id: str, known: Sequence[TaskInstanceFacts], length: int
    ) -> list[TaskInstanceFacts]:
        """Return the rows 0 to `length` - 1, of which the row -1 becomes the first."""
        rows = {max(row.map_index, 0): row for row in known}
        indexed = []
        for index in range(length):
            row = rows.get(index) or _fresh_row(next(self._ids), run.id, task_id, index)
            self._rows.setdefault(row.id, _Row(row, Lot.RUN, None))
            indexed.append(row._replace(map_index=index))
        return indexed + [
            row._replace(state=TaskInstanceState.REMOVED) for index, row in rows.items() if index >= length
        ]

    # -- what came of it --------------------------------------------------------------------------------------------------

    def _planned(
        self, run: RunFacts, now: TaskInstanceFacts, blocked: Mapping[int, str], waits_for: str | None
    ) -> PlannedTask:
        row = self._rows[now.id]
        index = UNMAPPED if now.id in self._any_number else now.map_index
        lot, why = self._fate(run, now, row, blocked)
        if why is None and lot in {Lot.RUN, Lot.RERUN}:
            if now.id in self._any_number:
                why = "as many as what it is mapped over has values"
            elif self._graph.spec(now.task_id).past:
                why = waits_for
        return PlannedTask(run.dag_id, now.task_id, run.logical_date, index, lot, row.state, why)

    def _fate(
        self, run: RunFacts, now: TaskInstanceFacts, row: _Row, blocked: Mapping[int, str]
    ) -> tuple[Lot, str | None]:
        if row.lot is Lot.DONE or now.state == TaskInstanceState.SUCCESS:
            return row.lot, None
        if now.state == TaskInstanceState.SKIPPED:
            return Lot.LEFT_OUT, f"would be skipped, {self._because_of(run, now.task_id, ENDED_WELL)}"
        if now.state == TaskInstanceState.UPSTREAM_FAILED and now.task_id in self._lengthless:
            sources = ", ".join(sorted(self._graph.mapping_sources(now.task_id)))
            return Lot.BLOCKED, f"would be upstream_failed, as no values of {sources} are stored to map it over"
        if now.state == TaskInstanceState.UPSTREAM_FAILED:
            return Lot.BLOCKED, f"would be upstream_failed, {self._because_of(run, now.task_id, ENDED_BADLY)}"
        if now.state in FINISHED:
            return Lot.LEFT_OUT, f"would be {now.state}"
        return Lot.BLOCKED, blocked.get(now.id) or self._window.explain(now.id, self._now).text

    def _because_of(self, run: RunFacts, task_id: str, states: frozenset[TaskInstanceState]) -> str:
        """Return the trigger rule of a task, and those of the tasks it looks at that are in one of `states`."""
        spec = self._graph.spec(task_id)
        looked_at = {*spec.upstream, *spec.deciders, *spec.sources, *spec.indirect_setups}
        names = {self._graph.tasks[index].task_id for index in looked_at}
        found = Counter(
            (row.task_id, row.state)
            for row in self._window.rows(run.id)
            if row.task_id in names and row.state in states
        )
        ended = ", ".join(f"{name} {state}" for name, state in sorted(found))
        return f"by trigger rule {spec.rule}" + (f" after {ended}" if ended else "")


def _without_limits(graph: Graph) -> Graph:
    tasks = (replace(spec, max_active_tis_per_dag=None, max_active_tis_per_dagrun=None) for spec in graph.tasks)
    return replace(graph, max_active_tasks=None, tasks=tuple(tasks))


def _run_facts(date: PlannedDate, dag_id: str) -> RunFacts:
    """Return the run as it will be; one that is not there yet gets an id that no run has."""
    return RunFacts(
        id=date.dag_run_id or -1 - date.ordinal,
        dag_id=dag_id,
        run_id="",
        logical_date=date.logical_date,
        data_interval_start=date.data_interval_start,
        data_interval_end=date.data_interval_end,
        state=DagRunState.RUNNING,
        run_type=RunType.BACKFILL,
        conf={},
        start_date=None,
        ordinal=date.ordinal,
    )


def _fresh_row(ti_id: int, dag_run_id: int, task_id: str, map_index: int) -> TaskInstanceFacts:
    return TaskInstanceFacts(
        id=ti_id,
        dag_run_id=dag_run_id,
        task_id=task_id,
        map_index=map_index,
        state=TaskInstanceState.NONE,
        try_number=0,
        max_tries=0,
        try_open=False,
        attempt_id=None,
        next_attempt_at=None,
        infrastructure_failures=0,
        skips=None,
    )
