"""Limits and the order of dispatch (S5, S5.2, S5.5)."""

from __future__ import annotations

from typing import Any

import pytest
from engine_bench import ATTEMPT, Bench, dag, empty, mapped, python
from engine_replay import OccupancyRow

from backfill.dag import DAG
from backfill.engine.limits import Limit, Occupancy, full_limits
from backfill.engine.window import Options
from backfill.operators import SubDagOperator


def dispatch(bench: Bench, *names: str) -> None:
    for name in names:
        bench.set(name, "queued", attempt_id=ATTEMPT, try_number=1, try_open=True)


def test_priority_goes_before_date_before_topology_before_index() -> None:
    with dag() as it:
        mapped("m", [[1], [2]])
        python("b")
        python("urgent", priority_weight=5)
    bench = Bench(it, runs=2)
    assert bench.ready() == ["urgent", "1:urgent", "m[0]", "m[1]", "b", "1:m[0]", "1:m[1]", "1:b"]


def test_two_dates_times_several_levels_go_by_level_then_date() -> None:
    with dag() as it:
        python("a") >> [python("b"), python("c")] >> python("d")
    bench = Bench(it, runs=2)
    assert bench.ready() == ["a", "1:a"]
    bench.set_all({"a": "success", "1:a": "success"})
    assert bench.ready() == ["b", "c", "1:b", "1:c"]


def test_picking_changes_nothing_until_the_rows_say_so() -> None:
    with dag() as it:
        python("a")
        python("b")
    bench = Bench(it)
    bench.decide()
    assert bench.pick() == bench.pick() == ["a", "b"]
    dispatch(bench, "a")
    assert bench.pick() == ["b"]
    bench.set("a", "none", attempt_id=None)
    bench.decide()
    assert bench.pick() == bench.pick() == ["a", "b"]


def test_a_place_that_comes_and_goes_is_picked_once() -> None:
    with dag() as it:
        python("up") >> python("a")
    bench = Bench(it, states={"up": "success"})
    for state in ("none", "success") * 3:
        bench.set("up", state)
        bench.decide()
    assert bench.pick() == ["a"]


def test_what_got_no_place_is_told_until_its_row_says_scheduled() -> None:
    with dag(max_active_tasks=1) as it:
        python("a")
        python("b")
        python("c")
    bench = Bench(it)
    bench.decide()
    picked = bench.window.pick(bench.occupancy())
    assert bench.names(picked) == ["a"]
    assert bench.names(bench.window.ready_unplaced(picked)) == ["b", "c"]
    dispatch(bench, "a")
    bench.set("b", "scheduled")
    assert bench.names(bench.window.ready_unplaced()) == ["c"]
    assert bench.pick() == []
    bench.set("a", "success")
    assert bench.pick() == ["b"]


def test_max_active_tasks_counts_all_runs() -> None:
    with dag(max_active_tasks=3) as it:
        python("a")
        python("b")
    bench = Bench(it, runs=2)
    bench.decide()
    dispatch(bench, "a")
    assert bench.pick() == ["b", "1:a"]


@pytest.mark.parametrize(("slots", "picked"), [(-1, 4), (4, 2), (3, 1), (2, 1), (0, 0)])
def test_a_pool_is_never_exceeded_by_the_full_slots_of_a_task(slots: int, picked: int) -> None:
    with dag() as it:
        python("a", pool="p", pool_slots=2)
    bench = Bench(it, runs=4)
    bench.decide()
    assert len(bench.pick(pools={"p": slots})) == picked


def test_a_small_task_passes_a_big_one_that_does_not_fit() -> None:
    with dag() as it:
        python("big", pool="p", pool_slots=3, priority_weight=9)
        python("small", pool="p")
        python("other")
    bench = Bench(it)
    bench.decide()
    assert bench.pick(pools={"p": 2, "default_pool": 1}) == ["small", "other"]


def test_limits_of_a_task_per_dag_and_per_run() -> None:
    with dag() as it:
        mapped("m", [[1], [2], [3]], max_active_tis_per_dag=3, max_active_tis_per_dagrun=2)
    bench = Bench(it, runs=2)
    bench.decide()
    assert bench.pick() == ["m[0]", "m[1]", "1:m[0]"]
    dispatch(bench, "m[0]", "m[1]")
    assert bench.pick() == ["1:m[0]"]
    dispatch(bench, "1:m[0]")
    assert bench.pick() == []
    bench.set("m[0]", "success")
    assert bench.pick() == ["m[2]"]


def test_a_limit_per_run_holds_back_no_other_run() -> None:
    with dag() as it:
        mapped("m", [[1], [2]], max_active_tis_per_dagrun=1)
        python("other", max_active_tis_per_dag=1)
    bench = Bench(it, runs=3)
    bench.decide()
    dispatch(bench, "m[0]", "other")
    assert bench.pick() == ["1:m[0]", "2:m[0]"]


def test_parallelism_counts_what_the_window_has_in_flight() -> None:
    with dag() as it:
        for name in "abcd":
            python(name)
    bench = Bench(it)
    bench.decide()
    assert bench.pick(3) == ["a", "b", "c"]
    dispatch(bench, "a", "b")
    assert bench.pick(3) == ["c"]
    assert bench.pick(2) == []
    assert bench.pick(1) == []


def test_what_is_picked_is_counted_in_the_occupancy() -> None:
    with dag(max_active_tasks=2) as it:
        python("a", pool="p", pool_slots=2)
    bench = Bench(it, runs=3)
    bench.decide()
    occupancy = Occupancy(pool_sizes={"p": 4})
    assert bench.names(bench.window.pick(occupancy)) == ["a", "1:a"]
    assert occupancy.by_pool["p"] == 4
    assert occupancy.by_dag["d"] == 2
    assert bench.window.pick(occupancy) == []


def test_what_others_have_in_flight_counts() -> None:
    with dag(max_active_tasks=2) as it:
        python("a", pool="p", max_active_tis_per_dag=5)
    bench = Bench(it, runs=3)
    bench.decide()
    occupancy = Occupancy(pool_sizes={"p": 9})
    occupancy.by_dag["d"] += 1
    occupancy.by_task["d", "a"] += 1
    assert bench.names(bench.window.pick(occupancy)) == ["a"]


def test_settled_task_instances_take_no_place() -> None:
    with dag(max_active_tasks=1) as it:
        python("a")
        empty("e") >> python("b")
    bench = Bench(it)
    bench.decide()
    dispatch(bench, "a")
    assert bench.state("e") == "success"


def test_a_pool_that_does_not_exist_takes_nothing_and_blocks() -> None:
    with dag() as it:
        python("a", pool="gone") >> python("b")
        python("c", pool="small", pool_slots=5)
        python("d", pool="closed")
    bench = Bench(it)
    bench.decide()
    assert bench.blocked() == {}
    assert bench.pick(pools={"small": 4, "closed": 0, "default_pool": 9}) == []
    assert bench.blocked() == {"a": "pool", "b": "upstream", "c": "pool"}
    assert not bench.window.idle()
    dispatch(bench, "d")
    bench.set("d", "success")
    assert bench.window.idle()
    assert bench.window.stuck_runs() == [100]
    assert bench.pick(pools={"small": 4, "gone": 1}) == ["a"]
    assert bench.blocked() == {"c": "pool"}


def test_ten_thousand_ready_task_instances_of_a_full_pool_are_not_looked_at() -> None:
    with dag(max_active_tasks=100_000) as it:
        mapped("m", [[i] for i in range(10_000)], pool="p")
    bench = Bench(it, runs=0)
    bench.admit(0)
    bench.window.decide(bench.now)
    looked_at: list[int] = []
    ready = bench.window._board.ready
    head = ready._head
    ready._head = lambda lane: looked_at.append(1) or head(lane)  # type: ignore[method-assign, func-returns-value]
    assert bench.window.pick(Occupancy(pool_sizes={"p": 0})) == []
    assert looked_at == []
    assert len(bench.window.pick(Occupancy(pool_sizes={"p": 3}))) == 3
    assert len(looked_at) < 10


def test_the_limits_without_room_are_named() -> None:
    with dag(max_active_tasks=1) as it:
        python("a", pool="p", max_active_tis_per_dag=1, max_active_tis_per_dagrun=1)
    bench = Bench(it)
    spec = bench.graph.spec("a")
    occupancy = Occupancy(pool_sizes={"p": 1})
    assert full_limits(bench.graph, spec, 100, occupancy) == []
    occupancy.take(bench.graph, spec, 100, 1)
    assert full_limits(bench.graph, spec, 100, occupancy) == [
        Limit.MAX_ACTIVE_TASKS,
        Limit.POOL,
        Limit.MAX_ACTIVE_TIS_PER_DAG,
        Limit.MAX_ACTIVE_TIS_PER_DAGRUN,
    ]


def test_an_occupancy_is_the_sum_of_its_rows() -> None:
    rows = [
        OccupancyRow("p", "d", "a", 100, 2, 4),
        OccupancyRow("p", "other", "x", 7, 1, 1),
        OccupancyRow("q", "d", "a", 101, 1, 1),
    ]
    occupancy = Occupancy(rows, pool_sizes={"p": 8})
    assert occupancy.by_pool == {"p": 5, "q": 1}
    assert occupancy.by_dag == {"d": 3, "other": 1}
    assert occupancy.by_task == {("d", "a"): 3, ("other", "x"): 1}
    assert occupancy.by_run == {(100, "a"): 2, (7, "x"): 1, (101, "a"): 1}


def subdag(**options: Any) -> Bench:
    with dag() as it:
        (
            python("a")
            >> SubDagOperator(task_id="s", subdag=DAG("d.s", schedule=None, start_date=it.start_date))
            >> python("z")
        )
    return Bench(it, options=Options(**options))


def test_a_subdag_is_started_by_the_caller_and_takes_no_place() -> None:
    bench = subdag()
    bench.set("a", "success")
    assert bench.startable() == ["s"]
    assert bench.pick() == []
    assert bench.window.ready_unplaced() == []
    bench.set("s", "running")
    assert bench.window.counts().running == 1
    bench.set("s", "success")
    assert bench.ready() == ["z"]
    assert bench.pick(1) == ["z"]


def test_a_running_subdag_does_not_count_for_parallelism() -> None:
    with dag() as it:
        SubDagOperator(task_id="s", subdag=DAG("d.s", schedule=None, start_date=it.start_date))
        python("z")
    bench = Bench(it, states={"s": "running"})
    assert bench.ready() == ["z"]
    assert bench.pick(1) == ["z"]


def test_mark_success_reaches_into_a_subdag() -> None:
    bench = subdag(mark_success=True)
    assert bench.startable() == ["s"]
