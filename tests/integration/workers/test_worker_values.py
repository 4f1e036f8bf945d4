"""What reaches a task and what it leaves for others: XComs, templates, params, mappings, decisions, its environment."""

import os
from typing import Any

import sqlalchemy as sa
from worker_stage import Stage, states
from worker_tasks import RunOne, one_task

from backfill import DAG, get_current_context, task
from backfill.config import Settings
from backfill.messages import Attempt
from backfill.operators import BashOperator, BranchPythonOperator, PythonOperator
from workers.runner import Runner


def test_values_are_pulled_from_others(runner: Runner, engine: sa.Engine, settings: Settings) -> None:
    def pull(ti: Any) -> list[Any]:
        return [
            ti.xcom_pull(task_ids="one"),
            ti.xcom_pull(task_ids="many"),
            ti.xcom_pull(task_ids="many", map_indexes=1),
            ti.xcom_pull(task_ids=["one", "many"]),
            ti.xcom_pull(task_ids="nobody"),
            ti.xcom_pull(task_ids="nobody", default=0),
            ti.xcom_pull(task_ids="one", key="other"),
            ti.xcom_pull(task_ids="before"),
            ti.xcom_pull(task_ids="before", include_prior_dates=True),
            ti.xcom_pull(task_ids="before", run_id="backfill__2024-01-01T00:00:00+00:00"),
        ]

    with DAG("pulling") as dag:
        PythonOperator(task_id="one", python_callable=lambda: "single")
        PythonOperator.partial(task_id="many", python_callable=lambda n: n * 10).expand(op_args=[[0], [1], [2]])
        PythonOperator(task_id="before", python_callable=lambda: "yesterday")
        PythonOperator(task_id="pull", python_callable=pull)
    stage = Stage(engine, settings, dag)
    first = [stage.queue("before", day=0), stage.queue("one", day=1)]
    many = [stage.queue("many", map_index=index, day=1) for index in range(3)]
    last = stage.queue("pull", day=1)
    runner.run_bundle(stage.bundle(*first, *many, last))
    assert stage.xcoms(last)["return_value"] == [
        "single",
        [0, 10, 20],
        10,
        ["single", 0, 10, 20],
        None,
        0,
        None,
        None,
        "yesterday",
        "yesterday",
    ]


def test_templates_params_and_mapped_values_reach_the_task(
    runner: Runner, engine: sa.Engine, settings: Settings
) -> None:
    @task
    def numbers() -> list[int]:
        return [3, 4]

    @task
    def multiply(number: int, ds: str | None = None) -> str:
        return f"{number * 2} on {ds}"

    with DAG("shaped", params={"region": "north"}, schedule="@daily") as dag:
        multiply.expand(number=numbers())
        BashOperator(
            task_id="shell", bash_command="echo {{ params.region }} {{ ds }} {{ prev_ds }} $AIRFLOW_CTX_TASK_ID"
        )
    stage = Stage(engine, settings, dag, conf={"region": "south"})
    attempts = [
        stage.queue("numbers"),
        *(stage.queue("multiply", map_index=index) for index in range(2)),
        stage.queue("shell"),
    ]
    runner.run_bundle(stage.bundle(*attempts))
    assert states(stage, attempts) == ["success"] * 4
    values = [stage.xcoms(attempt)["return_value"] for attempt in attempts[1:]]
    assert values == ["6 on 2024-01-01", "8 on 2024-01-01", "south 2024-01-01 2023-12-31 shell"]


def test_a_branch_stores_its_decision(runner: Runner, engine: sa.Engine, settings: Settings) -> None:
    with DAG("branching") as dag:
        choose = BranchPythonOperator(task_id="choose", python_callable=lambda: "left")
        choose >> [PythonOperator(task_id=name, python_callable=print) for name in ("left", "right")]
    stage = Stage(engine, settings, dag)
    attempt = stage.queue("choose")
    runner.run_bundle(stage.bundle(attempt))
    assert stage.state(attempt) == "success"
    assert stage.column(attempt, "skips") == ["right"]


def test_a_task_that_feeds_a_mapping_fails_if_it_returns_nothing(
    runner: Runner, engine: sa.Engine, settings: Settings
) -> None:
    @task
    def numbers() -> None:
        return None

    with DAG("mapping") as dag:
        PythonOperator.partial(task_id="use", python_callable=print).expand(op_args=numbers())
    stage = Stage(engine, settings, dag)
    attempt = stage.queue("numbers")
    runner.run_bundle(stage.bundle(attempt))
    assert stage.row(attempt).state == "failed"
    assert "returned nothing" in str(stage.row(attempt).error)


def test_a_mapped_task_that_pushed_nothing_gives_an_empty_list(
    runner: Runner, engine: sa.Engine, settings: Settings
) -> None:
    with DAG("empty") as dag:
        many = PythonOperator.partial(task_id="many", python_callable=print).expand(op_args=[[1]])
        PythonOperator(task_id="pull", python_callable=lambda values: {"values": values}, op_args=[many.output])
    stage = Stage(engine, settings, dag)
    attempt = stage.queue("pull")
    runner.run_bundle(stage.bundle(attempt))
    assert stage.xcoms(attempt) == {"return_value": {"values": []}}


def test_rendering_does_not_change_the_dag_for_the_next_attempt(
    runner: Runner, engine: sa.Engine, settings: Settings
) -> None:
    with DAG("rendered") as dag:
        BashOperator(task_id="shell", bash_command="echo {{ ds }}")
    stage = Stage(engine, settings, dag)
    attempts = [stage.queue("shell", day=day) for day in range(2)]
    runner.run_bundle(stage.bundle(*attempts))
    assert [stage.xcoms(each)["return_value"] for each in attempts] == ["2024-01-01", "2024-01-02"]


def test_an_undefined_name_in_a_template_fails_the_attempt(run_one: RunOne) -> None:
    stage, attempt = run_one(print, op_args=["{{ nowhere }}"])
    assert stage.state(attempt) == "failed"
    assert "nowhere" in str(stage.row(attempt).error)


def test_xcoms_of_an_earlier_attempt_are_gone(runner: Runner, engine: sa.Engine, settings: Settings) -> None:
    def push() -> None:
        context = get_current_context()
        context["ti"].xcom_push(f"key{context['ti'].try_number}", 1)
        raise ValueError

    stage = Stage(engine, settings, one_task(push))
    attempt = stage.queue("load")
    runner.run_bundle(stage.bundle(attempt))
    assert stage.xcoms(attempt) == {"key1": 1}
    stage.set(attempt, state="queued", try_number=2)
    again = Attempt(attempt.task_instance_id, attempt.key, attempt.attempt_id, 2)
    runner.run_bundle(stage.bundle(again))
    assert stage.xcoms(attempt) == {"key2": 1}


def test_tasks_see_who_they_are_and_leave_no_trace(run_one: RunOne) -> None:
    before = dict(os.environ)
    stage, attempt = run_one(lambda: {name: value for name, value in os.environ.items() if "_CTX_" in name}, owner="me")
    assert stage.xcoms(attempt)["return_value"] == {
        "AIRFLOW_CTX_DAG_ID": "sales",
        "AIRFLOW_CTX_TASK_ID": "load",
        "AIRFLOW_CTX_EXECUTION_DATE": "2024-01-01T00:00:00+00:00",
        "AIRFLOW_CTX_TRY_NUMBER": "1",
        "AIRFLOW_CTX_DAG_RUN_ID": "backfill__2024-01-01T00:00:00+00:00",
        "AIRFLOW_CTX_DAG_OWNER": "me",
    }
    assert dict(os.environ) == before
