from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import pytest

from backfill import DAG, XComArg, dag as dag_decorator, get_current_context, task
from backfill.dag.context import context_of_task
from backfill.exceptions import BackfillError, DagError
from backfill.operators import BashOperator, EmptyOperator, PythonOperator


@task
def one() -> int:
    return 1


@task
def add(x: int, y: int = 0) -> int:
    return x + y


def test_a_call_makes_a_task_and_returns_its_output(dag: DAG, run: Any) -> None:
    with dag:
        output = add(1, y=2)
    assert isinstance(output, XComArg)
    assert dag.task_ids == ["add"]
    assert run(dag.get_task("add")) == 3


def test_each_further_call_makes_a_task_with_a_number(dag: DAG) -> None:
    with dag:
        add(1), add(2), add(3)
    assert dag.task_ids == ["add", "add__1", "add__2"]


def test_outputs_as_arguments_make_edges_and_arrive_as_values(dag: DAG, run: Any) -> None:
    @task
    def total(values: list[int], named: dict[str, Any]) -> Any:
        return sum(values) + named["deep"][0]["x"]

    with dag:
        a, b, c = one(), one(), one()
        total([a, b, 10], {"deep": [{"x": c}]})
    assert dag.get_task("total").upstream_task_ids == {"one", "one__1", "one__2"}
    xcoms = {("one", "return_value"): 1, ("one__1", "return_value"): 2, ("one__2", "return_value"): 3}
    assert run(dag.get_task("total"), xcoms=xcoms) == 16


def test_outputs_and_tasks_can_be_connected(dag: DAG) -> None:
    with dag:
        start = EmptyOperator(task_id="start")
        start >> one() >> [add(1), EmptyOperator(task_id="end")]
    assert dag.get_task("one").upstream_task_ids == {"start"}
    assert dag.get_task("one").downstream_task_ids == {"add", "end"}


def test_arguments_are_rendered_but_values_of_other_tasks_are_not(dag: DAG, run: Any) -> None:
    @task
    def words(*parts: str) -> list[str]:
        return list(parts)

    with dag:
        words("{{ ds }}", one())
    assert run(dag.get_task("words"), xcoms={("one", "return_value"): "{{ ds }}"}) == ["2024-01-01", "{{ ds }}"]


def test_override_changes_the_operator_and_leaves_the_function_as_it_was(dag: DAG) -> None:
    with dag:
        add.override(task_id="sum", retries=3)(1)
        add(2)
    assert dag.get_task("sum").retries == 3
    assert dag.get_task("add").retries == 0
    with pytest.raises(DagError, match=r"override\(\) got the argument 'retires'"):
        add.override(retires=3)


def test_arguments_of_the_decorator_go_to_the_operator(dag: DAG) -> None:
    @task(task_id="x", retries=2, pool="p")
    def function() -> None: ...

    with dag:
        function()
    assert (dag.get_task("x").retries, dag.get_task("x").pool) == (2, "p")
    with pytest.raises(DagError, match=r"@task of one\(\) got the argument 'pol'"):
        task(pol="x")(one.function)


def test_a_call_that_the_function_cannot_take_is_refused(dag: DAG) -> None:
    with (
        dag,
        pytest.raises(DagError, match=r"@task add\(\) cannot be called like this: missing a required argument: 'x'"),
    ):
        add()
    with dag, pytest.raises(DagError, match="unexpected keyword argument 'z'"):
        add(1, z=2)
    assert dag.task_ids == []


def test_names_of_the_context_arrive_if_the_function_takes_them(dag: DAG, run: Any) -> None:
    @task
    def wants(x: int, ds: str, ti: Any = None, *, params: Any) -> Any:
        return x, ds, ti.task_id, params

    @task
    def wants_all(**context: Any) -> Any:
        return context["ds"], context["ti"].task_id

    with dag:
        wants(5)
        wants_all()
    assert run(dag.get_task("wants"), params={"a": 1}) == (5, "2024-01-01", "wants", {"a": 1})
    assert run(dag.get_task("wants_all")) == ("2024-01-01", "wants_all")


def test_the_current_context_is_that_of_the_running_task() -> None:
    with pytest.raises(BackfillError, match="outside of a running task"):
        get_current_context()
    token = context_of_task.set({"ds": "2024-01-01"})
    assert get_current_context()["ds"] == "2024-01-01"
    context_of_task.reset(token)


class Typed(TypedDict):
    x: int


def plain() -> dict[str, int]: ...  # type: ignore[empty-body]
def bare() -> dict: ...  # type: ignore[type-arg,empty-body]
def abstract() -> Mapping[str, Any]: ...  # type: ignore[empty-body]
def typed() -> Typed: ...  # type: ignore[empty-body]
def numbered() -> dict[int, int]: ...  # type: ignore[empty-body]
def text() -> str: ...  # type: ignore[empty-body]
def silent(): ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("function", "expected"),
    [(plain, True), (bare, True), (abstract, True), (typed, True), (numbered, False), (text, False), (silent, False)],
)
def test_a_function_that_returns_a_dict_has_multiple_outputs(dag: DAG, function: Any, expected: bool) -> None:
    with dag:
        output = task(function)()
        other = task(multiple_outputs=not expected)(function)()
    assert output.operator.multiple_outputs is expected
    assert other.operator.multiple_outputs is not expected


def test_one_output_of_several_is_taken_by_its_key(dag: DAG, run: Any) -> None:
    with dag:
        add(one()["left"])
    assert run(dag.get_task("add"), xcoms={("one", "left"): 4}) == 4


def test_an_output_inside_of_a_text_is_a_template_that_pulls_it(dag: DAG, run: Any) -> None:
    with dag:
        output = one()
        BashOperator(task_id="say", bash_command=f"echo got {output}") << output
    assert run(dag.get_task("say"), xcoms={("one", "return_value"): 7}) == "got 7"


def test_an_output_cannot_be_iterated_over_when_the_dag_is_made(dag: DAG) -> None:
    with dag, pytest.raises(TypeError, match=r"cannot be iterated over here; use .expand\(\)"):
        list(one())


def test_a_branch_names_what_comes_next(dag: DAG, run: Any, prepare: Any) -> None:
    @task.branch
    def choose() -> str:
        return "left"

    with dag:
        choose() >> [EmptyOperator(task_id="left"), EmptyOperator(task_id="right")]
    branch = dag.get_task("choose")
    assert branch.decides_skips == "children"
    operator, context = prepare(branch)
    assert operator.decide_skips(operator.execute(context), context) == ("right",)


def test_a_short_circuit_skips_all_or_the_direct_children(dag: DAG, prepare: Any) -> None:
    @task.short_circuit
    def hard() -> bool:
        return False

    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def soft() -> bool:
        return False

    with dag:
        for circuit in (hard(), soft()):
            (
                circuit
                >> EmptyOperator(task_id=f"a_{circuit.operator.task_id}")
                >> EmptyOperator(task_id=f"b_{circuit.operator.task_id}")
            )
        dag.get_task("b_hard") >> EmptyOperator(task_id="end").as_teardown()
    assert (dag.get_task("hard").decides_skips, dag.get_task("soft").decides_skips) == ("downstream", "children")
    operator, context = prepare(dag.get_task("hard"))
    assert operator.decide_skips(operator.execute(context), context) == ("a_hard", "b_hard")
    assert operator.decide_skips(True, context) == ()
    operator, context = prepare(dag.get_task("soft"))
    assert operator.decide_skips(operator.execute(context), context) == ("a_soft",)


def test_a_function_under_task_bash_returns_the_command_which_is_rendered(dag: DAG, run: Any) -> None:
    @task.bash(env={"WHO": "{{ ds }}"})
    def command(word: str) -> str:
        return f"echo {word} {{{{ ds }}}} $WHO"

    with dag:
        command("hello")
    assert run(dag.get_task("command")) == "hello 2024-01-01 2024-01-01"


def test_a_function_under_task_sensor_is_poked(dag: DAG, run: Any) -> None:
    @task.sensor(poke_interval=0, timeout=60)
    def there(answers: list[bool]) -> bool:
        return answers.pop()

    with dag:
        there([True, False, False])
    assert run(dag.get_task("there")) is None


def test_a_function_under_dag_makes_a_dag_and_its_arguments_are_params(run: Any) -> None:
    @dag_decorator(schedule="@daily", tags=["b", "a"])
    def pipeline(region: str = "north", limit: int = 5) -> None:
        """What it does."""
        add(limit, region)

    made = pipeline(limit=7)
    assert (made.dag_id, made.tags, made.doc_md) == ("pipeline", ("a", "b"), "What it does.")
    assert dict(made.params) == {"region": "north", "limit": 7}
    assert run(made.get_task("add"), params={"region": 2, "limit": 40}) == 42
    assert made.fileloc == __file__


def test_dag_and_task_can_be_used_bare_or_with_an_id(dag: DAG) -> None:
    @dag_decorator
    def bare_dag() -> None: ...

    @dag_decorator("named")
    def other() -> None: ...

    assert (bare_dag().dag_id, other().dag_id) == ("bare_dag", "named")
    with dag:
        task.python(one.function)()
    assert isinstance(dag.get_task("one"), PythonOperator)
