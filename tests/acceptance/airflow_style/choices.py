"""Branches, short circuits, trigger rules, setups and teardowns."""

from datetime import datetime

from backfill import DAG, TaskGroup, TriggerRule, chain, setup, task, teardown
from backfill.exceptions import AirflowFailException, AirflowSkipException
from backfill.operators import BashOperator, BranchPythonOperator, EmptyOperator, LatestOnlyOperator

with DAG("choices", schedule="@daily", start_date=datetime(2024, 1, 1)) as choices:

    @task.branch
    def weekday(day):
        return "left" if day == "2024-01-01" else ["right", "group"]

    @task.short_circuit
    def is_first(day):
        return day == "2024-01-01"

    left, right = EmptyOperator(task_id="left"), BashOperator(task_id="right", bash_command="echo right")
    with TaskGroup("group") as group:
        EmptyOperator(task_id="a") >> EmptyOperator(task_id="b")
    join = EmptyOperator(task_id="join", trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
    weekday("{{ ds }}") >> [left, right, group] >> join

    below = [BashOperator(task_id=f"below_{n}", bash_command="true") for n in (1, 2)]
    chain(is_first("{{ ds }}"), *below)
    below[1] >> EmptyOperator(task_id="cut_off", trigger_rule="all_done")

    LatestOnlyOperator(task_id="latest") >> [
        EmptyOperator(task_id="only_latest"),
        EmptyOperator(task_id="only_latest_too", trigger_rule="all_done"),
    ]

    @task
    def skips():
        raise AirflowSkipException("nothing today")

    @task(retries=3)
    def fails():
        raise AirflowFailException("for good")

    shell_skips = BashOperator(task_id="shell_skips", bash_command="exit 99")
    both = [skips(), fails()]
    for rule in TriggerRule:
        if rule != TriggerRule.ALL_DONE_SETUP_SUCCESS:
            both >> EmptyOperator(task_id=rule, trigger_rule=rule)
    shell_skips >> BranchPythonOperator(task_id="never_asked", python_callable=lambda: "nowhere")

with DAG("cluster", schedule="@daily", start_date=datetime(2024, 1, 1)) as cluster:

    @setup
    def create():
        return "cluster-1"

    @teardown(on_failure_fail_dagrun=True)
    def delete(name):
        return f"deleted {name}"

    @task
    def work(name):
        raise RuntimeError(f"{name} is on fire")

    @task
    def report():
        return "never"

    name = create()
    with delete(name):
        work(name) >> report()
