from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from backfill import DAG, TaskGroup, TriggerRule
from backfill.exceptions import DagError
from backfill.operators import BaseOperator, BashOperator, EmptyOperator, PythonOperator
from backfill.states import WeightRule


def test_the_defaults_are_airflows(dag: DAG) -> None:
    task = EmptyOperator(task_id="a", dag=dag)
    assert (task.trigger_rule, task.weight_rule) == (TriggerRule.ALL_SUCCESS, WeightRule.DOWNSTREAM)
    assert (task.retries, task.retry_delay, task.pool, task.pool_slots) == (
        0,
        timedelta(seconds=300),
        "default_pool",
        1,
    )
    assert (task.queue, task.executor, task.execution_timeout) == (None, None, None)
    assert (task.depends_on_past, task.ignore_first_depends_on_past) == (False, True)
    assert task.do_xcom_push
    assert task.on_failure_callback == ()
    assert (dag.max_active_runs, dag.max_active_tasks, dag.catchup, dag.fail_stop) == (16, 16, True, False)


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("retries", "two", "a whole number from 0"),
        ("retries", True, "a whole number from 0"),
        ("retries", -1, "a whole number from 0"),
        ("retry_delay", "5 minutes", "a timedelta or seconds"),
        ("retry_delay", timedelta(-1), "a timedelta or seconds"),
        ("execution_timeout", 5, "a timedelta above zero"),
        ("pool_slots", 0, "a whole number from 1"),
        ("priority_weight", 1.5, "a whole number"),
        ("trigger_rule", "all_good", "one of all_success"),
        ("weight_rule", "sideways", "one of downstream"),
        ("max_active_tis_per_dag", 0, "a whole number from 1 or None"),
        ("depends_on_past", "yes", "True or False"),
        ("on_failure_callback", "mail", "a callable"),
        ("start_date", "2024-01-01", "a datetime or None"),
        ("params", ["x"], "a mapping"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_what_is_taken(dag: DAG, name: str, value: Any, takes: str) -> None:
    with pytest.raises(DagError) as error:
        EmptyOperator(task_id="a", dag=dag, **{name: value})
    assert f"{name}={value!r}" in str(error.value)
    assert takes in str(error.value)
    assert "'a' (EmptyOperator)" in str(error.value)


@pytest.mark.parametrize(
    ("alias", "rule"), [("dummy", "always"), ("none_failed_or_skipped", "none_failed_min_one_success")]
)
def test_older_names_of_trigger_rules_mean_the_newer(dag: DAG, alias: str, rule: str) -> None:
    assert EmptyOperator(task_id="a", dag=dag, trigger_rule=alias).trigger_rule == rule


def test_an_unknown_argument_is_named_with_the_nearest(dag: DAG) -> None:
    with pytest.raises(DagError, match="'retires', which it does not take; write retries if that is meant"):
        EmptyOperator(task_id="a", dag=dag, retires=2)  # type: ignore[call-arg]


def test_an_argument_of_airflow_without_effect_is_named_with_what_to_do(dag: DAG) -> None:
    with pytest.raises(DagError, match=r"'sla', which it does not take; .*use execution_timeout"):
        BashOperator(task_id="a", dag=dag, bash_command="true", sla=timedelta(1))  # type: ignore[call-arg]


def test_a_missing_argument_is_named(dag: DAG) -> None:
    with pytest.raises(DagError, match=r"'a' \(BashOperator\) needs the argument 'bash_command'"):
        BashOperator(task_id="a", dag=dag)  # type: ignore[call-arg]
    with pytest.raises(DagError, match="None cannot be a task id"):
        EmptyOperator(dag=dag)  # type: ignore[call-arg]


def test_positional_arguments_are_refused(dag: DAG) -> None:
    with pytest.raises(DagError, match="takes keyword arguments only"):
        EmptyOperator("a", dag=dag)  # type: ignore[misc,call-arg,arg-type]


@pytest.mark.parametrize("task_id", ["", "a b", "a/b", "x" * 251, 5])
def test_an_id_that_cannot_be_one_is_refused(dag: DAG, task_id: Any) -> None:
    with pytest.raises(DagError, match="cannot be a task id"):
        EmptyOperator(task_id=task_id, dag=dag)


def test_default_args_reach_every_argument_of_the_class_and_its_bases() -> None:
    with DAG("d", default_args={"retries": 2, "bash_command": "true", "email": "x@y", "owner": "me"}):
        task = BashOperator(task_id="a")  # type: ignore[call-arg]
        own = BashOperator(task_id="b", retries=5, bash_command="false")
    assert (task.retries, task.bash_command, task.owner) == (2, "true", "me")
    assert (own.retries, own.bash_command) == (5, "false")


def test_default_args_of_groups_go_over_the_dags_and_a_tasks_own_over_both() -> None:
    with (
        DAG("d", default_args={"retries": 1, "queue": "x", "owner": "a"}),
        TaskGroup("g", default_args={"retries": 2, "queue": "y"}),
    ):
        with TaskGroup("h", default_args={"retries": 3}):
            inner = EmptyOperator(task_id="t")
        own = EmptyOperator(task_id="u", default_args={"retries": 4})
    assert (inner.retries, inner.queue, inner.owner) == (3, "y", "a")
    assert own.retries == 4


class Doubling(BaseOperator):
    template_fields = ("text",)

    def __init__(self, *, text: str, times: int = 2, **kwargs: Any) -> None:
        super().__init__(retries=7, **kwargs)
        self.text = text
        self.times = times

    def execute(self, context: Any) -> str:
        return self.text * self.times


def test_a_subclass_passes_on_values_that_default_args_do_not_override() -> None:
    with DAG("d", default_args={"retries": 1, "times": 3}):
        task = Doubling(task_id="a", text="x")
    assert (task.retries, task.times) == (7, 3)


def test_a_subclass_is_rendered_and_executed(dag: DAG, run: Any) -> None:
    task = Doubling(task_id="a", text="{{ ds }} ", dag=dag)
    assert run(task) == "2024-01-01 2024-01-01 "
    assert task.text == "{{ ds }} "


def test_a_subclass_that_forgets_its_base_is_told_so(dag: DAG) -> None:
    class Forgetful(BaseOperator):
        def __init__(self, **kwargs: Any) -> None:
            pass

    with pytest.raises(DagError, match=r"Forgetful.__init__ does not call super\(\)"):
        Forgetful(task_id="a", dag=dag)


def test_a_template_field_that_is_never_set_is_named(dag: DAG) -> None:
    class Loose(BaseOperator):
        template_fields = ("missing",)

    with pytest.raises(DagError, match="names the template field 'missing'"):
        Loose(task_id="a", dag=dag)


def test_an_operator_can_be_an_abstract_class_too(dag: DAG) -> None:
    from abc import ABC, abstractmethod

    class Base(BaseOperator, ABC):
        @abstractmethod
        def work(self) -> int: ...

        def execute(self, context: Any) -> int:
            return self.work()

    class Derived(Base):
        def work(self) -> int:
            return 5

    assert Derived(task_id="a", dag=dag).execute({}) == 5


def test_wait_for_downstream_implies_depends_on_past(dag: DAG) -> None:
    assert EmptyOperator(task_id="a", dag=dag, wait_for_downstream=True).depends_on_past


def test_one_callback_and_a_list_of_them_are_both_tuples(dag: DAG) -> None:
    task = EmptyOperator(task_id="a", dag=dag, on_failure_callback=print, on_retry_callback=[print, repr])
    assert task.on_failure_callback == (print,)
    assert task.on_retry_callback == (print, repr)


def test_an_empty_operator_has_nothing_to_execute_unless_a_callback_is_due(dag: DAG) -> None:
    class Own(EmptyOperator):
        def execute(self, context: Any) -> int:
            return 1

    assert EmptyOperator(task_id="a", dag=dag, on_failure_callback=print).nothing_to_execute
    assert not EmptyOperator(task_id="b", dag=dag, on_success_callback=print).nothing_to_execute
    assert not EmptyOperator(task_id="c", dag=dag, on_execute_callback=print).nothing_to_execute
    assert not Own(task_id="e", dag=dag).nothing_to_execute
    assert not PythonOperator(task_id="f", dag=dag, python_callable=print).nothing_to_execute


def test_a_task_starts_no_earlier_and_ends_no_later_than_its_dag() -> None:
    day = [datetime(2024, 1, number, tzinfo=UTC) for number in range(1, 10)]
    with DAG("d", start_date=day[3], end_date=day[6]):
        plain = EmptyOperator(task_id="a")
        wider = EmptyOperator(task_id="b", start_date=day[0], end_date=day[8])
        narrower = EmptyOperator(task_id="c", start_date=day[4], end_date=day[5])
    assert (plain.start_date, plain.end_date) == (day[3], day[6])
    assert (wider.start_date, wider.end_date) == (day[3], day[6])
    assert (narrower.start_date, narrower.end_date) == (day[4], day[5])


def test_a_dag_has_the_zone_of_its_start_date_and_dates_in_utc() -> None:
    dag = DAG("d", start_date=datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")))
    assert dag.timezone == ZoneInfo("Europe/Berlin")
    assert dag.start_date == datetime(2023, 12, 31, 23, tzinfo=UTC)
    assert DAG("d", start_date=datetime(2024, 1, 1)).timezone is UTC  # noqa: DTZ001  # naive dates are UTC
    assert DAG("d", default_args={"start_date": datetime(2024, 1, 1, tzinfo=UTC)}).start_date == datetime(
        2024, 1, 1, tzinfo=UTC
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_active_runs": 0}, "max_active_runs=0; it takes a whole number from 1"),
        ({"dagrun_timeout": 5}, "dagrun_timeout=5; it takes a timedelta"),
        ({"start_date": "2024-01-01"}, "start_date='2024-01-01'; it takes a datetime"),
        ({"schedule_interval": "@daily"}, "'schedule_interval', which it does not take; write schedule"),
        ({"schedul": "@daily"}, "'schedul', which it does not take"),
        ({"user_defined_filters": {"x": 1}}, "user_defined_filters"),
    ],
)
def test_a_wrong_argument_of_a_dag_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DagError) as error:
        DAG("d", **arguments)
    assert message in str(error.value)


def test_fail_stop_allows_no_rule_but_the_plain_ones() -> None:
    with DAG("d", fail_stop=True) as dag:
        EmptyOperator(task_id="a") >> EmptyOperator(task_id="b").as_teardown()
    dag.validate()
    EmptyOperator(task_id="c", dag=dag, trigger_rule="one_done")
    with pytest.raises(
        DagError, match="has fail_stop, so that its task 'c' must have the trigger rule 'all_success', not 'one_done'"
    ):
        dag.validate()


def test_pre_and_post_execute_are_arguments_or_methods(dag: DAG) -> None:
    seen: list[Any] = []
    task = EmptyOperator(
        task_id="a", dag=dag, pre_execute=seen.append, post_execute=lambda context, result: seen.append(result)
    )
    task.pre_execute({"x": 1})
    task.post_execute({}, 5)
    assert seen == [{"x": 1}, 5]
