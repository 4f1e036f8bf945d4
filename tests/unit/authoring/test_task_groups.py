from __future__ import annotations

from typing import Any

import pytest

from backfill import DAG, TaskGroup, chain, task, task_group
from backfill.exceptions import DagError
from backfill.operators import BranchPythonOperator, EmptyOperator


def empty(task_id: str, **arguments: Any) -> EmptyOperator:
    return EmptyOperator(task_id=task_id, **arguments)


def edges(dag: DAG) -> set[str]:
    return {f"{task.task_id}>{child}" for task in dag.tasks for child in task.downstream_task_ids}


def test_ids_carry_the_prefixes_of_their_groups(dag: DAG) -> None:
    with dag, TaskGroup("g"):
        empty("a")
        with TaskGroup("h"):
            empty("b")
    assert dag.task_ids == ["g.a", "g.h.b"]
    assert list(dag.task_groups) == ["g", "g.h"]
    assert dag.get_task("g.h.b").label == "b"


def test_in_a_group_without_prefix_ids_are_as_they_are_given_whatever_is_around_it(dag: DAG) -> None:
    with dag, TaskGroup("g", prefix_group_id=False):
        empty("a")
        with TaskGroup("h"):
            empty("b")
    with dag, TaskGroup("o"), TaskGroup("p", prefix_group_id=False):
        empty("c")
        with TaskGroup("q"):
            empty("d")
    assert dag.task_ids == ["a", "h.b", "c", "q.d"]
    assert list(dag.task_groups) == ["g", "h", "o", "o.p", "q"]
    assert dag.get_task("c").label == "c"


def test_edges_of_a_group_are_those_of_its_first_and_last_tasks(dag: DAG) -> None:
    with dag:
        start, end = empty("start"), empty("end")
        with TaskGroup("g") as group:
            empty("a") >> [empty("b"), empty("c")]
        start >> group >> end
    assert edges(dag) == {"start>g.a", "g.a>g.b", "g.a>g.c", "g.b>end", "g.c>end"}


def test_groups_and_lists_of_groups_are_connected_with_each_other(dag: DAG) -> None:
    with dag:
        groups = []
        for name in "ghi":
            with TaskGroup(name) as group:
                empty("x") >> empty("y")
            groups.append(group)
        groups[0] >> [groups[1], groups[2]]
        chain(groups[1], groups[2])
    assert edges(dag) >= {"g.y>h.x", "g.y>i.x", "h.y>i.x"}


def test_the_last_tasks_of_a_group_are_never_teardowns(dag: DAG) -> None:
    with dag:
        with TaskGroup("g") as group:
            setup, work, teardown = empty("s").as_setup(), empty("w"), empty("t")
            setup >> work >> teardown.as_teardown(setups=setup)
        group >> empty("after")
    assert dag.get_task("after").upstream_task_ids == {"g.w"}


def test_a_group_id_that_is_taken_is_refused_or_gets_a_number(dag: DAG) -> None:
    with dag:
        TaskGroup("g")
        empty("a")
        with pytest.raises(DagError, match="has a task group 'g' already"):
            TaskGroup("g")
        with pytest.raises(DagError, match="has a task 'a' already"):
            TaskGroup("a")
        assert TaskGroup("g", add_suffix_on_collision=True).group_id == "g__1"
        with pytest.raises(DagError, match=r"'a.b' cannot be a group id"):
            TaskGroup("a.b")
    with pytest.raises(DagError, match="'x' belongs to no DAG"):
        TaskGroup("x")


def test_a_group_outside_of_with_is_found_by_its_dag(dag: DAG) -> None:
    group = TaskGroup("g", dag=dag)
    task_in_it = empty("a", task_group=group)
    assert task_in_it.task_id == "g.a"
    assert task_in_it.dag is dag
    assert group.has_task(task_in_it)


def test_a_function_under_task_group_makes_a_group_each_time(dag: DAG) -> None:
    @task
    def load(x: Any) -> Any:
        return x

    @task_group
    def section(x: int) -> Any:
        """What it does."""
        return load(load(x))

    @task_group(group_id="named", prefix_group_id=False)
    def other() -> None:
        empty("free")

    with dag:
        section(1) >> section(2)
        assert isinstance(other(), TaskGroup)
        section.override(group_id="renamed")(3)
    assert dag.task_ids == [
        "section.load", "section.load__1", "section__1.load", "section__1.load__1", "free", "renamed.load", "renamed.load__1",
    ]  # fmt: skip
    assert dag.get_task("section.load__1").downstream_task_ids == {"section__1.load__1"}
    assert dag.task_groups["section"].tooltip == "What it does."


def test_a_branch_that_names_a_group_goes_on_with_its_first_tasks(dag: DAG, prepare: Any) -> None:
    with dag:
        branch = BranchPythonOperator(task_id="branch", python_callable=lambda: "g")
        with TaskGroup("g") as group:
            empty("a") >> empty("b")
            empty("c")
        other = empty("other")
        branch >> [group, other]
    operator, context = prepare(branch)
    assert operator.decide_skips(operator.execute(context), context) == ("other",)
