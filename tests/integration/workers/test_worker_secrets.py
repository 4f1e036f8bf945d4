# ruff: noqa: T201  # tasks print
"""What a task prints or raises of its connections, variables, conf and params is masked, in its log, its row and its event."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from worker_stage import Stage
from worker_tasks import Events

from backfill import DAG, Param
from backfill.config import Settings
from backfill.messages import Attempt
from backfill.operators import BashOperator, PythonOperator
from workers.runner import Runner

PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----"
ENVIRONMENT = {
    "AIRFLOW_CONN_SALES": "postgres://ann:pw-conn%2Furi%21@db.example/sales?api_key=pw-conn-query",
    "AIRFLOW_CONN_STOCK": json.dumps(
        {"conn_type": "http", "host": "api.example", "password": 'pw"conn-json', "extra": {"token": "pw-conn-extra"}}
    ),
    "AIRFLOW_VAR_STOCK_API_KEY": "pw-variable",
    "AIRFLOW_VAR_SIGNING_PRIVATE_KEY": PEM,
    "AIRFLOW_VAR_SETUP": json.dumps({"region": "north", "passwd": "pw-within-variable"}),
    "AIRFLOW_VAR_REGION": "plain-region",
    "AIRFLOW_VAR_USE_TOKEN": "true",
}
CONF = {"region": "plain-conf", "nested": [{"client_secret": ["pw-conf"]}], "pin": 1}


def of_environment() -> str:
    return " ".join([*(os.environ[name] for name in ENVIRONMENT), "pw-conn/uri!", 'pw"conn-json'])


def of_conf(dag_run: Any, params: Any) -> str:
    return f"{dag_run.conf} {dict(params)} pw-conf pw-default pw-of-task"


def raising(text_of: Callable[..., str]) -> Callable[..., None]:
    def fail(**context: Any) -> None:
        names = text_of.__code__.co_varnames[: text_of.__code__.co_argcount]
        raise ValueError(text_of(**{name: context[name] for name in names}))

    return fail


def telling(**context: Any) -> None:
    for text in (of_environment(), of_conf(context["dag_run"], context["params"])):
        print(text)
        logging.getLogger("task").info("%s", text)


def tell_by_template(said: str) -> None:
    print(said)


def quoting_its_own() -> None:
    os.environ["AIRFLOW_CONN_OWN"] = "http://me:pw-own@host"
    raise ValueError(os.environ["AIRFLOW_CONN_OWN"])


def a_dag() -> DAG:
    with DAG("sales", start_date=datetime(2024, 1, 1, tzinfo=UTC), params={"db_password": Param("pw-default")}) as dag:
        PythonOperator(task_id="tells", python_callable=telling, params={"auth_token": "pw-of-task"})
        PythonOperator(task_id="environment", python_callable=raising(of_environment))
        PythonOperator(task_id="conf", python_callable=raising(of_conf), params={"auth_token": "pw-of-task"}, retries=1)
        PythonOperator(
            task_id="templates",
            python_callable=tell_by_template,
            op_args=["{{ conn.sales.password }} {{ conn.stock.get_uri() }} {{ var.value.stock_api_key }} {{ conf }}"],
        )
        BashOperator(
            task_id="own_command",
            bash_command="echo $AIRFLOW_CONN_OWN $AIRFLOW_VAR_OWN_TOKEN",
            env={"AIRFLOW_CONN_OWN": "http://me:{{ 'pw-' ~ ds }}@host", "AIRFLOW_VAR_OWN_TOKEN": "pw-own"},
        )
        PythonOperator(task_id="own_variable", python_callable=quoting_its_own)
        BashOperator(task_id="shell", bash_command='echo "$AIRFLOW_CONN_SALES $AIRFLOW_VAR_STOCK_API_KEY"')
    return dag


@pytest.fixture
def run(engine: sa.Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[str, str]]:
    """Return a function that runs a task and returns its log, and all that is told of its error elsewhere."""

    def run(task_id: str) -> tuple[str, str]:
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        stage = Stage(engine, settings, a_dag(), conf=CONF)
        events = Events()
        runner = Runner(engine=engine, settings=settings, publish=events.publish, hostname="worker-1@host")
        try:
            attempt: Attempt = stage.queue(task_id)
            ends = runner.run_bundle(stage.bundle(attempt))
        finally:
            runner.end()
        told = [stage.row(attempt).error, *(event.info for event in events), *(end.error for end in ends)]
        return stage.log(attempt), "\n".join(map(str, told))

    return run


Run = Callable[[str], tuple[str, str]]


def hides_secrets(text: str) -> None:
    for secret in ("pw-", 'pw"', "pw%22", "MIIEvQ", "hkiG9w0"):
        assert secret not in text, text


def test_what_a_task_prints_of_them_is_masked_in_its_log(run: Run) -> None:
    log, _ = run("tells")
    hides_secrets(log)
    assert log.rstrip().endswith("The task succeeded")


def test_what_is_no_secret_stays(run: Run) -> None:
    log, _ = run("tells")
    for text in ("postgres://ann:***@db.example/sales", "plain-region", "true", '"region": "north"', "plain-conf"):
        assert text in log


def test_an_error_that_quotes_a_connection_which_the_task_has_set_itself_is_masked(run: Run) -> None:
    log, told = run("own_variable")
    hides_secrets(log + told)
    assert "ValueError: http://me:***@host" in log
    assert told.count("ValueError: http://me:***@host") == 3


@pytest.mark.parametrize("task_id", ["environment", "conf"])
def test_errors_that_quote_them_are_masked_in_log_row_and_event(task_id: str, run: Run) -> None:
    log, told = run(task_id)
    hides_secrets(log)
    hides_secrets(told)
    assert told.count("ValueError: ") == 3
    assert "***" in told


@pytest.mark.parametrize("task_id", ["templates", "shell", "own_command"])
def test_what_templates_and_commands_make_of_them_is_masked(task_id: str, run: Run) -> None:
    log, _ = run(task_id)
    hides_secrets(log)
    assert "***" in log


def test_what_one_attempt_learned_is_not_masked_for_the_next(engine: sa.Engine, settings: Settings) -> None:
    with DAG("sales", start_date=datetime(2024, 1, 1, tzinfo=UTC)) as dag:
        PythonOperator(task_id="first", python_callable=lambda: print("ordinary"), params={"token": "ordinary"})
        PythonOperator(task_id="second", python_callable=lambda: print("ordinary"))
    stage = Stage(engine, settings, dag)
    runner = Runner(engine=engine, settings=settings, publish=Events().publish, hostname="worker-1@host")
    try:
        attempts = [stage.queue(task_id) for task_id in ("first", "second")]
        runner.run_bundle(stage.bundle(*attempts))
    finally:
        runner.end()
    assert [("ordinary" in stage.log(attempt)) for attempt in attempts] == [False, True]
