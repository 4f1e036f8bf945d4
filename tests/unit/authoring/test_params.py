from __future__ import annotations

from typing import Any

import pytest

from backfill import DAG, Param
from backfill.dag.params import resolve_params
from backfill.exceptions import DagError, UsageError
from backfill.operators import EmptyOperator


def test_params_are_the_dags_then_the_tasks_then_the_runs() -> None:
    with DAG("d", params={"a": 1, "b": 1, "c": 1}) as dag:
        task = EmptyOperator(task_id="t", params={"b": 2, "c": 2})
    assert resolve_params(dag, task, {"c": 3, "new": 4}) == {"a": 1, "b": 2, "c": 3, "new": 4}
    assert resolve_params(dag, None, None) == {"a": 1, "b": 1, "c": 1}


def test_a_value_from_the_run_is_checked_against_the_schema_below_it() -> None:
    dag = DAG("d", params={"limit": Param(5, type="integer", minimum=1)})
    assert resolve_params(dag, None, {"limit": 9}) == {"limit": 9}
    with pytest.raises(
        UsageError, match="The param 'limit' is 0, which does not fit its schema: 0 is less than the minimum"
    ):
        resolve_params(dag, None, {"limit": 0})


def test_a_param_without_a_value_must_be_given() -> None:
    dag = DAG("d", params={"day": Param(type="string", format="date")})
    with pytest.raises(UsageError, match=r"The param 'day' has no value; give it with conf \(--conf"):
        resolve_params(dag, None, {})
    with pytest.raises(UsageError, match="is not a 'date'"):
        resolve_params(dag, None, {"day": "soon"})
    assert resolve_params(dag, None, {"day": "2024-01-01"}) == {"day": "2024-01-01"}


def test_a_schema_that_is_wrong_is_an_error_of_the_dag() -> None:
    dag = DAG("d", params={"x": Param(5, type="number of sorts")})
    with pytest.raises(DagError, match="The schema of the param 'x' is wrong"):
        resolve_params(dag, None, {})


def test_a_default_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(DagError, match="cannot be written as JSON"):
        Param({1, 2})


def test_a_tasks_own_schema_replaces_the_dags() -> None:
    with DAG("d", params={"x": Param(5, type="integer")}) as dag:
        task = EmptyOperator(task_id="t", params={"x": Param("five", type="string")})
    assert resolve_params(dag, task, {}) == {"x": "five"}


def test_params_read_like_a_mapping_of_values(dag: DAG) -> None:
    other = DAG("o", params={"x": Param(5, description="five"), "y": None})
    assert other.params["x"] == 5
    assert other.params.get_param("x").description == "five"
    assert dict(other.params) == {"x": 5, "y": None}
    assert "x" in other.params
    assert len(dag.params) == 0


def test_a_dag_declares_a_param_when_it_is_asked_for_one(dag: DAG, context: Any) -> None:
    reference = dag.param("x", 5)
    assert dag.params["x"] == 5
    task = EmptyOperator(task_id="t", dag=dag)
    assert reference.resolve(context(task, params={"x": 6})) == 6
    with pytest.raises(Exception, match="The run has no param 'x'"):
        reference.resolve(context(task))
