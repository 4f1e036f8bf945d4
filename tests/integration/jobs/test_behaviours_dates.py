"""Which dates a job runs, through the loop (S2.1 to S2.6)."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from playhouse import DAY, dag_of, day, nothing
from sqlalchemy import select

from backfill import DAG
from backfill.config import Settings
from backfill.exceptions import DateOwned, NothingToDo
from backfill.jobs.checks import check_request
from backfill.jobs.request import BackfillRequest
from backfill.models import dag_run
from backfill.operators import PythonOperator
from backfill.testing.script import Script, ScriptedExecutor

MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def scheduled(schedule, start_date=datetime(2023, 1, 1, tzinfo=UTC), **arguments):
    with DAG("d", schedule=schedule, start_date=start_date, **arguments) as dag:
        PythonOperator(task_id="a", python_callable=nothing)
    return dag


def dates_of(house):
    with house.engine.connect() as tx:
        found = tx.execute(select(dag_run.c.logical_date).order_by(dag_run.c.logical_date)).scalars().all()
    return [date.astimezone(UTC) for date in found]


def play(house, dag, start, end, **request):
    report = house.play(dag, start_date=start, end_date=end, **request)
    assert report.state == "success"
    return dates_of(house)


def notes_of(house, dag, start, end):
    request = BackfillRequest(start_date=start, end_date=end, executor="local")
    with house.engine.connect() as tx:
        return check_request(dag, request, Settings()).plan(tx).notes


def test_both_ends_are_included(house):
    assert play(house, scheduled("@daily"), day(1), day(3)) == [day(1), day(2), day(3)]


def test_hourly(house):
    hours = [day(1) + timedelta(hours=hour) for hour in range(4)]
    assert play(house, scheduled("@hourly"), hours[0] - timedelta(minutes=1), hours[-1]) == hours


def test_cron_over_a_daylight_saving_change(house):
    berlin = ZoneInfo("Europe/Berlin")
    dag = scheduled("30 2 * * *", datetime(2024, 1, 1, tzinfo=berlin))
    first, last = datetime(2024, 3, 30, tzinfo=berlin), datetime(2024, 4, 1, 12, tzinfo=berlin)
    before, after = datetime(2024, 3, 30, 1, 30, tzinfo=UTC), datetime(2024, 4, 1, 0, 30, tzinfo=UTC)
    found = play(house, dag, first, last)
    assert (found[0], found[-1], len(found)) == (before, after, 3)


def test_a_timedelta_is_anchored_at_the_start(house):
    start = day(1) + timedelta(hours=5, minutes=7)
    found = play(house, scheduled(timedelta(hours=8)), start, start + timedelta(hours=16))
    assert found == [start, start + timedelta(hours=8), start + timedelta(hours=16)]


def test_once_gives_one_run_at_the_start(house):
    assert play(house, scheduled("@once"), day(2), day(5)) == [day(2)]


def test_without_a_schedule_there_is_one_run_if_start_is_end(house):
    with pytest.raises(NothingToDo):
        house.play(scheduled(None), days=2)
    assert play(house, scheduled(None), day(3), day(3)) == [day(3)]


def test_a_date_list_gives_its_members_in_range(house):
    given = [day(9), day(1), day(4)]
    assert play(house, scheduled(given), day(1), day(8)) == [day(1), day(4)]


def test_dates_before_the_dags_start_date_are_run(house):
    dag = scheduled("@daily", day(10), catchup=False)
    assert play(house, dag, day(1), day(2)) == [day(1), day(2)]


def test_unfinished_interval_is_left_out_with_a_note(house):
    start, end = MIDNIGHT - DAY, MIDNIGHT
    assert notes_of(house, scheduled("@daily"), start, end) == ("1 date left out: the data interval is not over yet.",)
    assert play(house, scheduled("@daily"), start, end) == [start]


def test_future_date_is_left_out_with_a_note(house):
    start, end = MIDNIGHT - DAY, MIDNIGHT + 2 * DAY
    assert notes_of(house, scheduled("@daily"), start, end) == ("3 dates left out: the data interval is not over yet.",)
    assert play(house, scheduled("@daily"), start, end) == [start]


def test_date_after_end_date_is_left_out_with_a_note(house):
    dag = scheduled("@daily", end_date=day(2))
    (note,) = notes_of(house, dag, day(1), day(4))
    assert note == "2 dates left out: after the DAG's end_date 2024-01-02T00:00:00+00:00."
    assert play(house, dag, day(1), day(4)) == [day(1), day(2)]


@pytest.mark.parametrize(
    ("schedule", "first", "last"),
    [("@weekly", day(1), day(2)), ("@daily", MIDNIGHT + DAY, MIDNIGHT + DAY), ([day(9)], day(1), day(2))],
)
def test_empty_range_exits_5(house, schedule, first, last):
    with pytest.raises(NothingToDo) as refused:
        house.play(scheduled(schedule), start_date=first, end_date=last)
    assert refused.value.exit_code == 5
    assert house.nothing_written()


@pytest.mark.parametrize("schedule", ["@weekly", None, [day(20)]])
def test_run_at_least_once_gives_one_run(house, schedule):
    report = house.play(scheduled(schedule), days=2, run_at_least_once=True)
    assert (report.state, report.runs["total"]) == ("success", 1)
    run = house.run_row()
    assert (run.logical_date, run.data_interval_start, run.data_interval_end) == (day(1), day(1), day(2))


def test_run_at_least_once_adds_nothing_where_there_are_dates(house):
    assert play(house, scheduled("@daily"), day(1), day(2), run_at_least_once=True) == [day(1), day(2)]


def test_run_at_least_once_in_the_future_exits_5(house):
    with pytest.raises(NothingToDo) as refused:
        house.play(scheduled("@weekly"), start_date=MIDNIGHT + DAY, end_date=MIDNIGHT + DAY, run_at_least_once=True)
    assert refused.value.exit_code == 5
    assert "future" in str(refused.value)


def test_overlapping_jobs_are_refused_and_disjoint_ones_both_succeed(house):
    first = house.put_on(dag_of("a"), ScriptedExecutor(house.engine, Script(dag_of("a"), {})), days=2)
    with pytest.raises(DateOwned):
        house.play(dag_of("a"), days=(2, 3))
    assert house.play(dag_of("a"), days=(3, 4)).state == "success"
    assert first.drive().state == "success"
    assert house.runs() == dict.fromkeys(range(1, 5), "success")
