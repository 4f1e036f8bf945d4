from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from backfill import DAG
from backfill.exceptions import BackfillError, DagError
from backfill.operators import (
    BaseBranchOperator,
    BranchPythonOperator,
    EmptyOperator,
    LatestOnlyOperator,
    ShortCircuitOperator,
    SubDagOperator,
)


@pytest.fixture
def branched(dag: DAG) -> DAG:
    """Build branch → a → join, branch → b → join, branch → join, branch → c."""
    with dag:
        branch = BranchPythonOperator(task_id="branch", python_callable=lambda: None)
        a, b, c, join = (EmptyOperator(task_id=name) for name in ("a", "b", "c", "join"))
        branch >> [a, b] >> join
        branch >> [join, c]
    return dag


@pytest.mark.parametrize(
    ("choice", "skipped"),
    [
        ("a", ("b", "c")),
        (["a", "c"], ("b",)),
        (("join",), ("a", "b", "c")),
        ({"b"}, ("a", "c")),
        (None, ("a", "b", "c", "join")),
        ([], ("a", "b", "c", "join")),
    ],
)
def test_children_that_are_not_named_nor_behind_a_named_one_are_skipped(
    branched: DAG, choice: Any, skipped: tuple[str, ...]
) -> None:
    branch = branched.get_task("branch")
    assert branch.decides_skips == "children"
    assert branch.unmap(-1, {}).decide_skips(choice, {}) == skipped


def test_an_unknown_choice_fails_the_branch(branched: DAG) -> None:
    branch = branched.get_task("branch").unmap(-1, {})
    with pytest.raises(
        BackfillError, match=r"The branch 'branch' chose 'x', which is no task or group .* after it come a, b, c, join"
    ):
        branch.decide_skips("x", {})
    with pytest.raises(BackfillError, match="chose 5; it takes a task id"):
        branch.decide_skips(5, {})


def test_a_branch_of_ones_own_chooses_in_choose_branch(dag: DAG, prepare: Any) -> None:
    class Own(BaseBranchOperator):
        def choose_branch(self, context: Any) -> list[str]:
            return [context["params"]["side"]]

    with dag:
        Own(task_id="own") >> [EmptyOperator(task_id="left"), EmptyOperator(task_id="right")]
    operator, context = prepare(dag.get_task("own"), params={"side": "left"})
    assert operator.decide_skips(operator.execute(context), context) == ("right",)


def test_a_set_of_choices_becomes_a_list_that_can_be_an_xcom(dag: DAG, run: Any) -> None:
    assert run(BranchPythonOperator(task_id="b", python_callable=lambda: {"y", "x"}, dag=dag)) == ["x", "y"]


def test_a_short_circuit_decides_nothing_on_a_true_value(dag: DAG, prepare: Any) -> None:
    with dag:
        circuit = ShortCircuitOperator(task_id="circuit", python_callable=lambda: [0])
        circuit >> EmptyOperator(task_id="a")
    operator, context = prepare(circuit)
    result = operator.execute(context)
    assert result == [0]
    assert operator.decide_skips(result, context) == ()


@pytest.mark.parametrize(
    ("schedule", "days_ago", "run_type", "goes_on"),
    [
        ("@daily", 1, "backfill", True),
        ("@daily", 3, "backfill", False),
        ("@daily", 3, "manual", True),
        (timedelta(days=1), 1, "backfill", True),
        (timedelta(days=1), 5, "backfill", False),
        ("@once", 5, "backfill", True),
        (None, 5, "backfill", True),
    ],
)
def test_latest_only_goes_on_in_the_latest_run(
    prepare: Any, schedule: Any, days_ago: int, run_type: str, goes_on: bool
) -> None:
    with DAG("d", schedule=schedule):
        latest = LatestOnlyOperator(task_id="latest")
        latest >> EmptyOperator(task_id="a")
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start = today - timedelta(days=days_ago)
    interval = {"logical_date": start, "data_interval_start": start, "data_interval_end": start + timedelta(days=1)}
    operator, context = prepare(latest, dag_run=SimpleNamespace(run_type=run_type), **interval)
    assert operator.decide_skips(operator.execute(context), context) == (() if goes_on else ("a",))
    assert latest.decides_skips == "children"


def test_latest_only_over_a_list_of_dates_goes_on_until_the_next_of_them(prepare: Any) -> None:
    now = datetime.now(UTC)
    dates = [now - timedelta(days=2), now - timedelta(days=1), now + timedelta(days=1)]
    with DAG("d", schedule=dates):
        latest = LatestOnlyOperator(task_id="latest")
        latest >> EmptyOperator(task_id="a")
    skipped = []
    for date in dates[:2]:
        interval = {"logical_date": date, "data_interval_start": date, "data_interval_end": date}
        operator, context = prepare(latest, dag_run=SimpleNamespace(run_type="backfill"), **interval)
        skipped.append(operator.decide_skips(operator.execute(context), context))
    assert skipped == [("a",), ()]


def test_a_subdag_has_the_id_of_its_place_and_knows_its_parent(dag: DAG) -> None:
    child = DAG("d.child")
    with DAG("d.child.deeper") as deeper:
        EmptyOperator(task_id="x")
    with child:
        SubDagOperator(task_id="deeper", subdag=deeper)
    with dag:
        task = SubDagOperator(task_id="child", subdag=child, conf={"x": 1}, propagate_skipped_state="any_leaf")
    assert child.parent_dag is dag
    assert child.timetable == deeper.timetable == dag.timetable
    assert dag.subdags == [child, deeper]
    assert (task.conf, task.propagate_skipped_state) == ({"x": 1}, "any_leaf")
    assert task.decides_skips == "children"
    assert child.get_task("deeper").decides_skips == "no"


def test_a_subdag_with_another_id_is_an_error(dag: DAG) -> None:
    with dag, pytest.raises(DagError, match=r"The subdag of the task 'child' is named 'other'; name it 'd.child'"):
        SubDagOperator(task_id="child", subdag=DAG("other"))


def test_an_error_in_a_subdag_is_an_error_of_its_parent(dag: DAG) -> None:
    child = DAG("d.child")
    a = EmptyOperator(task_id="a", dag=child)
    a >> a
    SubDagOperator(task_id="child", subdag=child, dag=dag)
    with pytest.raises(DagError, match=r"'d.child' has a cycle"):
        dag.validate()
