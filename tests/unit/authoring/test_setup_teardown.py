from __future__ import annotations

from typing import Any

import pytest

from backfill import DAG, setup, task, teardown
from backfill.exceptions import DagError
from backfill.operators import EmptyOperator
from backfill.states import TriggerRule


def edges(dag: DAG) -> set[str]:
    return {f"{task.task_id}>{child}" for task in dag.tasks for child in task.downstream_task_ids}


def empty(task_id: str, **arguments: Any) -> EmptyOperator:
    return EmptyOperator(task_id=task_id, **arguments)


@task
def work() -> None: ...


@setup
def create() -> None: ...


@teardown
def delete() -> None: ...


@teardown(on_failure_fail_dagrun=True)
@task(retries=2)
def strict() -> None: ...


def test_a_teardown_takes_its_setups_and_the_rule_of_teardowns(dag: DAG) -> None:
    with dag:
        first, second, end = empty("first"), empty("second"), empty("end", trigger_rule="all_done")
        end.as_teardown(setups=[first, second], on_failure_fail_dagrun=True)
    assert first.is_setup
    assert second.is_setup
    assert end.is_teardown
    assert end.on_failure_fail_dagrun
    assert end.trigger_rule is TriggerRule.ALL_DONE_SETUP_SUCCESS
    assert edges(dag) == {"first>end", "second>end"}


def test_outputs_can_be_marked_too(dag: DAG) -> None:
    with dag:
        start = work()
        start >> work() >> work().as_teardown(setups=start)
    assert dag.get_task("work").is_setup
    assert dag.get_task("work__2").is_teardown
    assert edges(dag) == {"work>work__1", "work__1>work__2", "work>work__2"}


def test_decorated_functions_make_setups_and_teardowns(dag: DAG) -> None:
    with dag:
        create() >> work() >> [delete(), strict()]
    assert dag.get_task("create").is_setup
    assert dag.get_task("delete").is_teardown
    assert not dag.get_task("delete").on_failure_fail_dagrun
    assert dag.get_task("strict").on_failure_fail_dagrun
    assert dag.get_task("strict").retries == 2
    with dag:
        assert create.override(task_id="other")().operator.is_setup
    with pytest.raises(DagError, match="@setup got 5"):
        setup(5)  # type: ignore[arg-type]


def test_what_is_made_inside_of_with_stands_between_setup_and_teardown(dag: DAG) -> None:
    with dag, empty("end").as_teardown(setups=empty("start")):
        empty("a") >> empty("b")
        empty("c")
    assert edges(dag) == {"start>end", "start>a", "a>b", "b>end", "start>c", "c>end"}


def test_with_of_a_setup_and_of_an_output_do_the_same(dag: DAG) -> None:
    with dag:
        start = create()
        start >> delete()
        with start:
            work()
    assert edges(dag) == {"create>delete", "create>work", "work>delete"}


def test_scopes_can_be_nested(dag: DAG) -> None:
    with dag, empty("t1").as_teardown(setups=empty("s1")):
        empty("a")
        with empty("t2").as_teardown(setups=empty("s2")):
            empty("b")
    assert edges(dag) == {"s1>t1", "s1>a", "a>t1", "s1>s2", "s2>t2", "s2>b", "b>t2", "t2>t1"}


def test_a_task_made_before_can_be_added_to_the_scope(dag: DAG) -> None:
    with dag:
        early = work()
        with empty("t").as_teardown(setups=empty("s")) as scope:
            scope.add_task(early)
    assert edges(dag) == {"s>t", "s>work", "work>t"}


def test_mapped_tasks_belong_to_the_scope_too(dag: DAG) -> None:
    @task
    def each(x: int) -> None: ...

    with dag, empty("t").as_teardown(setups=empty("s")):
        each.expand(x=[1, 2])
    assert edges(dag) == {"s>t", "s>each", "each>t"}


def test_with_of_another_task_is_refused(dag: DAG) -> None:
    plain = empty("a", dag=dag)
    with pytest.raises(DagError, match="'a' is neither setup nor teardown"), plain:
        pass


def test_what_comes_directly_after_a_setup_must_wait_for_its_success(dag: DAG) -> None:
    with dag:
        start = empty("start").as_setup()
        start >> empty("end").as_teardown()
        start >> empty("a") >> empty("b", trigger_rule="all_done")
    dag.validate()
    start >> dag.get_task("b")
    with pytest.raises(
        DagError, match="'b' comes directly after the setup 'start' and has the trigger rule 'all_done'"
    ):
        dag.validate()
