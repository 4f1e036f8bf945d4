"""What is checked before a job's row exists: a refused job leaves no row and changes nothing (S1.2, S2.4 to S2.6)."""

from datetime import UTC, datetime, timedelta

import pytest
from playhouse import SilentExecutor, dag_of, day

from backfill import Param
from backfill.exceptions import (
    BackfillError,
    DateOwned,
    NothingToDo,
    RefusedError,
    UnknownExecutor,
    UnknownPool,
    UsageError,
)
from backfill.store import pools

PAST = {"a": {"depends_on_past": True}, "c": {"wait_for_downstream": True}}


def refused(house, dag, days=1, **request):
    """The error of a job that must be refused, after a look that nothing was written."""
    with pytest.raises(BackfillError) as raised:
        house.put_on(dag, SilentExecutor(), days, **request)
    return raised.value


@pytest.mark.parametrize(
    ("request_", "parts"),
    [
        ({"start_date": day(3), "end_date": day(2)}, ["2024-01-03T00:00:00+00:00", "2024-01-02T00:00:00+00:00"]),
        ({"task_regex": "^nothing$"}, ["^nothing$", "'d'"]),
        ({"task_regex": "("}, ["("]),
        ({"max_active_runs": 0}, ["max_active_runs", "0"]),
        ({"max_active_runs": -3}, ["max_active_runs", "-3"]),
        ({"max_failures": "0"}, ["max_failures (--max-failures)", "'0'"]),
        ({"max_failures": "0%"}, ["max_failures (--max-failures)", "'0%'"]),
        ({"max_failures": "many"}, ["max_failures (--max-failures)", "'many'"]),
        ({"delay_on_limit_secs": 0}, ["delay_on_limit", "0"]),
        ({"pool": "nope"}, ["--pool", "'nope'"]),
    ],
)
def test_wrong_use_is_refused_with_code_2_and_names_the_value(house, request_, parts):
    error = refused(house, dag_of("a"), **request_)
    assert isinstance(error, UsageError)
    assert error.exit_code == 2
    for part in parts:
        assert part in str(error)
    assert house.nothing_written()


def test_a_conf_that_does_not_satisfy_the_params_is_refused(house):
    dag = dag_of("a", params={"region": Param("eu", type="string")})
    error = refused(house, dag, conf={"region": 7})
    assert (error.exit_code, house.nothing_written()) == (2, True)
    assert "region" in str(error)


def test_a_dag_without_start_date_needs_one_for_the_range(house):
    dag = dag_of("a")
    dag.start_date = None
    error = refused(house, dag, start_date=None)
    assert (error.exit_code, "start" in str(error), house.nothing_written()) == (2, True, True)


def test_a_pool_that_a_chosen_task_names_must_exist(house):
    error = refused(house, dag_of("a", "b", arguments={"b": {"pool": "nope"}}))
    assert isinstance(error, UnknownPool)
    assert (error.exit_code, house.nothing_written()) == (2, True)
    assert "'b'" in str(error)
    assert "'nope'" in str(error)


def test_the_pool_of_a_task_that_is_not_chosen_does_not_matter(house):
    house.put_on(dag_of("a", "b", arguments={"b": {"pool": "nope"}}), SilentExecutor(), task_regex="^a$")
    assert not house.nothing_written()


def test_a_task_too_big_for_its_pool_is_refused(house):
    with house.engine.begin() as tx:
        pools.set_pool(tx, "small", 2)
    error = refused(house, dag_of("a", arguments={"a": {"pool": "small", "pool_slots": 3}}))
    assert (error.exit_code, house.nothing_written()) == (2, True)
    for part in ("'a'", "3", "'small'", "2"):
        assert part in str(error)


@pytest.mark.parametrize("slots", [0, -1])
def test_a_closed_or_endless_pool_refuses_nobody(house, slots):
    with house.engine.begin() as tx:
        pools.set_pool(tx, "own", slots)
    house.put_on(dag_of("a", arguments={"a": {"pool": "own", "pool_slots": 300}}), SilentExecutor())
    assert not house.nothing_written()


def test_an_executor_that_a_chosen_task_names_must_exist(house):
    error = refused(house, dag_of("a", arguments={"a": {"executor": "carrier_pigeon"}}))
    assert isinstance(error, UnknownExecutor)
    assert (error.exit_code, "carrier_pigeon" in str(error), house.nothing_written()) == (2, True, True)


def test_the_executor_of_a_task_that_is_not_chosen_does_not_matter(house):
    dag = dag_of("a", "b", arguments={"b": {"executor": "carrier_pigeon"}})
    house.put_on(dag, SilentExecutor(), task_regex="^a$")
    assert not house.nothing_written()


def test_backwards_is_refused_where_a_chosen_task_depends_on_the_past_and_names_the_tasks(house):
    error = refused(house, dag_of("a", "b", "c", arguments=PAST), run_backwards=True)
    assert isinstance(error, RefusedError)
    assert (error.exit_code, house.nothing_written()) == (5, True)
    assert "a, c" in str(error)


def test_backwards_looks_at_chosen_tasks_only(house):
    house.put_on(dag_of("a", "b", "c", arguments=PAST), SilentExecutor(), task_regex="^b$", run_backwards=True)
    assert not house.nothing_written()


@pytest.mark.parametrize(
    "request_",
    [
        {"start_date": day(1) + timedelta(hours=1), "end_date": day(1) + timedelta(hours=2)},
        {"start_date": datetime(2090, 1, 1, tzinfo=UTC), "end_date": datetime(2090, 1, 2, tzinfo=UTC)},
    ],
)
def test_a_range_without_run_dates_is_refused_with_code_5(house, request_):
    error = refused(house, dag_of("a"), **request_)
    assert isinstance(error, NothingToDo)
    assert (error.exit_code, house.nothing_written()) == (5, True)


def test_run_at_least_once_makes_one_run_where_the_timetable_gives_no_date(house):
    start, end = day(1) + timedelta(hours=1), day(1) + timedelta(hours=2)
    cast = house.put_on(dag_of("a"), SilentExecutor(), start_date=start, end_date=end, run_at_least_once=True)
    cast.job.take_up_work(cast.workplace)
    with house.engine.begin() as tx:
        (run,) = cast.job.course.admission.admit_next(tx).runs
    assert (run.logical_date, run.data_interval_start, run.data_interval_end) == (start, start, end)


def test_run_at_least_once_is_refused_for_a_start_in_the_future(house):
    start = datetime(2090, 1, 1, 1, tzinfo=UTC)
    error = refused(house, dag_of("a"), start_date=start, end_date=start + timedelta(hours=1), run_at_least_once=True)
    assert house.nothing_written()
    assert "2090-01-01T01:00:00" in str(error)


def test_dates_after_the_dags_end_are_left_out_with_a_note(house):
    report = house.play(dag_of("a", end_date=day(2)), days=5)
    assert house.runs() == {1: "success", 2: "success"}
    assert report.runs["total"] == 2


def test_all_dates_after_the_dags_end_are_nothing_to_do_and_say_why(house):
    error = refused(house, dag_of("a", end_date=day(1)), days=(2, 4))
    assert isinstance(error, NothingToDo)
    assert "3 dates left out: after the DAG's end_date" in str(error)


def test_a_date_that_another_active_job_owns_refuses_the_whole_job_and_names_it(house):
    first = house.put_on(dag_of("a"), SilentExecutor(), 3)
    error = refused(house, dag_of("a"), (3, 5))
    assert isinstance(error, DateOwned)
    assert error.exit_code == 5
    assert f"Job {first.job.id}" in str(error)
    assert "2024-01-03" in str(error)
    assert house.runs() == {}


def test_disjoint_dates_of_one_dag_are_two_jobs_side_by_side(house):
    house.put_on(dag_of("a"), SilentExecutor(), (1, 2))
    assert house.play(dag_of("a"), days=(3, 4)).state == "success"


def test_dates_of_a_job_that_has_ended_are_free_again(house):
    house.play(dag_of("a"), days=2)
    assert house.play(dag_of("a"), days=2, reprocess="completed").state == "success"


@pytest.mark.parametrize("run_type", ["scheduled", "manual"])
def test_a_running_run_of_another_type_refuses_the_job_and_its_task_instances_stay(house, run_type):
    house.plant_run(2, {"a": "none"}, state="running", run_type=run_type, run_id="by_the_scheduler")
    error = refused(house, dag_of("a"), 3)
    assert isinstance(error, DateOwned)
    assert (error.exit_code, house.states(), house.runs()) == (5, {"a2": "none"}, {2: "running"})
    assert "by_the_scheduler" in str(error)


@pytest.mark.parametrize(
    ("run_type", "state"), [("scheduled", "queued"), ("manual", "queued"), ("backfill", "running")]
)
def test_queued_runs_and_backfills_that_nobody_drives_are_free_to_take(house, run_type, state):
    house.plant_run(1, {"a": "none"}, state=state, run_type=run_type)
    assert house.play(dag_of("a")).state == "success"
    assert house.run_row().run_type == "backfill"


def test_a_dag_without_tasks_ends_at_once(house):
    report = house.play(dag_of(), days=2)
    assert (report.state, house.runs()) == ("success", {1: "success", 2: "success"})
