from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from backfill import DAG
from backfill.dag.templates import render
from backfill.exceptions import DagError, SkipTask
from backfill.operators import BashOperator, PythonOperator


def test_texts_are_rendered_wherever_they_are(dag: DAG) -> None:
    value = {"a": ["{{ ds }}", ("{{ n + 1 }}", 5)], "b": {"{{ ds }}"}, "{{ ds }}": None}
    rendered = render(value, {"ds": "d1", "n": 1}, dag)
    assert rendered == {"a": ["d1", ("2", 5)], "b": {"d1"}, "{{ ds }}": None}
    assert value["a"] == ["{{ ds }}", ("{{ n + 1 }}", 5)]


def test_named_tuples_stay_what_they_are(dag: DAG) -> None:
    class Pair(NamedTuple):
        left: str
        right: int

    assert render(Pair("{{ ds }}", 1), {"ds": "x"}, dag) == Pair("x", 1)


def test_objects_with_template_fields_are_rendered_as_copies(dag: DAG) -> None:
    class Query:
        template_fields = ("sql",)
        sql = "select {{ ds }}"

    query = Query()
    assert render([query], {"ds": 1}, dag)[0].sql == "select 1"
    assert query.sql == "select {{ ds }}"


def test_an_undefined_name_is_an_error_that_names_field_and_task(dag: DAG, prepare: Any) -> None:
    task = BashOperator(task_id="say", bash_command="echo {{ nothing }}", dag=dag)
    with pytest.raises(
        DagError, match="field 'bash_command' of the task 'say' cannot be rendered: 'nothing' is undefined"
    ):
        prepare(task)


def test_a_template_that_cannot_be_read_is_named(dag: DAG, prepare: Any) -> None:
    task = BashOperator(task_id="say", bash_command="echo {% if %}", dag=dag)
    with pytest.raises(
        DagError, match="field 'bash_command' of the task 'say' cannot be rendered: Expected an expression"
    ):
        prepare(task)


def test_the_sandbox_keeps_templates_from_the_insides_of_objects(dag: DAG, prepare: Any) -> None:
    task = BashOperator(task_id="say", bash_command="{{ ds.__class__.__mro__ }}", dag=dag)
    with pytest.raises(DagError, match="is unsafe"):
        prepare(task)


def test_conf_and_params_are_values_and_never_template_source(dag: DAG, run: Any) -> None:
    task = BashOperator(task_id="say", bash_command="echo '{{ params.x }}'", dag=dag)
    assert run(task, params={"x": "{{ ds }}"}) == "{{ ds }}"


def test_a_file_is_read_from_the_dags_folder_or_the_search_path(tmp_path: Path, run: Any) -> None:
    (tmp_path / "beside.sh").write_text("echo beside {{ ds }}\n")
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "there.sh").write_text("{% include 'beside.sh' %}echo there\n")
    dag = DAG("d", template_searchpath=str(tmp_path / "sql"))
    dag.fileloc = str(tmp_path / "dag.py")
    beside = BashOperator(task_id="a", bash_command="beside.sh", dag=dag)
    there = BashOperator(task_id="b", bash_command="there.sh", dag=dag)
    inline = BashOperator(task_id="c", bash_command="echo beside.sh ", dag=dag)
    missing = BashOperator(task_id="d", bash_command="missing.sh", dag=dag)
    assert [run(beside), run(there), run(inline)] == ["beside 2024-01-01", "there", "beside.sh"]
    with pytest.raises(DagError, match=r"cannot be rendered: .*missing.sh"):
        run(missing)


def test_native_rendering_gives_python_values(prepare: Any) -> None:
    dag = DAG("d", render_template_as_native_obj=True)
    task = PythonOperator(task_id="a", python_callable=print, op_args=["{{ params.n }}", "{{ [1, 2] }}", "5"], dag=dag)
    operator, _ = prepare(task, params={"n": {"a": 1}})
    assert operator.op_args == [{"a": 1}, [1, 2], 5]


def test_native_rendering_is_sandboxed_too(prepare: Any) -> None:
    task = PythonOperator(
        task_id="a",
        python_callable=print,
        op_args=["{{ ds.__class__ }}"],
        dag=DAG("d", render_template_as_native_obj=True),
    )
    with pytest.raises(DagError, match="is unsafe"):
        prepare(task)


def test_macros_and_filters_of_the_dag_can_be_used(run: Any) -> None:
    dag = DAG("d", user_defined_macros={"twice": lambda x: x * 2}, user_defined_filters={"shout": str.upper})
    assert run(BashOperator(task_id="a", bash_command="echo {{ twice('ab') | shout }}", dag=dag)) == "ABAB"


def test_dates_have_their_filters(dag: DAG) -> None:
    moment = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    text = "{{ d | ds }} {{ d | ds_nodash }} {{ d | ts }} {{ d | ts_nodash }} {{ d | ts_nodash_with_tz }}"
    expected = "2024-01-02 20240102 2024-01-02T03:04:05+00:00 20240102T030405 20240102T030405+0000"
    assert render(text, {"d": moment}, dag) == expected


def test_a_date_that_there_is_not_is_none_in_a_filter_too(dag: DAG) -> None:
    text = "{{ d | ds }} {{ d | ds_nodash }} {{ d | ts }} {{ d | ts_nodash }} {{ d | ts_nodash_with_tz }}"
    assert render(text, {"d": None}, dag) == "None None None None None"


def test_a_macro_that_fails_is_named_with_the_field_and_one_that_skips_skips(prepare: Any) -> None:
    def fail() -> None:
        raise ValueError("no such thing")

    def skip() -> None:
        raise SkipTask("not today")

    dag = DAG("d", user_defined_macros={"fail": fail, "skip": skip})
    with pytest.raises(DagError, match="field 'bash_command' of the task 'a' cannot be rendered: no such thing"):
        prepare(BashOperator(task_id="a", bash_command="{{ fail() }}", dag=dag))
    with pytest.raises(SkipTask):
        prepare(BashOperator(task_id="b", bash_command="{{ skip() }}", dag=dag))


def test_what_a_template_or_function_does_not_ask_for_is_not_looked_up(dag: DAG, tmp_path: Path) -> None:
    class Lazy(dict[str, Any]):
        def __missing__(self, name: str) -> Any:
            assert name != "costly"
            raise KeyError(name)

        def __contains__(self, name: object) -> bool:
            return name == "costly" or super().__contains__(name)

        def keys(self) -> Any:
            return [*super().keys(), "costly"]

        def __iter__(self) -> Any:
            return iter(self.keys())

    def told(ds: str) -> str:
        return ds

    (tmp_path / "a.sh").write_text("{% include 'b.sh' %}")
    (tmp_path / "b.sh").write_text("{{ ds }}")
    dag.fileloc = str(tmp_path / "dag.py")
    context = Lazy(ds="d", task=None)
    assert render(["{{ ds }} {% for x in range(2) %}{{ x }}{{ ds }}{% endfor %}", "a.sh"], context, dag, (".sh",)) == [
        "d 0d1d",
        "d",
    ]
    assert PythonOperator(task_id="p", python_callable=told, dag=dag).execute(context) == "d"


def test_rendering_leaves_the_dags_own_task_as_it_is(dag: DAG, run: Any) -> None:
    task = BashOperator(task_id="a", bash_command="echo {{ ds }}", env={"x": "{{ ds }}"}, dag=dag)
    assert [run(task, ds="1"), run(task, ds="2")] == ["1", "2"]
    assert (task.bash_command, task.env) == ("echo {{ ds }}", {"x": "{{ ds }}"})
