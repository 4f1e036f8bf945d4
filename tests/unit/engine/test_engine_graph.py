"""What is worked out once for each DAG: weights, relations, leaves, map indexes, subsets."""

from __future__ import annotations

from engine_bench import branch, dag, empty, mapped, python, short_circuit

from backfill import task, task_group
from backfill.dag import DAG
from backfill.engine.graph import Graph
from backfill.engine.window import Options


@task
def one(x: object = None) -> object:
    return x


def names(graph: Graph, tasks: tuple[int, ...]) -> set[str]:
    return {graph.tasks[i].task_id for i in tasks}


def test_tasks_are_numbered_in_topological_order() -> None:
    with dag() as it:
        c, a, b = python("c"), python("a"), python("b")
        a >> b >> c
    graph = Graph.compile(it)
    assert graph.task_ids == ("a", "b", "c")
    assert [spec.index for spec in graph.tasks] == [0, 1, 2]
    assert graph.spec("b").upstream == (0,)


def test_the_weight_adds_up_all_downstream_tasks_once() -> None:
    with dag() as it:
        a, b, c, d = (
            python(name, priority_weight=weight) for name, weight in zip("abcd", (1, 10, 100, 1000), strict=True)
        )
        a >> [b, c] >> d
    graph = Graph.compile(it)
    assert [graph.weight(name) for name in "abcd"] == [1111, 1010, 1100, 1000]


def test_weight_rules_upstream_and_absolute() -> None:
    with dag() as it:
        a = python("a", priority_weight=2, weight_rule="upstream")
        b = python("b", priority_weight=3, weight_rule="upstream")
        c = python("c", priority_weight=5, weight_rule="absolute")
        a >> b >> c
    graph = Graph.compile(it)
    assert [graph.weight(name) for name in "abc"] == [2, 5, 5]


def test_weights_count_chosen_tasks_only() -> None:
    with dag() as it:
        python("a") >> python("b") >> python("c")
    assert Graph.compile(it, frozenset("ab")).weight("a") == 2


def test_relations_to_tasks_that_were_not_chosen_are_cut() -> None:
    with dag() as it:
        python("a") >> python("b") >> python("c")
    graph = Graph.compile(it, frozenset("ac"))
    assert graph.task_ids == ("a", "c")
    assert graph.spec("c").upstream == ()
    assert graph.others == {"b"}
    assert graph.leaves_of_all == {"c"}


def test_the_pool_of_the_job_replaces_those_of_the_tasks() -> None:
    with dag() as it:
        python("a", pool="p")
        python("b")
    assert Graph.compile(it).pools == ("default_pool", "p")
    assert Graph.compile(it, options=Options(pool="q")).pools == ("q",)


def leaves(it: DAG) -> set[str]:
    graph = Graph.compile(it)
    return names(graph, graph.leaves)


def test_leaves_are_the_tasks_without_downstream_tasks() -> None:
    with dag() as it:
        python("a") >> [python("b"), python("c")]
    assert leaves(it) == {"b", "c"}


def test_a_teardown_is_no_leaf_but_the_task_before_it_is() -> None:
    with dag() as it:
        setup = python("s").as_setup()
        setup >> python("w") >> python("t").as_teardown(setups=setup)
    assert leaves(it) == {"w"}


def test_a_teardown_that_may_fail_the_run_is_a_leaf() -> None:
    with dag() as it:
        python("w") >> python("t").as_teardown(on_failure_fail_dagrun=True)
    assert leaves(it) == {"t"}


def test_a_dag_of_teardowns_only_has_plain_leaves() -> None:
    with dag() as it:
        python("t").as_teardown() >> python("u").as_teardown()
    assert leaves(it) == {"u"}


def test_who_may_decide_to_skip() -> None:
    with dag() as it:
        far, near, choice = (
            short_circuit("far"),
            short_circuit("near", ignore_downstream_trigger_rules=False),
            branch("choice"),
        )
        middle, child, teardown = python("middle"), python("child"), python("t").as_teardown()
        far >> middle >> [near, choice] >> child >> teardown
    graph = Graph.compile(it)
    assert names(graph, graph.spec("child").deciders) == {"far", "near", "choice"}
    assert names(graph, graph.spec("middle").deciders) == {"far"}
    assert names(graph, graph.spec("t").deciders) == set()


def test_indirect_setups_are_those_whose_teardown_comes_later_or_that_have_none() -> None:
    with dag() as it:
        kept, ended, endless = python("kept").as_setup(), python("ended").as_setup(), python("endless").as_setup()
        a, b = python("a"), python("b")
        [kept, ended, endless] >> a
        a >> python("end").as_teardown(setups=ended) >> b
        a >> b >> python("end_kept").as_teardown(setups=kept)
        a >> python("always", trigger_rule="always")
    graph = Graph.compile(it)
    assert names(graph, graph.spec("b").indirect_setups) == {"kept", "endless"}
    assert graph.spec("a").indirect_setups == ()
    assert graph.spec("always").indirect_setups == ()
    assert graph.spec("end_kept").indirect_setups == ()


def test_map_indexes_of_the_rows_of_a_new_run() -> None:
    with dag() as it:
        source = python("source")
        mapped("three", [[1], [2], [3]])
        mapped("no", [])
        mapped("later", source)
    graph = Graph.compile(it)
    assert list(graph.literal_indexes("three")) == [0, 1, 2]
    assert [list(graph.literal_indexes(name)) for name in ("source", "no", "later")] == [[-1]] * 3
    assert graph.spec("later").is_dynamic
    assert not graph.spec("three").is_dynamic
    assert not graph.spec("source").is_mapped


def test_tasks_in_a_mapped_group_are_multiplied_by_its_length() -> None:
    @task_group
    def inner(x: object) -> None:
        one.override(task_id="deep")(x)

    @task_group
    def outer(x: object) -> None:
        one.override(task_id="flat")(x)
        inner.expand(x=[1, 2])

    with dag() as it:
        outer.expand(x=[1, 2, 3])
    graph = Graph.compile(it)
    assert len(graph.literal_indexes("outer.flat")) == 3
    assert len(graph.literal_indexes("outer.inner.deep")) == 6


def test_the_length_of_a_mapping_comes_from_the_lengths_of_its_sources() -> None:
    @task
    def two(a: object, b: object) -> None: ...

    with dag() as it:
        source, other = one.override(task_id="source")(), one.override(task_id="other")()
        two.expand(a=source, b=[1, 2])
        one.override(task_id="pairs").expand(x=source.zip(other))
    graph = Graph.compile(it)
    assert graph.mapping_sources("two") == {"source"}
    assert graph.mapping_length("two", {("source", "return_value"): 3}) == 6
    assert graph.mapping_length("two", {}) is None
    assert graph.mapping_length("pairs", {("source", "return_value"): 3, ("other", "return_value"): 2}) == 2
    assert names(graph, graph.spec("pairs").sources) == {"source", "other"}


def test_a_source_that_was_not_chosen_is_still_asked_for_its_values() -> None:
    with dag() as it:
        mapped("m", python("source"))
    graph = Graph.compile(it, frozenset("m"))
    assert graph.spec("m").sources == ()
    assert graph.mapping_sources("m") == {"source"}


def test_the_past_of_wait_for_downstream_includes_direct_children() -> None:
    with dag() as it:
        python("a", wait_for_downstream=True) >> python("b") >> python("c", depends_on_past=True)
    graph = Graph.compile(it)
    assert graph.past_task_ids == ("a", "b", "c")
    assert names(graph, graph.spec("a").past) == {"a", "b"}
    assert names(graph, graph.spec("c").past) == {"c"}


def test_empty_operators_settle_themselves_unless_callbacks_are_due() -> None:
    with dag() as it:
        empty("plain")
        empty("called", on_success_callback=lambda _: None)
        python("work")
        python("work_called", on_success_callback=lambda _: None)
    assert [spec.settles_itself for spec in Graph.compile(it).tasks] == [True, False, False, False]
    marked = Graph.compile(it, options=Options(mark_success=True))
    assert [spec.settles_itself for spec in marked.tasks] == [True, False, True, False]
