from __future__ import annotations

import pytest

from backfill import DAG, Label, TaskGroup, chain, cross_downstream
from backfill.exceptions import DagError
from backfill.operators import BashOperator, EmptyOperator


def make(dag: DAG, *task_ids: str) -> list[EmptyOperator]:
    return [EmptyOperator(task_id=task_id, dag=dag) for task_id in task_ids]


def edges(dag: DAG) -> set[str]:
    return {f"{task.task_id}>{child}" for task in dag.tasks for child in task.downstream_task_ids}


def test_shifts_connect_tasks_and_lists_in_both_directions(dag: DAG) -> None:
    a, b, c, d, e, f = make(dag, *"abcdef")
    a >> [b, c] >> d
    f << [d, e]
    [b, c] << e
    assert edges(dag) == {"a>b", "a>c", "b>d", "c>d", "d>f", "e>f", "e>b", "e>c"}
    assert d.upstream_task_ids == {"b", "c"}


def test_nested_lists_are_flattened(dag: DAG) -> None:
    a, b, c, d = make(dag, *"abcd")
    a >> [b, [c, (d,)]]
    assert edges(dag) == {"a>b", "a>c", "a>d"}


def test_set_upstream_and_set_downstream_are_the_words_for_it(dag: DAG) -> None:
    a, b, c = make(dag, *"abc")
    b.set_upstream(a)
    b.set_downstream([c])
    dag.set_dependency("a", "c")
    assert edges(dag) == {"a>b", "b>c", "a>c"}


def test_something_that_is_no_task_cannot_be_connected(dag: DAG) -> None:
    (a,) = make(dag, "a")
    with pytest.raises(DagError, match="cannot be connected with 'b'"):
        a >> "b"


def test_a_task_takes_the_dag_of_the_one_it_is_connected_with(dag: DAG) -> None:
    (a,) = make(dag, "a")
    b = EmptyOperator(task_id="b")
    a >> b
    assert b.dag is dag
    assert dag.task_ids == ["a", "b"]


def test_tasks_of_two_dags_or_of_none_cannot_be_connected(dag: DAG) -> None:
    (a,) = make(dag, "a")
    other = EmptyOperator(task_id="x", dag=DAG("other"))
    with pytest.raises(DagError, match="'a' of 'd' and 'x' of 'other' cannot be connected"):
        a >> other
    with pytest.raises(DagError, match="'p' and 'q' belong to no DAG yet"):
        EmptyOperator(task_id="p") >> EmptyOperator(task_id="q")


def test_chain_connects_neighbours_and_equal_lists_member_by_member(dag: DAG) -> None:
    a, b, c, d, e, f = make(dag, *"abcdef")
    chain(a, [b, c], [d, e], f)
    assert edges(dag) == {"a>b", "a>c", "b>d", "c>e", "d>f", "e>f"}


def test_chain_refuses_lists_of_different_lengths(dag: DAG) -> None:
    a, b, c = make(dag, *"abc")
    with pytest.raises(DagError, match="lists of 2 and 1 tasks"):
        chain([a, b], [c])


def test_cross_downstream_connects_each_with_each(dag: DAG) -> None:
    a, b, c, d = make(dag, *"abcd")
    cross_downstream([a, b], [c, d])
    assert edges(dag) == {"a>c", "a>d", "b>c", "b>d"}


def test_a_label_leaves_the_edge_as_it_is(dag: DAG) -> None:
    a, b, c, d = make(dag, *"abcd")
    a >> Label("if empty") >> [b, c]
    d << Label("else") << c
    chain(b, Label("x"), d)
    assert edges(dag) == {"a>b", "a>c", "c>d", "b>d"}


def test_a_duplicate_task_id_is_refused_at_once(dag: DAG) -> None:
    make(dag, "a")
    with pytest.raises(DagError, match="'d' has a task 'a' already"):
        make(dag, "a")


def test_a_task_may_not_have_the_id_of_a_group(dag: DAG) -> None:
    with dag:
        TaskGroup("g")
        with pytest.raises(DagError, match="has a task group 'g' already"):
            EmptyOperator(task_id="g")


def test_a_cycle_is_named_by_its_tasks_in_order(dag: DAG) -> None:
    a, b, c, d, e = make(dag, *"abcde")
    a >> b >> c >> d >> b
    d >> e
    with pytest.raises(DagError, match=r"has a cycle: (b → c → d → b|c → d → b → c|d → b → c → d);") as error:
        dag.validate()
    assert "'d'" in str(error.value)


def test_a_task_after_itself_is_a_cycle(dag: DAG) -> None:
    (a,) = make(dag, "a")
    a >> a
    with pytest.raises(DagError, match="has a cycle: a → a"):
        dag.validate()


def test_topological_order_follows_the_edges_and_else_the_definition(dag: DAG) -> None:
    z, y, x, w, v = make(dag, *"zyxwv")
    v >> z
    x >> w
    assert dag.topological_order() == ["y", "x", "w", "v", "z"]
    z >> y
    assert dag.topological_order() == ["x", "w", "v", "z", "y"]


def test_a_long_chain_is_no_problem(dag: DAG) -> None:
    chain(*make(dag, *(f"t{number}" for number in range(3000))))
    dag.validate()
    assert dag.topological_order()[-1] == "t2999"
    assert len(dag.get_task("t0").get_flat_relative_ids()) == 2999


def test_a_task_that_does_not_exist_is_named_with_the_nearest_that_does(dag: DAG) -> None:
    make(dag, "extract", "load")
    with pytest.raises(DagError, match=r"has no task 'extrat' .did you mean 'extract'"):
        dag.get_task("extrat")


def test_references_in_any_template_field_make_edges(dag: DAG) -> None:
    a, b = make(dag, "a", "b")
    with dag:
        BashOperator(task_id="c", bash_command="echo", env={"x": a.output, "y": b.output["key"]})
    assert edges(dag) == {"a>c", "b>c"}


def test_a_task_added_to_a_second_dag_is_refused(dag: DAG) -> None:
    (a,) = make(dag, "a")
    with pytest.raises(DagError, match="'a' belongs to the DAG 'd' already"):
        DAG("other").add_task(a)
