"""A window over rows in a dict, in which task instances are addressed by name: `a`, `a[2]`, `1:a` in the run of ordinal 1."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from backfill.dag import DAG
from backfill.engine.graph import Graph
from backfill.engine.limits import Occupancy
from backfill.engine.window import Decisions, Options, Window
from backfill.facts import PreviousRun, RunFacts, TaskInstanceFacts
from backfill.operators import BranchPythonOperator, EmptyOperator, PythonOperator, ShortCircuitOperator

DAY_0 = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2025, 1, 1, tzinfo=UTC)
ATTEMPT = "0b3e4a3a-2222-4444-8888-abcdefabcdef"


def nothing(*_: Any, **__: Any) -> None:
    return None


def dag(**arguments: Any) -> DAG:
    """Return an empty DAG `d`, to be used in a `with`."""
    return DAG("d", schedule=None, start_date=datetime(2020, 1, 1, tzinfo=UTC), **arguments)


def python(task_id: str, **arguments: Any) -> PythonOperator:
    return PythonOperator(task_id=task_id, python_callable=nothing, **arguments)


def empty(task_id: str, **arguments: Any) -> EmptyOperator:
    return EmptyOperator(task_id=task_id, **arguments)


def branch(task_id: str, **arguments: Any) -> BranchPythonOperator:
    return BranchPythonOperator(task_id=task_id, python_callable=nothing, **arguments)


def short_circuit(task_id: str, **arguments: Any) -> ShortCircuitOperator:
    return ShortCircuitOperator(task_id=task_id, python_callable=nothing, **arguments)


def mapped(task_id: str, over: Any, **arguments: Any) -> Any:
    """Return a task mapped over a list, or over what another task returns."""
    return PythonOperator.partial(task_id=task_id, python_callable=nothing, **arguments).expand(
        op_args=over.output if isinstance(over, PythonOperator) else over
    )


def run_facts(ordinal: int) -> RunFacts:
    date = DAY_0 + timedelta(days=ordinal)
    return RunFacts(100 + ordinal, "d", f"run {ordinal}", date, date, date, "running", "backfill", {}, date, ordinal)


class Bench:
    """A window with `runs` runs, each looking back at the one before, and the rows behind it."""

    def __init__(
        self,
        dag: DAG,
        *,
        runs: int = 1,
        options: Options | None = None,
        chosen: Iterable[str] | None = None,
        states: Mapping[str, str] | None = None,
    ) -> None:
        self.graph = Graph.compile(dag, None if chosen is None else frozenset(chosen), options=options)
        self.window = Window(self.graph)
        self.rows: dict[str, TaskInstanceFacts] = {}
        self.now = NOW
        self._ids = itertools.count(1)
        for ordinal in range(runs):
            self.admit(ordinal, states=states or {})

    def admit(
        self,
        ordinal: int,
        *,
        states: Mapping[str, str] | None = None,
        first: bool = False,
        previous: PreviousRun | None = None,
        more: Iterable[tuple[str, int]] = (),
    ) -> None:
        """Let a run in; `states` are those that differ from `none`, `more` are rows beside those of the graph."""
        rows = [(task_id, index) for task_id in self.graph.task_ids for index in self.graph.literal_indexes(task_id)]
        for task_id, index in [*rows, *more]:
            self.make_row(ordinal, task_id, index)
        for name, state in (states or {}).items():
            if self.ordinal_of(name) == ordinal:
                self.rows[name] = self.rows[name]._replace(state=state)
        if previous is None and ordinal:
            previous = self.previous(ordinal)
        mine = [row for name, row in self.rows.items() if self.ordinal_of(name) == ordinal]
        self.window.admit(run_facts(ordinal), mine, first=first, previous=previous)

    def previous(self, ordinal: int, *, driven: bool = True) -> PreviousRun:
        states: dict[str, list[str]] = {}
        for name, row in self.rows.items():
            if self.ordinal_of(name) == ordinal - 1 and row.task_id in self.graph.past_task_ids:
                states.setdefault(row.task_id, []).append(row.state)
        seen = frozenset(row.task_id for name, row in self.rows.items() if self.ordinal_of(name) < ordinal)
        earlier = run_facts(ordinal - 1)
        return PreviousRun(earlier.logical_date, earlier.id, driven, {t: tuple(s) for t, s in states.items()}, seen)

    def make_row(self, ordinal: int, task_id: str, index: int = -1, **values: Any) -> TaskInstanceFacts:
        row = TaskInstanceFacts(
            next(self._ids), 100 + ordinal, task_id, index, "none", 0, 0, False, None, None, 0, None
        )._replace(**values)
        self.rows[self.name_of(row)] = row
        return row

    # -- changes

    def set(self, name: str, state: str, **values: Any) -> list[TaskInstanceFacts]:
        """Give a row another state and let the window know; return what it says has changed."""
        row = self.rows[name]._replace(state=state, **values)
        self.rows[name] = row
        return self.window.take_in([row])

    def set_all(self, states: Mapping[str, str]) -> None:
        """The same for several rows in one go."""
        for name, state in states.items():
            self.rows[name] = self.rows[name]._replace(state=state)
        self.window.take_in([self.rows[name] for name in states])

    def expand(self, name: str, length: int | None) -> None:
        """Answer a request to expand: give the row -1 index 0, make the others, and say the length."""
        base = self.rows.get(name)
        ordinal, task_id = self.ordinal_of(name), name.rsplit(":", maxsplit=1)[-1]
        if base is not None and length:
            del self.rows[name]
            self.rows[f"{name}[0]"] = base._replace(map_index=0)
        for index in range(length or 0):
            if f"{name}[{index}]" not in self.rows:
                self.make_row(ordinal, task_id, index)
        for other, row in self.rows.items():
            if length is not None and other.startswith(f"{name}[") and row.map_index >= length:
                self.rows[other] = row._replace(state="removed")
        self.window.take_in([row for other, row in self.rows.items() if other.startswith(f"{name}[")])
        self.window.set_length(100 + ordinal, task_id, length)

    def decide(self) -> dict[str, str]:
        """Let the window decide; return what it settled, and keep the rows in line."""
        decisions = self.decisions()
        return {self.name(ti_id): str(state) for ti_id, state in decisions.settle}

    def decisions(self) -> Decisions:
        decisions = self.window.decide(self.now)
        for ti_id, _ in decisions.settle:
            self.rows[self.name(ti_id)] = self.window.facts(ti_id)
        for ti_id in decisions.unschedule:
            self.rows[self.name(ti_id)] = self.window.facts(ti_id)
        return decisions

    def pick(self, limit: int | None = None, *, pools: Mapping[str, int] | None = None, **_: Any) -> list[str]:
        """Return by name what may go now, given what is in flight."""
        return [self.name(ti_id) for ti_id in self.window.pick(self.occupancy(pools), limit)]

    def occupancy(self, pools: Mapping[str, int] | None = None) -> Occupancy:
        occupancy = Occupancy(pool_sizes={"default_pool": -1} if pools is None else pools)
        for row in self.rows.values():
            if row.state in {"queued", "running"}:
                spec = self.graph.spec(row.task_id)
                occupancy.by_pool[spec.pool] += spec.pool_slots
                occupancy.by_dag["d"] += 1
                occupancy.by_task["d", row.task_id] += 1
                occupancy.by_run[row.dag_run_id, row.task_id] += 1
        return occupancy

    def ready(self) -> list[str]:
        """Decide what there is to decide, and return by name what is ready then, in the order of dispatch."""
        self.decide()
        return self.pick()

    def startable(self) -> list[str]:
        """Decide what there is to decide, and return by name the subdags that are to be started then."""
        self.decide()
        return self.names(self.window.startable())

    # -- names

    def id(self, name: str) -> int:
        return self.rows[name].id

    def name(self, ti_id: int) -> str:
        return next(name for name, row in self.rows.items() if row.id == ti_id)

    def names(self, ti_ids: Iterable[int]) -> list[str]:
        return [self.name(ti_id) for ti_id in ti_ids]

    def state(self, name: str) -> str:
        """Return the state of a task instance as the window has it."""
        return str(self.window.facts(self.id(name)).state)

    def blocked(self) -> dict[str, str]:
        return {self.name(each.ti_id): str(each.reason) for each in self.window.blocked()}

    @staticmethod
    def ordinal_of(name: str) -> int:
        return int(name.split(":", maxsplit=1)[0]) if ":" in name else 0

    @staticmethod
    def name_of(row: TaskInstanceFacts) -> str:
        ordinal = row.dag_run_id - 100
        index = f"[{row.map_index}]" if row.map_index >= 0 else ""
        return f"{ordinal}:{row.task_id}{index}" if ordinal else f"{row.task_id}{index}"
