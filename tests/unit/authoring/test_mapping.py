from __future__ import annotations

from typing import Any

import pytest

from backfill import DAG, task, task_group
from backfill.dag import MappedOperator
from backfill.exceptions import BackfillError, DagError, SkipTask
from backfill.operators import BashOperator, EmptyOperator


@task
def source() -> list[int]:
    return [1, 2, 3]


@task
def other() -> list[int]:
    return [1, 2, 3]


@task
def echo(x: Any, y: Any = None) -> Any:
    return x, y


@task
def collect(values: Any) -> Any:
    return list(values)


def lengths(**by_task: int | None) -> Any:
    return lambda task_id, key: by_task.get(task_id) if key == "return_value" else None


def mapped(dag: DAG, task_id: str) -> MappedOperator:
    found = dag.get_task(task_id)
    assert isinstance(found, MappedOperator)
    return found


def test_a_literal_list_gives_one_instance_per_element(dag: DAG, run: Any) -> None:
    with dag:
        echo.expand(x=[10, "{{ ds }}"])
    found = mapped(dag, "echo")
    assert found.is_mapped
    assert (found.expand_input.literal_length(), found.expand_input.sources()) == (2, frozenset())
    assert [run(found, index) for index in range(2)] == [(10, None), ("2024-01-01", None)]


def test_a_literal_dict_gives_its_items(dag: DAG, run: Any) -> None:
    with dag:
        echo.expand(x={"a": 1, "b": 2})
    assert run(mapped(dag, "echo"), 1) == (("b", 2), None)


def test_several_arguments_multiply_and_the_last_varies_fastest(dag: DAG, run: Any) -> None:
    with dag:
        echo.expand(x=[1, 2], y=["a", "b", "c"])
    found = mapped(dag, "echo")
    assert found.expand_input.literal_length() == 6
    assert [run(found, index) for index in range(6)] == [(x, y) for x in (1, 2) for y in "abc"]


def test_the_output_of_a_task_gives_as_many_as_it_has_elements(dag: DAG, run: Any) -> None:
    with dag:
        echo.expand(x=source())
    found = mapped(dag, "echo")
    assert found.upstream_task_ids == {"source"}
    assert (found.expand_input.literal_length(), found.expand_input.sources()) == (None, frozenset({"source"}))
    assert found.expand_input.length(lengths(source=3)) == 3
    assert found.expand_input.length(lengths()) is None
    assert run(found, 2, {("source", "return_value"): [1, 2, "{{ ds }}"]}) == ("{{ ds }}", None)


def test_length_zero_is_a_length(dag: DAG) -> None:
    with dag:
        echo.expand(x=[])
        echo.expand(x=source(), y=[])
    assert mapped(dag, "echo").expand_input.literal_length() == 0
    assert mapped(dag, "echo__1").expand_input.length(lengths(source=3)) == 0


def test_partial_fixes_some_arguments(dag: DAG, run: Any) -> None:
    with dag:
        echo.partial(y=one_value()).expand(x=[1, 2])
    assert mapped(dag, "echo").upstream_task_ids == {"one_value"}
    assert run(mapped(dag, "echo"), 1, {("one_value", "return_value"): "z"}) == (2, "z")


@task
def one_value() -> str:
    return "z"


def test_expand_kwargs_takes_dicts_of_arguments(dag: DAG, run: Any) -> None:
    with dag:
        echo.expand_kwargs([{"x": 1}, {"x": "{{ ds }}", "y": 3}])
        echo.partial(y=0).expand_kwargs(source())
    assert mapped(dag, "echo").expand_input.literal_length() == 2
    assert run(mapped(dag, "echo"), 1) == ("2024-01-01", 3)
    assert run(mapped(dag, "echo__1"), 0, {("source", "return_value"): [{"x": "{{ ds }}"}]}) == ("{{ ds }}", 0)
    with pytest.raises(BackfillError, match="each element is a dict of arguments"):
        run(mapped(dag, "echo__1"), 0, {("source", "return_value"): [5]})


def test_the_outputs_of_tasks_can_be_members_of_a_literal_list(dag: DAG, run: Any) -> None:
    with dag:
        echo.expand(x=[one_value(), 2])
    found = mapped(dag, "echo")
    assert found.upstream_task_ids == {"one_value"}
    assert (found.expand_input.literal_length(), found.expand_input.sources()) == (2, frozenset())
    assert run(found, 0, {("one_value", "return_value"): "z"}) == ("z", None)


def test_map_passes_each_element_through_a_function(dag: DAG, run: Any) -> None:
    def only_even(number: int) -> int:
        if number % 2:
            raise SkipTask("odd")
        return number * 10

    with dag:
        echo.expand(x=source().map(only_even))
    found = mapped(dag, "echo")
    assert found.expand_input.length(lengths(source=3)) == 3
    assert run(found, 1, {("source", "return_value"): [1, 2, 3]}) == (20, None)
    with pytest.raises(SkipTask):
        run(found, 0, {("source", "return_value"): [1, 2, 3]})
    with pytest.raises(DagError, match="takes a plain function, not a task"):
        found.output.map(echo)


def test_zip_is_as_long_as_the_shortest_or_with_fill_value_the_longest(dag: DAG, run: Any) -> None:
    with dag:
        a, b = source(), other()
        echo.expand(x=a.zip(b))
        echo.expand(x=a.zip(b, fillvalue="-"))
    xcoms = {("source", "return_value"): [1, 2, 3], ("other", "return_value"): ["a"]}
    short, long = mapped(dag, "echo"), mapped(dag, "echo__1")
    assert short.expand_input.length(lengths(source=3, other=1)) == 1
    assert long.expand_input.length(lengths(source=3, other=1)) == 3
    assert run(short, 0, xcoms) == ((1, "a"), None)
    assert run(long, 2, xcoms) == ((3, "-"), None)
    assert short.expand_input.length(lengths(source=3)) is None


def test_a_dag_tells_which_values_are_mapped_over(dag: DAG) -> None:
    with dag:
        echo.expand(x=source().zip(other()["part"]), y=[1])
        section.expand(x=one_value().map(str))
    assert dag.mapping_sources() == {("source", "return_value"), ("other", "part"), ("one_value", "return_value")}


def test_concat_is_one_after_the_other(dag: DAG, run: Any) -> None:
    with dag:
        echo.expand(x=source().concat(other()))
    found = mapped(dag, "echo")
    assert found.expand_input.length(lengths(source=3, other=2)) == 5
    assert found.upstream_task_ids == {"source", "other"}
    xcoms = {("source", "return_value"): [1, 2, 3], ("other", "return_value"): ["a", "b"]}
    assert [run(found, index, xcoms)[0] for index in range(5)] == [1, 2, 3, "a", "b"]


def test_a_joined_output_can_be_an_ordinary_argument(dag: DAG, run: Any) -> None:
    with dag:
        collect(source().map(str).zip(other()))
    xcoms = {("source", "return_value"): [1, 2], ("other", "return_value"): ["a", "b"]}
    assert run(dag.get_task("collect"), xcoms=xcoms) == [("1", "a"), ("2", "b")]


def test_one_output_of_several_can_be_mapped_over(dag: DAG, run: Any) -> None:
    with dag:
        echo.expand(x=source()["parts"])
    found = mapped(dag, "echo")
    assert found.expand_input.length(lambda task_id, key: {("source", "parts"): 4}.get((task_id, key))) == 4
    assert run(found, 0, {("source", "parts"): ["p"]}) == ("p", None)


def test_the_output_of_a_mapped_task_is_a_sequence_to_others(dag: DAG, run: Any) -> None:
    with dag:
        first = echo.expand(x=[1, 2])
        collect(first)
        collect.expand(values=first)
    xcoms = {("echo", "return_value"): [[1, None], [2, None]]}
    assert run(dag.get_task("collect"), xcoms=xcoms) == [[1, None], [2, None]]
    assert run(dag.get_task("collect__1"), 1, xcoms) == [2, None]


@pytest.mark.parametrize("value", ["text", None, 5])
def test_a_value_that_cannot_be_mapped_over_is_named(dag: DAG, run: Any, value: Any) -> None:
    with dag, pytest.raises(DagError, match="it takes a list, a dict or the output of a task"):
        echo.expand(x=value)
    with dag:
        echo.expand(x=source())
    with pytest.raises(BackfillError, match=r"XComArg\('source'\) gave .* which cannot be mapped over"):
        run(mapped(dag, "echo"), 0, {("source", "return_value"): value})


def test_operators_are_mapped_with_partial_and_expand(dag: DAG, run: Any) -> None:
    with dag:
        BashOperator.partial(task_id="say", env={"GREET": "{{ ds }}"}, retries=2).expand(
            bash_command=["echo $GREET", "echo {{ ti.map_index }}"]
        )
        BashOperator.partial(task_id="repeat").expand(bash_command=source()) >> EmptyOperator(task_id="end")
    say = mapped(dag, "say")
    assert (say.retries, say.operator_name, say.template_fields) == (2, "BashOperator", ("bash_command", "env", "cwd"))
    assert [run(say, index) for index in range(2)] == ["2024-01-01", "1"]
    assert run(mapped(dag, "repeat"), 0, {("source", "return_value"): ["echo '{{ ds }}'"]}) == "{{ ds }}"
    assert dag.get_task("end").upstream_task_ids == {"repeat"}


def test_outputs_in_a_literal_list_are_pulled_for_operators_too(dag: DAG) -> None:
    with dag:
        BashOperator.partial(task_id="say").expand(bash_command=["echo a", one_value()])

    class TaskInstance:
        map_index = 1

        def xcom_pull(self, **names: Any) -> str:
            return "echo {{ ds }}"

    instance = dag.get_task("say").unmap(1, {"ti": TaskInstance()})
    instance.render_template_fields({"ds": "x"})
    assert isinstance(instance, BashOperator)
    assert instance.bash_command == "echo {{ ds }}"


def test_default_args_reach_mapped_tasks() -> None:
    with DAG("d", default_args={"retries": 4, "append_env": True, "nonsense": 1}) as dag:
        BashOperator.partial(task_id="say").expand(bash_command=["true"])
    found = mapped(dag, "say")
    assert found.retries == 4
    instance = found.unmap(0, {})
    assert isinstance(instance, BashOperator)
    assert instance.append_env
    assert instance.dag is dag


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (echo.expand, r"got no argument"),
        (lambda: echo.expand(z=[1]), "got the argument 'z', which the function does not take; it takes x, y"),
        (lambda: echo.partial(x=1).expand(x=[1]), "'x', which partial\\(\\) fixed already"),
        (lambda: echo.partial(z=1), "'z', which the function does not take"),
        (lambda: echo.partial(x=1).partial(x=2), "'x' twice"),
        (lambda: echo.expand(y=[1]), "missing a required argument: 'x'"),
        (lambda: echo.expand_kwargs([1]), "each is a dict of arguments"),
        (lambda: echo.expand_kwargs("x"), "a list of dicts or the output of a task"),
        (lambda: BashOperator.partial(task_id="a", command="x"), "'command', which it does not take"),
        (lambda: BashOperator.partial(task_id="a").expand(command=["x"]), "'command', which it does not take"),
        (lambda: BashOperator.partial(task_id="a").expand(retries=[1]), "'retries', which cannot differ"),
        (lambda: BashOperator.partial(task_id="a", env={}).expand(env=[{}]), "'env', which partial"),
    ],
)
def test_a_wrong_use_of_mapping_is_refused(dag: DAG, make: Any, message: str) -> None:
    with dag, pytest.raises(DagError, match=message):
        make()


@task_group
def section(x: Any, y: Any = 0) -> Any:
    return collect(echo(x, y))


def test_a_group_is_mapped_over_its_arguments(dag: DAG, run: Any) -> None:
    with dag:
        result = section.partial(y=source()["y"]).expand(x=[10, 20, "{{ ds }}"])
        collect.override(task_id="all")(result)
    inner = dag.get_task("section.echo")
    assert not inner.is_mapped
    assert [group.group_id for group in inner.mapped_groups] == ["section"]
    assert inner.mapped_groups[0].expand_input.literal_length() == 3
    xcoms = {("source", "y"): 7, ("section.echo", "return_value"): [[10], [20], [30]]}
    assert run(inner, 1, xcoms) == (20, 7)
    assert run(dag.get_task("section.collect"), 1, xcoms) == [20]
    outside = {("section.collect", "return_value"): [[1], [2], [3]]}
    assert run(dag.get_task("all"), xcoms=outside) == [[1], [2], [3]]


def test_a_group_comes_after_what_it_is_mapped_over(dag: DAG, run: Any) -> None:
    @task_group
    def parallel(x: int) -> None:
        EmptyOperator(task_id="first") >> echo(x)

    with dag:
        parallel.expand(x=source())
        section.expand_kwargs(source())
    assert dag.get_task("parallel.first").upstream_task_ids == {"source"}
    assert dag.get_task("parallel.echo").upstream_task_ids == {"source", "parallel.first"}
    assert dag.get_task("parallel.echo").mapped_groups[0].expand_input.sources() == {"source"}
    assert run(dag.get_task("parallel.echo"), 1, {("source", "return_value"): ["a", "{{ ds }}"]}) == ("{{ ds }}", None)
    assert run(dag.get_task("section.echo"), 0, {("source__1", "return_value"): [{"x": 1, "y": 2}]}) == (1, 2)


def test_mapped_groups_in_mapped_groups_multiply_and_the_inner_varies_fastest(dag: DAG, run: Any) -> None:
    @task_group
    def outer(a: int) -> None:
        before = echo.override(task_id="before")(a)

        @task_group
        def inner(b: str) -> None:
            echo.override(task_id="both")(a, b)
            collect.override(task_id="pulled")([before])

        inner.expand(b=["x", "y", "z"])
        collect.override(task_id="after")(dag.get_task("outer.inner.both").output)

    with dag:
        outer.expand(a=[1, 2])
    both = dag.get_task("outer.inner.both")
    assert [group.group_id for group in both.mapped_groups] == ["outer", "outer.inner"]
    assert [run(both, index) for index in range(6)] == [(a, b) for a in (1, 2) for b in "xyz"]
    assert run(dag.get_task("outer.inner.pulled"), 4, {("outer.before", "return_value"): ["p", "q"]}) == ["q"]
    assert run(dag.get_task("outer.after"), 1, {("outer.inner.both", "return_value"): list("abcdef")}) == [
        "d",
        "e",
        "f",
    ]


def test_a_mapped_task_in_a_mapped_group_is_refused(dag: DAG) -> None:
    @task_group
    def doubly(x: int) -> None:
        echo.partial(y=x).expand(x=[1])

    with dag, pytest.raises(DagError, match=r"'doubly.echo' is mapped inside of a mapped group"):
        doubly.expand(x=[1, 2])


def test_an_inner_group_may_not_be_mapped_over_a_task_of_the_outer(dag: DAG) -> None:
    @task_group
    def outer(a: int) -> None:
        section.expand(x=echo(a))

    with (
        dag,
        pytest.raises(
            DagError, match=r"'outer.section' is mapped over 'outer.echo', which is in the same mapped group"
        ),
    ):
        outer.expand(a=[1, 2])


def test_a_mapped_branch_decides_like_any_other(dag: DAG, prepare: Any) -> None:
    @task.branch
    def choose(x: str) -> str:
        return x

    with dag:
        choose.expand(x=["a", "b"]) >> [EmptyOperator(task_id="a"), EmptyOperator(task_id="b")]
    found = mapped(dag, "choose")
    assert found.decides_skips == "children"
    operator, context = prepare(found, 1)
    assert operator.decide_skips(operator.execute(context), context) == ("a",)
