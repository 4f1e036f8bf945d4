from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent

import pytest

from backfill.dag.loader import find_dag, find_dags, load_file, load_folder
from backfill.exceptions import DagError, DagImportError, DagNotFound, UsageError

ONE = "from backfill import DAG\nwith DAG({0!r}) as dag: pass\n"


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if not name.startswith(("backfill.", "jinja2", "jsonschema")):
            del sys.modules[name]


def write(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        (folder / f"{name}.py").write_text(dedent(content))
    return folder


def test_the_dags_of_a_file_come_in_the_order_of_definition(tmp_path: Path) -> None:
    write(
        tmp_path,
        two="""
        from backfill import DAG, dag
        with DAG("z"):
            pass
        a = DAG("a")
        @dag
        def made(): ...
        made()
        """,
    )
    assert [dag.dag_id for dag in load_file(tmp_path / "two.py")] == ["z", "made", "a"]


def test_a_file_runs_anew_each_time(tmp_path: Path) -> None:
    write(tmp_path, one=ONE.format("d"))
    first, second = load_file(tmp_path / "one.py")[0], load_file(tmp_path / "one.py")[0]
    assert first is not second
    write(tmp_path, one=ONE.format("e"))
    assert load_file(tmp_path / "one.py")[0].dag_id == "e"


def test_a_dag_knows_its_file(tmp_path: Path) -> None:
    write(tmp_path, one=ONE.format("d"))
    dag = load_file(tmp_path / "one.py")[0]
    assert (dag.fileloc, dag.folder) == (str(tmp_path / "one.py"), str(tmp_path))


def test_a_syntax_error_is_reported_with_file_and_line(tmp_path: Path) -> None:
    write(tmp_path, bad="from backfill import DAG\n\nwith DAG('d'\n")
    with pytest.raises(
        DagImportError, match=r"bad.py, line 3, cannot be loaded: syntax error|line 3 cannot be loaded"
    ) as error:
        load_file(tmp_path / "bad.py")
    assert (error.value.file, error.value.line) == (str(tmp_path / "bad.py"), 3)
    assert "'(' was never closed" in error.value.reason


def test_an_exception_is_reported_with_the_line_in_the_dag_file_and_its_text(tmp_path: Path) -> None:
    write(
        tmp_path,
        bad="""\
        import json

        def parse(text):
            return json.loads(text)

        parse("{")
        """,
    )
    with pytest.raises(DagImportError) as error:
        load_file(tmp_path / "bad.py")
    assert error.value.line == 4
    assert error.value.reason.startswith("JSONDecodeError: Expecting property name")


def test_an_exception_in_a_module_beside_it_is_reported_at_the_line_of_the_import(tmp_path: Path) -> None:
    write(tmp_path, bad="x = 1\nimport beside\n", beside="1 / 0\n")
    with pytest.raises(DagImportError) as error:
        load_file(tmp_path / "bad.py")
    assert (error.value.line, error.value.reason) == (2, "ZeroDivisionError: division by zero")


def test_a_syntax_error_in_a_module_beside_it_is_reported_there(tmp_path: Path) -> None:
    write(tmp_path, bad="import beside\n", beside="x = \n")
    with pytest.raises(DagImportError) as error:
        load_file(tmp_path / "bad.py")
    assert (error.value.file, error.value.line) == (str(tmp_path / "beside.py"), 1)


def test_a_dag_that_is_wrong_in_itself_is_reported_with_its_file(tmp_path: Path) -> None:
    write(
        tmp_path,
        cycle="""
        from backfill import DAG
        from backfill.operators import EmptyOperator
        with DAG("d"):
            a, b = EmptyOperator(task_id="a"), EmptyOperator(task_id="b")
            a >> b >> a
        """,
        twice="""
        from backfill import DAG
        from backfill.operators import EmptyOperator
        with DAG("d"):
            EmptyOperator(task_id="a")
            EmptyOperator(task_id="a")
        """,
    )
    with pytest.raises(DagImportError, match=r"cycle.py cannot be loaded: The DAG 'd' has a cycle: . → . → .;"):
        load_file(tmp_path / "cycle.py")
    with pytest.raises(
        DagImportError, match=r"twice.py, line 6 cannot be loaded: The DAG 'd' has a task 'a' already"
    ) as error:
        load_file(tmp_path / "twice.py")
    assert isinstance(error.value.__cause__, DagError)
    assert not str(error.value).endswith("..")


def test_a_file_that_ends_the_program_does_not_end_ours(tmp_path: Path) -> None:
    write(tmp_path, bad="import sys\nsys.exit('no')\n")
    with pytest.raises(DagImportError, match="SystemExit: no"):
        load_file(tmp_path / "bad.py")


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(DagNotFound, match=r"There is no .*missing.py; correct the path"):
        load_file(tmp_path / "missing.py")
    with pytest.raises(DagNotFound, match=r"There is no .*nowhere"):
        find_dag("d", tmp_path / "nowhere")


def test_modules_beside_the_file_are_imported_fresh(tmp_path: Path) -> None:
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        write(
            folder, common=f"NAME = {name!r}\n", one="from backfill import DAG\nimport common\ndag = DAG(common.NAME)\n"
        )
        assert load_file(folder / "one.py")[0].dag_id == name
    write(tmp_path / "first", common="NAME = 'edited'\n")
    assert load_file(tmp_path / "first" / "one.py")[0].dag_id == "edited"


def test_modules_of_the_dags_folder_can_be_imported_from_below_it(tmp_path: Path) -> None:
    (tmp_path / "team").mkdir()
    write(tmp_path, shared_names="NAME = 'shared'\n")
    write(tmp_path / "team", one="from backfill import DAG\nfrom shared_names import NAME\ndag = DAG(NAME)\n")
    assert find_dag("shared", tmp_path).file == tmp_path / "team" / "one.py"
    assert find_dag("shared", tmp_path).dag.folder == str(tmp_path)


def test_a_dag_made_by_a_function_elsewhere_belongs_to_the_file_that_calls_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        factory="from backfill import DAG\ndef make(name):\n    with DAG(name) as dag: pass\n    return dag\n",
        one="from factory import make\nmake('a')\nb = make('b')\n",
        other="from one import b\nfrom backfill import DAG\nwith DAG('c'): pass\n",
    )
    assert [(dag.dag_id, dag.fileloc) for dag in load_file(tmp_path / "one.py")] == [
        ("a", str(tmp_path / "one.py")),
        ("b", str(tmp_path / "one.py")),
    ]


def test_a_dag_imported_from_another_dag_file_belongs_to_that_file(tmp_path: Path) -> None:
    write(tmp_path, one=ONE.format("a"), two="from one import dag as other\n" + ONE.format("b"))
    assert [dag.dag_id for dag in load_file(tmp_path / "two.py")] == ["b"]
    assert sorted(load_folder(tmp_path).dags) == ["a", "b"]


def test_a_folder_is_read_with_the_folders_in_it_and_errors_do_not_stop_it(tmp_path: Path) -> None:
    for name in ("team", ".hidden", "__pycache__", "venv"):
        (tmp_path / name).mkdir()
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    write(tmp_path, a=ONE.format("a"), bad="from backfill import DAG\n1 / 0\n", script="raise SystemExit\n")
    write(tmp_path / "team", b=ONE.format("b"))
    for name in (".hidden", "__pycache__", "venv"):
        write(tmp_path / name, x=ONE.format(f"in {name}"))
    contents = load_folder(tmp_path)
    assert list(contents.dags) == ["a", "b"]
    assert [Path(error.file).name for error in contents.errors] == ["bad.py"]
    assert len(contents.dags["a"].file_hash) == 64


def test_two_files_with_the_same_dag_id_are_an_error_that_names_both(tmp_path: Path) -> None:
    write(tmp_path, a=ONE.format("same"), b=ONE.format("same"))
    contents = load_folder(tmp_path)
    assert [error.reason for error in contents.errors] == [
        f"its DAG 'same' is defined in {tmp_path / 'a.py'} already; rename one of them"
    ]
    with pytest.raises(DagNotFound, match=r"'same' is defined twice, in .*a.py and .*b.py; .*b.py:same"):
        find_dag("same", tmp_path)
    assert find_dag(f"{tmp_path}/b.py:same", tmp_path).file == tmp_path / "b.py"


def test_one_file_with_the_same_dag_id_twice_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, a=ONE.format("same") + "with DAG('same'): pass\n")
    with pytest.raises(DagImportError, match="it defines the DAG 'same' twice"):
        load_file(tmp_path / "a.py")


def test_a_target_is_an_id_a_path_or_both(tmp_path: Path) -> None:
    write(tmp_path, a=ONE.format("a"), bc="from backfill import DAG\nb, c = DAG('b'), DAG('c')\n")
    assert find_dag("c", tmp_path).dag.dag_id == "c"
    assert find_dag(str(tmp_path / "a.py"), "elsewhere").dag.dag_id == "a"
    assert find_dag(f"{tmp_path}/bc.py:b", "elsewhere").dag.dag_id == "b"
    assert find_dag("b", tmp_path / "bc.py").dag.dag_id == "b"


def test_a_path_with_two_dags_asks_for_one_of_them(tmp_path: Path) -> None:
    write(tmp_path, bc="from backfill import DAG\nb, c = DAG('b'), DAG('c')\n")
    with pytest.raises(DagNotFound, match=r"defines 2 DAGs \(b, c\); name one, as in .*bc.py:b"):
        find_dag(str(tmp_path / "bc.py"), tmp_path)


def test_a_path_without_dags_is_refused(tmp_path: Path) -> None:
    write(tmp_path, none="x = 1\n")
    with pytest.raises(DagNotFound, match=r"none.py defines no DAG; it needs a `with DAG"):
        find_dag(str(tmp_path / "none.py"), tmp_path)


def test_an_unknown_id_names_the_nearest_or_what_there_is(tmp_path: Path) -> None:
    write(tmp_path, a="from backfill import DAG\nDAG_A, b = DAG('sales'), DAG('flights')\n")
    with pytest.raises(DagNotFound, match=r"There is no DAG 'slaes' in .*; did you mean 'sales'"):
        find_dag("slaes", tmp_path)
    with pytest.raises(DagNotFound, match="there are flights, sales"):
        find_dag("x", tmp_path)
    with pytest.raises(DagNotFound, match="defines no DAG 'sale'; did you mean 'sales'"):
        find_dag(f"{tmp_path}/a.py:sale", tmp_path)


def test_an_unknown_id_tells_of_a_file_that_cannot_be_loaded(tmp_path: Path) -> None:
    write(tmp_path, broken="from backfill import DAG\n1 / 0\n")
    with pytest.raises(
        DagNotFound, match=r"there are none. The DAG file .*broken.py, line 2 cannot be loaded: ZeroDivisionError"
    ):
        find_dag("x", tmp_path)


def test_an_unknown_id_tells_of_the_file_of_that_name_first(tmp_path: Path) -> None:
    write(tmp_path, a="from backfill import DAG\n1 / 0\n", broken="from backfill import DAG\nimport nothing_like_it\n")
    with pytest.raises(DagNotFound, match=r"broken.py, line 2 cannot be loaded: .* \(1 more cannot be loaded either;"):
        find_dag("broken", tmp_path)


def test_subdags_are_found_by_their_id_and_do_not_make_a_path_ambiguous(tmp_path: Path) -> None:
    write(
        tmp_path,
        parent="""
        from backfill import DAG
        from backfill.operators import SubDagOperator
        child = DAG("p.c")
        with DAG("p"):
            SubDagOperator(task_id="c", subdag=child)
        """,
    )
    assert find_dag(str(tmp_path / "parent.py"), tmp_path).dag.dag_id == "p"
    assert find_dag("p.c", tmp_path).dag.parent_dag is not None


def test_a_subdag_of_any_depth_has_the_dates_of_the_dag_at_the_top(tmp_path: Path) -> None:
    write(
        tmp_path,
        parent="""
        from backfill import DAG
        from backfill.operators import EmptyOperator, SubDagOperator

        def deep():
            with DAG("p.c.deep") as dag:
                EmptyOperator(task_id="x")
            return dag

        def child():
            with DAG("p.c", schedule="@hourly") as dag:
                SubDagOperator(task_id="deep", subdag=deep())
            return dag

        with DAG("p", schedule="@weekly"):
            SubDagOperator(task_id="c", subdag=child())
        """,
    )
    start, end = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 31, tzinfo=UTC)
    dates = [
        [date.logical_date.day for date in find_dag(dag_id, tmp_path).dag.timetable.run_dates(start, end)]
        for dag_id in ("p", "p.c", "p.c.deep")
    ]
    assert dates == [[7, 14, 21, 28]] * 3


def test_dags_that_match_come_in_order_of_their_ids_without_subdags(tmp_path: Path) -> None:
    write(
        tmp_path,
        first="""
        from backfill import DAG
        from backfill.operators import SubDagOperator
        late = DAG("my_sales")
        with DAG("sales") as early:
            SubDagOperator(task_id="part", subdag=DAG("sales.part"))
        """,
        second=ONE.format("stock"),
        third="import nowhere  # backfill dag",
    )
    matching, errors = find_dags("sales", tmp_path)
    assert [loaded.dag.dag_id for loaded in matching] == ["my_sales", "sales"]
    assert [Path(error.file).name for error in errors] == ["third.py"]
    assert [loaded.dag.dag_id for loaded in find_dags("^s", tmp_path)[0]] == ["sales", "stock"]


def test_a_regex_without_match_says_what_there_is_and_a_bad_one_what_is_wrong(tmp_path: Path) -> None:
    write(tmp_path, one=ONE.format("sales"))
    with pytest.raises(DagNotFound, match=r"matches 'stock'; there are sales\."):
        find_dags("stock", tmp_path)
    with pytest.raises(UsageError, match=r"'\(' is no regular expression"):
        find_dags("(", tmp_path)


def test_a_matching_dag_that_is_defined_twice_is_refused(tmp_path: Path) -> None:
    write(tmp_path, one=ONE.format("sales"), two=ONE.format("sales"))
    with pytest.raises(DagNotFound, match="'sales' is defined twice"):
        find_dags("s", tmp_path)
