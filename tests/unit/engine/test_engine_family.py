"""The windows of a DAG and its subdags, seen as one (S13)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from engine_bench import NOW, dag, python, run_facts

from backfill.dag import DAG
from backfill.engine.family import Branch, Family
from backfill.engine.graph import Graph
from backfill.engine.limits import Occupancy
from backfill.facts import TaskInstanceFacts
from backfill.operators import SubDagOperator


def subdag(parent: DAG, task_id: str, *tasks: str, **arguments: Any) -> DAG:
    child = DAG(f"{parent.dag_id}.{task_id}", schedule=None, start_date=parent.start_date)
    with child:
        for name in tasks:
            python(name, **arguments)
    with parent:
        SubDagOperator(task_id=task_id, subdag=child)
    return child


class Bench:
    """A DAG `d` of the tasks a, s and z in a row, of which s stands for a subdag with the tasks x and t; t stands for another."""

    def __init__(self, *, runs: int = 1, **arguments: Any) -> None:
        self.dags = {"d": dag()}
        with self.dags["d"] as top:
            python("a")
        self.dags["d.s"] = subdag(top, "s", "x", **arguments)
        self.dags["d.s.t"] = subdag(self.dags["d.s"], "t", "deep")
        with top:
            python("z")
        top.task_dict["a"] >> top.task_dict["s"] >> top.task_dict["z"]
        graphs = {name: Graph.compile(each) for name, each in self.dags.items()}
        self.graphs = graphs
        self.family = Family(graphs["d"], [Branch(graphs["d.s"], "d", "s"), Branch(graphs["d.s.t"], "d.s", "t")])
        self.rows: dict[str, TaskInstanceFacts] = {}
        self._ids = itertools.count(1)
        for ordinal in range(runs):
            self.admit("d", ordinal)

    def admit(
        self, dag_id: str, ordinal: int = 0, states: Mapping[str, str] | None = None, state: str = "running"
    ) -> int:
        """Let a run in, or in again, and return its id."""
        run_id = 1000 * (1 + list(self.dags).index(dag_id)) + ordinal
        rows = []
        for task_id in self.graphs[dag_id].task_ids:
            name = f"{dag_id}.{task_id}{ordinal}"
            found = (states or {}).get(task_id, "none")
            ti_id = self.rows[name].id if name in self.rows else next(self._ids)
            row = TaskInstanceFacts(ti_id, run_id, task_id, -1, found, 0, 0, False, None, None, 0, None)
            self.rows[name] = row
            rows.append(row)
        facts = run_facts(ordinal)._replace(id=run_id, dag_id=dag_id, state=state)
        self.family.admit(facts, rows, first=False, previous=None)
        return run_id

    def set(self, name: str, state: str) -> list[TaskInstanceFacts]:
        self.rows[name] = self.rows[name]._replace(state=state)
        return self.family.take_in([self.rows[name]])

    def names(self, ti_ids: list[int]) -> list[str]:
        by_id = {row.id: name for name, row in self.rows.items()}
        return [by_id[ti_id] for ti_id in ti_ids]

    def startable(self) -> list[str]:
        self.family.decide(NOW)
        return self.names(self.family.startable())

    def pick(self, limit: int | None = None, **by_dag: int) -> list[str]:
        self.family.decide(NOW)
        occupancy = Occupancy(pool_sizes={"default_pool": -1})
        occupancy.by_dag.update({name.replace("_", "."): count for name, count in by_dag.items()})
        return self.names(self.family.pick(occupancy, limit))

    def begin(self) -> tuple[int, int]:
        """Let the subdags run."""
        self.set("d.a0", "success")
        self.set("d.s0", "running")
        child = self.admit("d.s")
        self.set("d.s.t0", "running")
        return child, self.admit("d.s.t")


@pytest.fixture
def bench() -> Iterator[Bench]:
    return Bench()


def test_a_subdag_is_startable_when_its_task_is_ready_and_no_more_once_it_runs(bench: Bench) -> None:
    assert bench.startable() == []
    bench.set("d.a0", "success")
    assert bench.startable() == ["d.s0"]
    bench.set("d.a0", "none")
    assert bench.startable() == []
    bench.set("d.a0", "success")
    bench.startable()
    bench.set("d.s0", "running")
    assert bench.startable() == []
    bench.admit("d.s")
    assert bench.startable() == ["d.s.t0"]


def test_each_task_instance_has_the_key_of_its_own_dag(bench: Bench) -> None:
    bench.begin()
    deep = bench.rows["d.s.t.deep0"]
    assert bench.family.key(deep.id).dag_id == "d.s.t"
    assert bench.family.facts(deep.id) == deep
    assert bench.family.subdag_of(bench.rows["d.s0"].id) == "d.s"
    assert bench.family.subdag_of(bench.rows["d.z0"].id) is None
    with pytest.raises(KeyError):
        bench.family.facts(99)


def test_runs_of_subdags_belong_to_the_run_of_their_ordinal() -> None:
    bench = Bench(runs=2)
    child, deepest = bench.begin()
    family = bench.family
    top, other = 1000, 1001
    assert [run.id for run in family.runs_below(top)] == [child, deepest]
    assert [run.id for run in family.runs_below(child)] == [deepest]
    assert family.runs_below(other) == []
    row = family.operator_row(deepest)
    assert row is not None
    assert row.id == bench.rows["d.s.t0"].id
    assert family.operator_row(top) is None


def test_subdags_that_run_take_no_place(bench: Bench) -> None:
    bench.begin()
    assert (bench.family.places_taken, bench.family.counts().running) == (0, 2)
    assert bench.pick(2) == ["d.s.x0", "d.s.t.deep0"]


def test_picked_are_those_of_the_highest_weight_then_date_then_the_place_of_the_task_that_stands_for_a_subdag() -> None:
    bench = Bench(runs=2, priority_weight=1)
    bench.begin()
    # a weighs 3, the others 1
    assert bench.pick() == ["d.a1", "d.s.x0", "d.s.t.deep0"]
    assert bench.pick(2) == ["d.a1", "d.s.x0"]
    assert bench.pick() == ["d.a1", "d.s.x0", "d.s.t.deep0"]  # nothing came of it


def test_each_dag_has_its_own_max_active_tasks(bench: Bench) -> None:
    bench.begin()
    assert bench.pick(d_s=16) == ["d.s.t.deep0"]
    assert bench.pick(d=16) == ["d.s.x0", "d.s.t.deep0"]


def test_an_ended_run_of_a_subdag_stays_and_what_happens_in_it_has_no_effect(bench: Bench) -> None:
    child, deepest = bench.begin()
    bench.set("d.s.t.deep0", "failed")
    assert [(each.dag_run_id, each.state) for each in bench.family.finished_runs()] == [(deepest, "failed")]
    bench.family.note_ends([deepest])
    assert bench.family.finished_runs() == []
    assert bench.set("d.s.t.deep0", "none") == []
    assert bench.pick() == ["d.s.x0"]
    assert [run.id for run in bench.family.open_below(1000)] == [child]
    assert bench.family.counts().failed == 1


def test_an_ended_run_comes_back_as_it_is_then(bench: Bench) -> None:
    _, deepest = bench.begin()
    bench.set("d.s.t.deep0", "failed")
    bench.family.note_ends([deepest])
    bench.admit("d.s.t")
    assert bench.family.counts().failed == 0
    assert "d.s.t.deep0" in bench.pick()


def test_a_run_that_had_ended_before_it_was_seen_stays_ended(bench: Bench) -> None:
    bench.set("d.a0", "success")
    bench.set("d.s0", "up_for_retry")
    bench.admit("d.s", states={"x": "failed"}, state="failed")
    assert bench.family.finished_runs() == []
    assert bench.family.abandoned() == []


@pytest.mark.parametrize(
    ("state", "abandoned"), [("running", False), ("none", False), ("success", True), ("failed", True)]
)
def test_a_run_whose_task_has_ended_otherwise_is_abandoned(bench: Bench, state: str, abandoned: bool) -> None:
    child, _ = bench.begin()
    bench.set("d.s0", state)
    assert [run.id for run in bench.family.abandoned()] == ([child] if abandoned else [])
    assert not bench.family.idle()


def test_a_subdag_that_is_stuck_blocks_its_task_and_what_waits_for_that(bench: Bench) -> None:
    child, deepest = bench.begin()
    bench.set("d.s.x0", "success")
    assert bench.family.stuck_runs() == []
    bench.family.decide(NOW)
    bench.family.pick(Occupancy(pool_sizes={}))
    assert bench.family.idle()
    assert bench.family.stuck_runs() == [child, deepest, 1000]
    blocked = {bench.names([each.ti_id])[0]: str(each.reason) for each in bench.family.blocked()}
    assert blocked == {"d.s0": "subdag", "d.s.t0": "subdag", "d.z0": "upstream", "d.s.t.deep0": "pool"}
    bench.family.pick(Occupancy(pool_sizes={"default_pool": 1}))
    assert bench.family.stuck_runs() == []
    assert bench.family.blocked() == []


def test_runs_of_subdags_that_are_yet_to_begin_are_counted_while_their_task_has_not_ended() -> None:
    bench = Bench(runs=2)
    family = bench.family
    assert (family.not_begun("d.s"), family.not_begun("d.s.t")) == (2, 2)
    bench.begin()
    assert (family.not_begun("d.s"), family.not_begun("d.s.t")) == (1, 1)
    bench.set("d.s1", "skipped")
    assert (family.not_begun("d.s"), family.not_begun("d.s.t")) == (0, 0)


def test_a_run_leaves_with_what_is_known_of_it(bench: Bench) -> None:
    child, deepest = bench.begin()
    for run_id in (child, deepest, 1000):
        bench.family.remove(run_id)
    assert (bench.family.runs(), bench.family.run_ids(), bench.family.counts().total) == ([], [], 0)
    assert bench.set("d.a0", "none") == []
    assert not bench.family.decide(NOW)
    assert bench.family.idle()
