import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from backfill.dag.context import CONTEXT_NAMES
from backfill.dag.params import Params
from backfill.exceptions import UsageError
from backfill.store.claims import Claim
from backfill.timetables import RunDate, Timetable, timetable_of
from workers import macros
from workers.connections import Connection, Connections
from workers.context import TaskContext, build_context, previous_date
from workers.task_instance import TaskInstance
from workers.variables import Variables

MakeClaim = Callable[..., Claim]
DAY = timedelta(days=1)


class NoDatabase:
    """Counts what is asked of the database, and answers `answer`."""

    def __init__(self, answer: Any = None) -> None:
        self.asked = 0
        self.answer = answer

    def __call__(self, work: Callable[[Any], Any], /) -> Any:
        self.asked += 1
        return self.answer


def context_of(claim: Claim, database: NoDatabase | None = None, schedule: Any = "@daily") -> TaskContext:
    database = database or NoDatabase()
    task = SimpleNamespace(task_id=claim.task_id, map_index_template=None, inlets=[], outlets=[], dag=None)
    timetable = timetable_of(schedule, UTC)
    dag = SimpleNamespace(dag_id=claim.dag_id, timetable=timetable, task_dict={}, params=Params())
    ti = TaskInstance(claim, hostname="worker-1@host", task=task, database=database)
    return build_context(ti=ti, claim=claim, dag=dag, params={"region": "north"}, database=database)


def test_the_context_has_every_name_of_the_rules(make_claim: MakeClaim) -> None:
    assert set(context_of(make_claim())) == CONTEXT_NAMES - {"templates_dict"}


def test_dates_are_those_of_the_logical_date_in_utc(make_claim: MakeClaim) -> None:
    east = datetime.fromisoformat("2024-01-01T01:30:00+03:00")
    context = context_of(make_claim(logical_date=east))
    expected = {
        "ds": "2023-12-31",
        "ds_nodash": "20231231",
        "ts": "2023-12-31T22:30:00+00:00",
        "ts_nodash": "20231231T223000",
        "ts_nodash_with_tz": "20231231T223000+0000",
        "yesterday_ds": "2023-12-30",
        "yesterday_ds_nodash": "20231230",
        "tomorrow_ds": "2024-01-01",
        "tomorrow_ds_nodash": "20240101",
        "task_instance_key_str": "sales__load__20231231",
    }
    assert {name: context[name] for name in expected} == expected


def test_the_neighbours_are_those_of_the_timetable(make_claim: MakeClaim) -> None:
    context = context_of(make_claim())
    assert context["prev_execution_date"] == datetime(2024, 1, 1, tzinfo=UTC)
    assert (context["prev_ds"], context["prev_ds_nodash"]) == ("2024-01-01", "20240101")
    assert (context["next_ds"], context["next_ds_nodash"]) == ("2024-01-03", "20240103")
    assert context["next_execution_date"] == datetime(2024, 1, 3, tzinfo=UTC)


def test_a_dag_without_schedule_has_no_neighbours(make_claim: MakeClaim) -> None:
    context = context_of(make_claim(), schedule=None)
    assert (context["prev_ds"], context["next_ds"], context["prev_execution_date"]) == (None, None, None)


@pytest.mark.parametrize(
    ("schedule", "interval", "expected"),
    [
        (timedelta(hours=6), timedelta(hours=6), datetime(2024, 1, 31, 18, tzinfo=UTC)),
        ("@monthly", timedelta(days=29), datetime(2024, 1, 1, tzinfo=UTC)),
        ("0 0 29 2 *", timedelta(days=1), datetime(2020, 2, 29, tzinfo=UTC)),
        (
            [datetime(2024, 1, 5, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)],
            timedelta(0),
            datetime(2024, 1, 5, tzinfo=UTC),
        ),
        ("@once", timedelta(0), None),
    ],
)
def test_the_previous_date_is_found_however_far_it_is(
    schedule: Any, interval: timedelta, expected: datetime | None
) -> None:
    timetable: Timetable = timetable_of(schedule, UTC)
    date = datetime(2024, 2, 29, tzinfo=UTC) if schedule == "0 0 29 2 *" else datetime(2024, 2, 1, tzinfo=UTC)
    assert previous_date(timetable, RunDate(date, date, date + interval)) == expected


def test_the_database_is_asked_only_for_what_is_looked_at_and_once(make_claim: MakeClaim) -> None:
    success = SimpleNamespace(logical_date=1, data_interval_start=2, data_interval_end=3, start_date=4, end_date=5)
    database = NoDatabase(success)
    context = context_of(make_claim(), database)
    assert (context["ds"], context["prev_ds"], database.asked) == ("2024-01-02", "2024-01-01", 0)
    names = ("execution_date", "data_interval_start", "data_interval_end", "start_date", "end_date")
    assert [context[f"prev_{name}_success"] for name in names] == [1, 2, 3, 4, 5]
    assert database.asked == 1


def test_the_context_can_be_passed_as_keywords(make_claim: MakeClaim) -> None:
    def function(ds: str, ti: TaskInstance, prev_ds: str, **others: Any) -> tuple[str, str, str]:
        return ds, ti.task_id, prev_ds

    assert function(**context_of(make_claim())) == ("2024-01-02", "load", "2024-01-01")


def test_callbacks_find_what_was_added(make_claim: MakeClaim) -> None:
    context = context_of(make_claim())
    context["exception"] = ValueError("x")
    context["prev_ds"] = "another"
    del context["next_ds"]
    assert isinstance(context["exception"], ValueError)
    assert context["prev_ds"] == "another"
    assert "next_ds" not in context
    with pytest.raises(KeyError):
        context["next_ds"]


def test_a_task_instance_knows_its_row(make_claim: MakeClaim) -> None:
    ti = context_of(make_claim(try_number=2, map_index=5))["ti"]
    assert (ti.dag_id, ti.task_id, ti.try_number, ti.map_index, ti.pool) == ("sales", "load", 2, 5, "default_pool")
    assert ti.key.map_index == 5
    assert ti.dag_run.conf == {"region": "north"}
    assert ti.dag_run.execution_date == ti.execution_date == ti.logical_date
    assert ti.duration is None
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        _ = ti.colour


def test_the_expanded_count_is_that_of_a_mapped_task_only(make_claim: MakeClaim) -> None:
    assert context_of(make_claim(), NoDatabase(12))["expanded_ti_count"] is None
    assert context_of(make_claim(map_index=3), NoDatabase(12))["expanded_ti_count"] == 12


def test_variables_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_REGION", '{"name": "north"}')
    var = Variables()
    assert var.value.region == '{"name": "north"}'
    assert var.json.region == {"name": "north"}
    assert var.value["region"] == var.value.region
    assert var.value.get("absent", "default") == "default"
    with pytest.raises(UsageError, match=r"The variable 'absent' is not set; set \$AIRFLOW_VAR_ABSENT"):
        _ = var.value.absent


def test_a_variable_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_REGION", "north")
    with pytest.raises(UsageError, match="The variable 'region' is no JSON"):
        _ = Variables().json.region


def test_a_connection_may_be_a_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", "postgresql://me:se%2Fcret@host:5433/sales?sslmode=require")
    connection = Connections().warehouse
    assert connection == Connection(
        conn_id="warehouse",
        conn_type="postgres",
        host="host",
        login="me",
        password="se/cret",
        port=5433,
        schema="sales",
        extra='{"sslmode": "require"}',
    )
    assert connection.extra_dejson == {"sslmode": "require"}
    assert "se/cret" not in repr(connection)


def test_a_connection_may_be_json(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"conn_type": "http", "host": "h", "port": "80", "extra": {"a": 1}}
    monkeypatch.setenv("AIRFLOW_CONN_API", json.dumps(fields))
    connection = Connections()["api"]
    assert (connection.conn_type, connection.port, connection.extra_dejson) == ("http", 80, {"a": 1})


def test_a_connection_survives_its_own_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Connection(
        conn_id="c", conn_type="http", host="h", login="a@b", password="p:/?#", schema="s", extra='{"k": [1]}'
    )
    monkeypatch.setenv("AIRFLOW_CONN_C", made.get_uri())
    assert Connections().c == made


@pytest.mark.parametrize("text", ["no uri", '{"conn_type": 1, "pass": "geheim"}', "{geheim", "http://h:geheim/"])
def test_a_connection_that_cannot_be_read_is_named_without_its_secret(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_C", text)
    with pytest.raises(UsageError, match=r"The connection 'c' cannot be read; make \$AIRFLOW_CONN_C") as caught:
        _ = Connections().c
    assert "geheim" not in str(caught.value)


def test_a_missing_connection_is_an_error_unless_a_default_is_given() -> None:
    with pytest.raises(UsageError, match="The connection 'absent' is not set"):
        _ = Connections().absent
    assert Connections().get("absent") is None


def test_macros_work_on_texts() -> None:
    assert macros.ds_add("2024-02-28", 2) == "2024-03-01"
    assert macros.ds_add("2024-02-28", 0) == "2024-02-28"
    assert macros.ds_format("2024-01-31", "%Y-%m-%d", "%d.%m.%y") == "31.01.24"
    assert 0 <= macros.random() < 1
    assert macros.dateutil.parser.parse("31 January 2024") == macros.datetime(2024, 1, 31)
    assert macros.datetime(2024, 1, 31) + macros.dateutil.relativedelta.relativedelta(months=1) == macros.datetime(
        2024, 2, 29
    )
