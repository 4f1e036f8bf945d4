"""Mapped tasks and mapped groups: expansion, indexes that come and go, which indexes are relevant (S4.1 line 3, S4.5, S4.7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from engine_bench import Bench, branch, dag, mapped, nothing, python, run_facts, short_circuit

from backfill import task, task_group
from backfill.dag import DAG
from backfill.engine.window import Options
from backfill.operators import ShortCircuitOperator


@task
def one(x: object = None) -> object:
    return x


def over_source() -> DAG:
    with dag() as it:
        mapped("m", python("source")) >> python("z")
    return it


def expanded(length: int | None, **arguments: Any) -> Bench:
    """Return a bench whose `m` has been expanded."""
    bench = Bench(over_source(), **arguments)
    bench.decide()
    bench.set("source", "success")
    assert bench.decisions().expand == [(100, "m")]
    bench.expand("m", length)
    return bench


def test_a_literal_mapping_is_expanded_from_the_start() -> None:
    with dag() as it:
        mapped("m", [[1], [2], [3]]) >> python("z")
    bench = Bench(it)
    assert bench.ready() == ["m[0]", "m[1]", "m[2]"]
    bench.set_all({"m[0]": "success", "m[1]": "success"})
    assert bench.ready() == ["m[2]"]
    bench.set("m[2]", "success")
    assert bench.ready() == ["z"]


def test_a_run_whose_expansion_is_not_whole_has_it_asked_for_again_and_shows_nothing_of_it() -> None:
    bench = Bench(over_source(), runs=0)
    bench.admit(0, states={"source": "success"}, more=[("m", 1), ("m", 2)])
    assert bench.window.counts().total == len(bench.graph.task_ids)
    assert bench.decisions().expand == [(100, "m")]
    assert bench.window.take_in([bench.make_row(0, "m", 3)]) == []
    assert bench.window.awaits_rows(100, "m")
    assert bench.ready() == []
    bench.expand("m", 4)
    assert bench.ready() == ["m[0]", "m[1]", "m[2]", "m[3]"]


def test_a_literal_mapping_of_length_0_is_skipped_when_its_rule_lets_it_run() -> None:
    with dag() as it:
        python("a") >> mapped("m", []) >> python("z", trigger_rule="all_skipped")
    bench = Bench(it)
    assert bench.ready() == ["a"]
    bench.set("a", "success")
    assert bench.decide() == {"m": "skipped"}
    assert bench.pick() == ["z"]
    bench = Bench(it)
    bench.set("a", "failed")
    assert bench.decide()["m"] == "upstream_failed"


def test_the_length_is_asked_for_once_when_the_source_has_succeeded() -> None:
    bench = Bench(over_source())
    assert bench.ready() == ["source"]
    assert not bench.decisions()
    bench.set("source", "success")
    assert bench.decisions().expand == [(100, "m")]
    assert not bench.decisions()
    assert bench.pick() == []
    assert not bench.window.idle()


def test_the_indexes_run_after_the_expansion_and_what_is_downstream_waits_for_all() -> None:
    bench = expanded(3)
    assert bench.ready() == ["m[0]", "m[1]", "m[2]"]
    assert bench.window.counts().waiting == 4
    bench.set_all({"m[2]": "success", "m[0]": "success"})
    assert bench.ready() == ["m[1]"]
    bench.set("m[1]", "success")
    assert bench.ready() == ["z"]


def test_an_index_changes_the_key_that_was_asked_for_before() -> None:
    bench = Bench(over_source())
    ti_id = bench.id("m")
    assert bench.window.key(ti_id).map_index == -1
    bench.set("source", "success")
    bench.decide()
    bench.expand("m", 2)
    assert bench.window.key(ti_id).map_index == 0


def test_taking_in_the_rows_is_answer_enough_when_there_are_new_ones() -> None:
    bench = Bench(over_source())
    bench.set("source", "success")
    bench.decide()
    base = bench.rows.pop("m")
    bench.rows["m[0]"] = base._replace(map_index=0)
    rows = [bench.make_row(0, "m", 1), bench.rows["m[0]"]]
    assert bench.window.take_in(rows) == rows
    assert bench.ready() == ["m[0]", "m[1]"]


def test_length_0_skips_the_row_and_an_unknown_length_fails_it() -> None:
    assert expanded(0).decide() == {"m": "skipped", "z": "skipped"}
    assert expanded(None).decide() == {"m": "upstream_failed", "z": "upstream_failed"}


def test_mark_success_leaves_a_mapping_without_stored_values_unexpanded() -> None:
    bench = Bench(over_source(), options=Options(mark_success=True))
    assert bench.decisions().expand == [(100, "m")]
    bench.expand("m", None)
    assert bench.decide() == {"m": "success", "z": "success"}


@pytest.mark.parametrize("rule", ["all_success", "all_done", "always"])
@pytest.mark.parametrize(
    ("source", "m"), [("failed", "upstream_failed"), ("upstream_failed", "upstream_failed"), ("skipped", "skipped")]
)
def test_a_source_that_did_not_succeed_settles_the_mapped_task_whatever_its_rule(
    rule: str, source: str, m: str
) -> None:
    with dag() as it:
        mapped("m", python("source"), trigger_rule=rule)
    bench = Bench(it)
    bench.set("source", source)
    assert bench.decide() == {"m": m}


def test_an_expanded_source_passes_when_all_its_indexes_have_finished_also_badly() -> None:
    with dag() as it:
        source = one.override(task_id="source").expand(x=[1, 2])
        one.override(task_id="m", trigger_rule="all_done").expand(x=source)
    bench = Bench(it)
    bench.set("source[0]", "failed")
    assert not bench.decisions().expand
    bench.set("source[1]", "success")
    assert bench.decisions().expand == [(100, "m")]
    bench.expand("m", 1)
    assert bench.ready() == ["m[0]"]


def test_without_its_source_chosen_a_mapped_task_asks_for_stored_values_at_once() -> None:
    bench = Bench(over_source(), chosen=["m"], options=Options(ignore_task_deps=True))
    assert bench.decisions().expand == [(100, "m")]
    bench.expand("m", 2)
    assert bench.ready() == ["m[0]", "m[1]"]


def test_the_length_is_asked_for_again_when_the_source_has_run_again() -> None:
    bench = expanded(2)
    bench.decide()
    bench.set("source", "none")
    bench.set("m[0]", "scheduled")
    assert bench.names(bench.decisions().unschedule) == ["m[0]"]
    bench.set("source", "success")
    assert bench.decisions().expand == [(100, "m")]
    bench.expand("m", 3)
    assert bench.ready() == ["m[0]", "m[1]", "m[2]"]


def test_indexes_beyond_a_shorter_length_are_removed_and_count_no_more() -> None:
    bench = expanded(3)
    bench.set("source", "none")
    bench.decide()
    bench.set("source", "success")
    bench.decide()
    bench.expand("m", 1)
    assert bench.ready() == ["m[0]"]
    bench.set("m[0]", "success")
    assert bench.ready() == ["z"]
    assert bench.window.counts().total == 3


def test_a_source_that_ran_again_unseen_has_its_length_looked_up_again() -> None:
    bench = expanded(2)
    assert not bench.decisions().expand
    bench.set("source", "success", try_number=2)
    assert bench.decisions().expand == [(100, "m")]
    bench.set("source", "success", try_number=3)
    assert bench.decisions().expand == [(100, "m")]
    bench.expand("m", 2)
    assert bench.ready() == ["m[0]", "m[1]"]


def test_an_index_that_appears_by_itself_is_taken_in() -> None:
    with dag() as it:
        mapped("m", [[1], [2]]) >> python("z")
    bench = Bench(it, states={"m[0]": "success", "m[1]": "success"})
    assert bench.ready() == ["z"]
    bench.window.take_in([bench.make_row(0, "m", 2)])
    assert bench.ready() == ["m[2]"]


def test_an_index_that_comes_back_is_ready_again() -> None:
    with dag() as it:
        mapped("m", [[1], [2]])
    bench = Bench(it, states={"m[1]": "removed"})
    assert bench.ready() == ["m[0]"]
    bench.set("m[1]", "none")
    assert bench.ready() == ["m[0]", "m[1]"]


def test_whoever_may_skip_is_waited_for_again_when_an_index_of_it_appears() -> None:
    with dag() as it:
        stop = ShortCircuitOperator.partial(task_id="stop", python_callable=nothing).expand(op_args=[[1], [2]])
        stop >> python("b") >> python("z", trigger_rule="always")
    bench = Bench(it, states={"stop[0]": "success", "stop[1]": "success", "b": "success"})
    assert bench.ready() == ["z"]
    bench.window.take_in([bench.make_row(0, "stop", 2)])
    assert bench.ready() == ["stop[2]"]


def test_a_removed_row_that_was_never_seen_has_no_effect() -> None:
    bench = Bench(over_source())
    assert bench.window.take_in([bench.make_row(0, "m", 4, state="removed")]) == []
    assert bench.ready() == ["source"]


@pytest.mark.parametrize("found", [False, True])
def test_a_row_that_index_0_took_the_place_of_is_not_known_any_more(found: bool) -> None:
    bench = Bench(over_source(), runs=0)
    if found:
        states = {"source": "success", "m": "removed"}
        bench.admit(0, states=states, more=[("m", 1), ("m", 0)])
    else:
        bench.admit(0, states={"source": "success"})
        assert bench.decisions().expand == [(100, "m")]
        bench.rows["m"] = bench.rows["m"]._replace(state="removed")  # ended by hand, before the expansion
        bench.window.take_in([bench.rows["m"], bench.make_row(0, "m", 0), bench.make_row(0, "m", 1)])
    assert not bench.window.knows(bench.id("m"))
    assert bench.window.key(bench.id("m[0]")).map_index == 0
    assert bench.window.take_in([bench.rows["m"]]) == []
    assert bench.window.counts().waiting == 3
    bench.window.remove(100)
    assert bench.window.take_in(bench.rows.values()) == []


@pytest.mark.parametrize("state", ["success", "failed", "skipped", "removed"])
@pytest.mark.parametrize("found", [False, True])
def test_a_row_that_ended_before_it_was_index_0_never_is_and_the_expansion_goes_on(state: str, found: bool) -> None:
    bench = Bench(over_source(), runs=0)
    if found:
        bench.admit(0, states={"source": "success", "m": state}, more=[("m", 1), ("m", 2)])
        assert bench.decisions().expand == [(100, "m")]
    else:
        bench.admit(0, states={"source": "success"})
        assert bench.decisions().expand == [(100, "m")]
        bench.rows["m"] = bench.rows["m"]._replace(state=state)
        bench.window.take_in([bench.rows["m"], bench.make_row(0, "m", 1), bench.make_row(0, "m", 2)])
    assert not bench.window.knows(bench.id("m"))
    assert bench.names(row.id for row in bench.window.rows(100)) == ["source", "m[1]", "m[2]", "z"]
    assert (bench.window.awaits_rows(100, "m"), bench.window.idle(), bench.ready()) == (True, False, [])
    bench.rows["m"] = bench.rows["m"]._replace(state="removed")
    bench.make_row(0, "m", 0)
    bench.window.take_in([bench.rows[name] for name in ("m", "m[0]", "m[1]", "m[2]")])
    bench.window.set_length(100, "m", 3)
    assert bench.ready() == ["m[0]", "m[1]", "m[2]"]
    assert bench.window.counts().total == 5


def test_a_row_that_turns_out_to_have_ended_is_not_expanded_before_it_is_cleared() -> None:
    bench = Bench(over_source(), states={"source": "success"})
    assert bench.decisions().expand == [(100, "m")]
    bench.set("m", "success")
    bench.window.set_length(100, "m", 2)
    assert not bench.window.awaits_rows(100, "m")
    assert bench.ready() == ["z"]
    bench.set("m", "none")
    assert bench.decisions().expand == [(100, "m")]
    bench.expand("m", 2)
    assert bench.ready() == ["m[0]", "m[1]"]


def test_a_mapping_that_is_not_expanded_any_more_starts_over() -> None:
    bench = expanded(2)
    bench.set("m[1]", "removed")
    bench.rows["m"] = bench.rows.pop("m[0]")._replace(map_index=-1)
    bench.window.take_in([bench.rows["m"]])
    assert bench.decisions().expand == [(100, "m")]
    bench.window.set_length(100, "m", 0)
    assert bench.decide() == {"m": "skipped", "z": "skipped"}


def test_a_run_that_starts_over_takes_in_the_news_of_its_other_mappings() -> None:
    with dag() as it:
        source = python("source")
        mapped("m", source)
        mapped("n", source)
    bench = Bench(it, states={"source": "success"})
    bench.decide()
    bench.expand("m", 2)
    bench.expand("n", 2)
    news = [bench.make_row(0, "m"), bench.make_row(0, "n", 2)]
    bench.window.take_in(news)
    assert bench.names(row.id for row in bench.window.rows(100)) == ["source", "m[0]", "m[1]", "n[0]", "n[1]", "n[2]"]
    assert {bench.window.facts(bench.id(name)).map_index for name in ("n[0]", "n[1]", "n[2]")} == {0, 1, 2}


def test_a_run_found_expanded_is_judged_as_it_is() -> None:
    bench = Bench(over_source(), runs=0)
    rows = [bench.make_row(0, "source", state="success"), bench.make_row(0, "z")]
    rows += [bench.make_row(0, "m", index, state="success" if index else "none") for index in (2, 0, 1)]
    bench.window.admit(run_facts(0), rows, first=True, previous=None)
    assert bench.decisions().expand == [(100, "m")]
    bench.window.set_length(100, "m", 3)
    assert bench.ready() == ["m[0]"]
    bench.set("m[0]", "success")
    assert bench.ready() == ["z"]


def test_one_ended_index_decides_at_once_for_all_indexes_of_a_mapped_child() -> None:
    with dag() as it:
        mapped("m", [[1], [2], [3]]) >> mapped("n", [[1], [2]], trigger_rule="one_failed")
    bench = Bench(it)
    bench.set("m[1]", "failed")
    assert bench.ready() == ["m[0]", "m[2]", "n[0]", "n[1]"]


def test_a_branch_decision_covers_all_map_indexes() -> None:
    with dag() as it:
        branch("choose") >> mapped("m", [[1], [2]])
    bench = Bench(it)
    bench.set("choose", "success", skips=("m",))
    assert bench.decide() == {"m[0]": "skipped", "m[1]": "skipped"}


# -- mapped groups ------------------------------------------------------------------------------------------------------


def group_of(make: Callable[[object], Any], over: list[int] | None = None, *, after: str | None = None) -> DAG:
    """Return a DAG with a mapped group `g` over two elements, or over what `after` returns."""
    group = task_group(group_id="g", prefix_group_id=False)(make)
    with dag() as it:
        group.expand(x=python(after).output if after else over or [1, 2])
    return it


def chain_in_group(x: object) -> None:
    one.override(task_id="a")(x) >> one.override(task_id="b")(x)


def test_in_a_mapped_group_an_index_waits_for_the_same_index_only() -> None:
    bench = Bench(group_of(chain_in_group))
    assert bench.ready() == ["a[0]", "a[1]"]
    bench.set("a[1]", "success")
    assert bench.ready() == ["a[0]", "b[1]"]
    bench.set("a[0]", "failed")
    assert bench.decide() == {"b[0]": "upstream_failed"}


def test_one_rules_look_at_the_same_index_too() -> None:
    def make(x: object) -> None:
        one.override(task_id="a")(x) >> one.override(task_id="b", trigger_rule="one_failed")(x)

    bench = Bench(group_of(make))
    bench.set("a[0]", "failed")
    bench.set("a[1]", "success")
    assert bench.decide() == {"b[1]": "skipped"}
    assert bench.pick() == ["b[0]"]


def test_a_group_over_a_task_is_expanded_task_by_task_when_that_has_succeeded() -> None:
    bench = Bench(group_of(chain_in_group, after="source"))
    assert bench.ready() == ["source"]
    bench.set("source", "success")
    assert sorted(bench.decisions().expand) == [(100, "a"), (100, "b")]
    bench.expand("b", 2)
    bench.expand("a", 2)
    assert bench.ready() == ["a[0]", "a[1]"]
    bench.set("a[0]", "success")
    assert bench.ready() == ["a[1]", "b[0]"]


def test_rows_of_a_group_without_stored_values_look_at_each_other_unexpanded() -> None:
    bench = Bench(group_of(chain_in_group, after="source"), options=Options(mark_success=True))
    assert sorted(bench.decisions().expand) == [(100, "a"), (100, "b")]
    bench.expand("b", None)
    assert bench.decide() == {}
    bench.expand("a", None)
    assert bench.decide() == {"a": "success", "b": "success"}


def test_an_unexpanded_row_of_a_group_waits_for_all_indexes() -> None:
    bench = Bench(group_of(chain_in_group, after="source"), options=Options(mark_success=True))
    bench.decide()
    bench.expand("b", None)
    bench.expand("a", 2)
    assert bench.decide() == {"a[0]": "success", "a[1]": "success", "b": "success"}


def test_a_decision_in_a_mapped_group_is_about_its_own_index() -> None:
    def make(x: object) -> None:
        short_circuit("stop") >> one.override(task_id="a")(x) >> one.override(task_id="b", trigger_rule="always")(x)

    bench = Bench(group_of(make))
    bench.set("stop[0]", "success", skips=("a", "b"))
    assert bench.decide() == {"a[0]": "skipped", "b[0]": "skipped"}
    bench.set("stop[1]", "success")
    assert bench.ready() == ["a[1]", "b[1]"]


def test_an_indirect_setup_in_a_mapped_group_holds_its_own_index_only() -> None:
    def make(x: object) -> None:
        setup, work = python("s").as_setup(), python("w", trigger_rule="all_done")
        setup >> python("between") >> work >> python("t").as_teardown(setups=setup)

    bench = Bench(group_of(make))
    bench.set_all({"s[0]": "success", "between[0]": "success", "between[1]": "success"})
    assert "w[0]" in bench.ready()
    assert "w[1]" not in bench.pick()
    bench.set("s[1]", "failed")
    assert bench.decide()["w[1]"] == "upstream_failed"


def test_what_is_outside_of_the_group_waits_for_all_indexes_and_holds_all_indexes() -> None:
    def make(x: object) -> None:
        one.override(task_id="a")(x) >> one.override(task_id="b")(x)

    it = group_of(make)
    with it:
        before, after = python("before"), python("after")
        before >> it.task_dict["b"]
        it.task_dict["b"] >> after
    bench = Bench(it)
    bench.set_all({"a[0]": "success", "a[1]": "success"})
    assert bench.ready() == ["before"]
    bench.set("before", "success")
    assert bench.ready() == ["b[0]", "b[1]"]
    bench.set("b[0]", "success")
    assert bench.ready() == ["b[1]"]
    bench.set("b[1]", "success")
    assert bench.ready() == ["after"]


def nested(over: Any) -> DAG:
    @task_group(group_id="inner", prefix_group_id=False)
    def inner(y: object) -> None:
        one.override(task_id="deep")(y) >> one.override(task_id="deeper")(y)

    @task_group(group_id="outer", prefix_group_id=False)
    def outer(x: object, y: object) -> None:
        first, last = one.override(task_id="first")(x), python("last")
        first >> inner.expand(y=y) >> last

    with dag() as it:
        outer.partial(y=over() if callable(over) else over).expand(x=[1, 2])
    return it


@pytest.mark.parametrize("dynamic", [False, True])
def test_in_nested_groups_all_further_expanded_indexes_of_the_common_group_are_relevant(dynamic: bool) -> None:
    bench = Bench(nested((lambda: python("lengths").output) if dynamic else [1, 2, 3]))
    if dynamic:
        bench.set("lengths", "success")
        for _, task_id in bench.decisions().expand:
            bench.expand(task_id, 6)
    bench.decide()
    bench.set("first[1]", "success")
    assert {"deep[3]", "deep[4]", "deep[5]"} <= set(bench.ready())
    assert {"deep[0]", "deep[2]"}.isdisjoint(bench.pick())
    bench.set_all({"deep[3]": "success", "deep[4]": "success"})
    assert {"deeper[3]", "deeper[4]"} <= set(bench.ready())
    assert "deeper[5]" not in bench.pick()
    bench.set_all({"deep[5]": "success", "deeper[3]": "success", "deeper[4]": "success", "deeper[5]": "success"})
    assert "last[1]" in bench.ready()
    assert "last[0]" not in bench.pick()


def test_tasks_of_two_inner_groups_meet_at_the_index_of_their_common_group() -> None:
    @task_group(group_id="left", prefix_group_id=False)
    def left(y: object) -> None:
        one.override(task_id="l")(y)

    @task_group(group_id="right", prefix_group_id=False)
    def right(y: object) -> None:
        one.override(task_id="r")(y)

    @task_group(group_id="outer", prefix_group_id=False)
    def outer(x: object, y: object, z: object) -> None:
        one.override(task_id="gauge")(x)
        left.expand(y=y) >> right.expand(y=z)

    with dag() as it:
        outer.partial(y=python("two").output, z=python("three").output).expand(x=[1, 2])
    bench = Bench(it)
    bench.set_all({"two": "success", "three": "success"})
    assert sorted(task_id for _, task_id in bench.decisions().expand) == ["l", "r"]
    bench.expand("r", 6)
    bench.expand("l", 4)
    bench.set_all({"l[2]": "success", "l[3]": "success"})
    assert [name for name in bench.ready() if name.startswith("r")] == ["r[3]", "r[4]", "r[5]"]
