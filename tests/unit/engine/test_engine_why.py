"""What is blocked, and why a task instance does not run (S9.3, S11.6)."""

from __future__ import annotations

from datetime import timedelta

from engine_bench import DAY_0, NOW, Bench, branch, dag, mapped, nothing, python

from backfill import task, task_group
from backfill.engine.limits import Limit
from backfill.engine.window import AwaitedPool, AwaitedTask, Reason
from backfill.states import TaskInstanceState


def why(bench: Bench, name: str, *, pools: dict[str, int] | None = None, limit: int | None = None) -> Reason:
    bench.decide()
    return bench.window.explain(bench.id(name), bench.now, bench.occupancy(pools), limit)


def awaited(reason: Reason) -> list[str]:
    return [each.task_id for each in reason.waits_for if isinstance(each, AwaitedTask)]


def test_what_runs_or_has_ended_is_held_by_nothing() -> None:
    with dag() as it:
        python("a") >> python("b")
    bench = Bench(it, states={"a": "success", "b": "running"})
    assert why(bench, "a").text == "it has ended as success"
    assert why(bench, "b").text == "it is running"


def test_line_1_names_the_branch() -> None:
    with dag() as it:
        branch("choose") >> python("a", trigger_rule="always")
    reason = why(Bench(it), "a")
    assert (reason.line, awaited(reason)) == (1, ["choose"])
    assert reason.text == f"it may still be skipped by choose of {DAY_0.isoformat()} (none)"


def test_line_3_names_the_source_of_the_mapping() -> None:
    with dag() as it:
        mapped("m", python("source"))
    bench = Bench(it)
    reason = why(bench, "m")
    assert (reason.line, awaited(reason)) == (3, ["source"])
    bench.set("source", "success")
    assert why(bench, "m").text == "the length of its mapping is being looked up"


def test_line_4_names_the_setup() -> None:
    with dag() as it:
        s = python("s").as_setup()
        s >> python("a") >> python("b") >> python("t").as_teardown(setups=s)
    reason = why(Bench(it), "b")
    assert (reason.line, awaited(reason)) == (4, ["s"])


def test_line_5_names_the_rule_and_the_first_few_of_what_it_waits_for() -> None:
    with dag() as it:
        [python(f"u{i}") for i in range(5)] >> python("z", trigger_rule="all_done")
    bench = Bench(it, states={"u0": "success"})
    reason = why(bench, "z")
    assert (reason.line, awaited(reason)) == (5, ["u1", "u2", "u3", "u4"])
    assert reason.text.startswith("its trigger rule all_done waits for u1 of ")
    assert reason.text.endswith("and 1 more")


def test_line_5_names_the_indexes_of_a_mapped_task() -> None:
    with dag() as it:
        mapped("m", [[1], [2]]) >> python("z")
    bench = Bench(it, states={"m[0]": "success", "m[1]": "running"})
    (awaits,) = why(bench, "z").waits_for
    assert awaits == AwaitedTask("m", DAY_0, 1, TaskInstanceState.RUNNING, bench.id("m[1]"))


def test_line_6_names_the_run_before() -> None:
    with dag() as it:
        python("a", depends_on_past=True)
        python("w", wait_for_downstream=True) >> python("x")
    bench = Bench(it, runs=2, states={"a": "failed", "w": "success", "x": "running"})
    reason = why(bench, "1:a")
    assert reason.line == 6
    assert reason.text == f"depends_on_past waits for a of {DAY_0.isoformat()} (failed)"
    assert why(bench, "1:w").text == f"wait_for_downstream waits for x of {DAY_0.isoformat()} (running)"


def test_line_7_names_the_date() -> None:
    with dag() as it:
        python("a")
    bench = Bench(it)
    due = NOW + timedelta(minutes=5)
    bench.set("a", "up_for_retry", next_attempt_at=due)
    reason = why(bench, "a")
    assert (reason.line, reason.due, reason.text) == (7, due, f"its retry is due at {due.isoformat()}")
    bench.set("a", "up_for_reschedule", next_attempt_at=due)
    assert why(bench, "a").text == f"its reschedule is due at {due.isoformat()}"


def test_a_limit_is_named() -> None:
    with dag(max_active_tasks=1) as it:
        python("a", pool="p")
        python("b", pool="p")
    bench = Bench(it, states={"a": "running"})
    reason = why(bench, "b", pools={"p": 1})
    assert reason.limits == (Limit.MAX_ACTIVE_TASKS, Limit.POOL)
    assert reason.text == "max_active_tasks and pool 'p' have no room for it"
    assert why(bench, "b", pools={"p": 2}, limit=1).limits == (Limit.PARALLELISM, Limit.MAX_ACTIVE_TASKS)


def test_a_place_in_the_order_is_told() -> None:
    with dag() as it:
        python("first", priority_weight=9)
        python("last")
    bench = Bench(it, runs=2)
    assert why(bench, "last").text == "it is ready, and 2 ready task instances go before it"
    assert [why(bench, name).rank for name in ("first", "1:first", "last", "1:last")] == [0, 1, 2, 3]


def test_what_is_about_to_be_settled_says_so() -> None:
    with dag() as it:
        [python("a"), python("b")] >> python("z")
        python("c") >> python("y")
    bench = Bench(it)
    bench.set_all({"a": "failed", "c": "skipped"})
    window = bench.window
    assert window.explain(bench.id("z"), NOW).text == "it is about to become upstream_failed"
    assert window.explain(bench.id("y"), NOW).text == "it is about to be skipped"


# -- blocked ------------------------------------------------------------------------------------------------------------


def test_blocked_task_instances_say_what_they_wait_for() -> None:
    with dag() as it:
        python("a", depends_on_past=True) >> python("b")
        python("p", pool="gone")
    bench = Bench(it, runs=2, states={"a": "failed"})
    bench.decide()
    bench.pick(pools={"default_pool": 9})
    told = {bench.name(each.ti_id): each for each in bench.window.blocked()}
    assert told.keys() == {"p", "1:a", "1:b", "1:p"}
    assert told["1:a"].waits_for == (AwaitedTask("a", DAY_0, state=TaskInstanceState.FAILED),)
    assert told["1:b"].waits_for[0].ti_id == bench.id("1:a")  # type: ignore[union-attr]
    assert told["p"].waits_for == (AwaitedPool("gone", None),)
    assert str(told["p"]) == "waits for pool 'gone' (does not exist)"
    assert list(told) == ["p", "1:a", "1:b", "1:p"]


def test_what_also_waits_for_something_that_can_go_on_is_not_blocked_yet() -> None:
    with dag() as it:
        [python("a", depends_on_past=True), python("b")] >> python("z")
    bench = Bench(it, runs=2, states={"a": "failed"})
    bench.decide()
    assert bench.blocked() == {"1:a": "past"}
    assert bench.window.stuck_runs() == []
    bench.set("1:b", "success")
    bench.decide()
    assert bench.blocked() == {"1:a": "past", "1:z": "upstream"}
    assert bench.window.stuck_runs() == [101]


def test_being_blocked_passes_from_run_to_run() -> None:
    with dag() as it:
        python("a", depends_on_past=True)
    bench = Bench(it, runs=4, states={"a": "failed"})
    bench.decide()
    assert bench.blocked() == {"1:a": "past", "2:a": "past", "3:a": "past"}
    assert bench.window.stuck_runs() == [101, 102, 103]
    bench.set("2:a", "up_for_retry", next_attempt_at=NOW + timedelta(hours=1))
    bench.decide()
    assert bench.window.stuck_runs() == [101, 102, 103]
    bench.set("1:a", "success")
    bench.decide()
    assert bench.blocked() == {}


def test_waiting_for_a_date_is_not_being_blocked() -> None:
    with dag() as it:
        python("a", pool="gone") >> python("b")
    bench = Bench(it)
    bench.set("a", "up_for_retry", next_attempt_at=NOW + timedelta(hours=1))
    bench.decide()
    bench.pick(pools={})
    assert bench.blocked() == {}


def test_indexes_of_a_mapped_group_are_blocked_one_by_one() -> None:
    @task_group(group_id="g", prefix_group_id=False)
    def group(x: object) -> None:
        task(task_id="a", pool="gone")(nothing)(x) >> task(task_id="b")(nothing)(x)

    with dag() as it:
        group.expand(x=[1, 2])
    bench = Bench(it, states={"a[1]": "running"})
    bench.decide()
    bench.pick(pools={"default_pool": 1})
    assert bench.blocked() == {"a[0]": "pool", "b[0]": "upstream"}


def test_where_the_only_pool_is_gone_all_is_blocked() -> None:
    with dag() as it:
        python("p", pool="gone")
    bench = Bench(it)
    bench.decide()
    bench.pick(pools={})
    assert bench.blocked() == {"p": "pool"}
    assert bench.window.idle()
    assert bench.window.stuck_runs() == [100]


def test_without_ranks_a_reason_does_not_count_those_that_go_first() -> None:
    with dag() as it:
        [python("a"), python("b", pool="full")]
    bench = Bench(it)
    bench.decide()
    occupancy = bench.occupancy({"default_pool": 5, "full": 0})
    ready = bench.window.explain(bench.id("a"), bench.now, occupancy, ranked=False)
    held = bench.window.explain(bench.id("b"), bench.now, occupancy, ranked=False)
    assert (ready.text, ready.rank, ready.limits) == ("it is ready", None, ())
    assert (held.text, held.rank, held.limits) == ("pool 'full' has no room for it", None, (Limit.POOL,))
