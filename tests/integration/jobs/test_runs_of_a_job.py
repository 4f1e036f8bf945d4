"""`_get_dag_run` and `_task_instances_for_dag_run`: a date gets its run, and the run its task instances (S2.10 to S2.13)."""

from datetime import timedelta

import pytest
from playhouse import DAY, dag_of, day
from sqlalchemy.orm import Session

from backfill import DAG
from backfill.operators import EmptyOperator
from backfill.timetables import RunDate


def get_run(at_work, number=0, session=None):
    return at_work.job._get_dag_run(at_work.dates()[number], at_work.job.dag, session)


# -- _get_dag_run -------------------------------------------------------------------------------------------------------


def test_a_new_run_is_made_as_a_backfill_by_this_job(house):
    at_work = house.at_work(dag_of("a"), conf={"region": "eu"})
    run = get_run(at_work)
    row = house.run_row()
    assert (run.id, run.run_id, run.state, run.run_type) == (
        row.id,
        "backfill__2024-01-01T00:00:00+00:00",
        "running",
        "backfill",
    )
    assert (row.creating_job_id, row.job_id, row.external_trigger) == (at_work.job.id, at_work.job.id, False)
    assert (row.conf, row.data_interval_start, row.data_interval_end) == ({"region": "eu"}, day(1), day(2))
    assert row.start_date is not None
    assert row.end_date is None


def test_the_run_of_another_date_has_the_intervals_end_of_its_own(house):
    at_work = house.at_work(dag_of("a"), days=3)
    run = get_run(at_work, 2)
    assert (run.logical_date, run.data_interval_end - run.data_interval_start) == (day(3), DAY)


@pytest.mark.parametrize("state", ["queued", "running", "success", "failed"])
def test_a_run_that_is_there_is_taken_with_its_run_id_and_creator(house, state):
    house.plant_run(1, {"a": "none"}, state=state, run_id="by_somebody_else", end_date=day(2), conf={"old": True})
    at_work = house.at_work(dag_of("a"))
    run = get_run(at_work)
    row = house.run_row()
    assert (run.id, row.run_id, row.state, row.run_type) == (row.id, "by_somebody_else", "running", "backfill")
    assert (row.job_id, row.creating_job_id, row.end_date) == (at_work.job.id, None, None)
    assert row.start_date > day(2) + timedelta(days=300)


def test_the_conf_of_a_run_that_is_there_stays_if_none_was_given(house):
    house.plant_run(1, {"a": "none"}, conf={"old": True})
    get_run(house.at_work(dag_of("a")))
    assert house.run_row().conf == {"old": True}


def test_the_conf_of_a_run_that_is_there_is_replaced_by_one_that_was_given(house):
    house.plant_run(1, {"a": "none"}, conf={"old": True})
    get_run(house.at_work(dag_of("a"), conf={"new": True}))
    assert house.run_row().conf == {"new": True}


def test_there_is_no_run_while_max_active_runs_is_full(house):
    at_work = house.at_work(dag_of("a", max_active_runs=1), days=2)
    assert get_run(at_work) is not None
    assert get_run(at_work) is None
    assert house.runs() == {1: "running"}


def test_a_foreign_running_run_counts_and_one_triggered_from_outside_does_not(house):
    house.plant_run(20, {}, state="running")
    house.plant_run(21, {}, state="running", external_trigger=True, run_type="manual")
    at_work = house.at_work(dag_of("a", max_active_runs=2), days=2)
    assert get_run(at_work) is not None
    assert get_run(at_work) is None


def test_the_jobs_own_max_active_runs_replaces_the_dags_and_counts_its_own_runs_only(house):
    house.plant_run(20, {}, state="running")
    at_work = house.at_work(dag_of("a", max_active_runs=1), days=3, max_active_runs=2)
    assert get_run(at_work) is not None
    assert get_run(at_work) is not None
    assert get_run(at_work) is None


def test_a_run_that_counts_as_running_already_needs_no_new_place(house):
    house.plant_run(1, {"a": "none"}, state="running")
    at_work = house.at_work(dag_of("a", max_active_runs=1))
    assert get_run(at_work) is not None


def test_a_finished_run_frees_its_place(house):
    at_work = house.at_work(dag_of("a", max_active_runs=1), days=2)
    get_run(at_work)
    house.set_run(1, state="success")
    assert get_run(at_work) is not None


@pytest.mark.parametrize("given", [day(2), day(2).replace(tzinfo=None), RunDate(day(2), day(2), day(3))])
def test_a_date_is_known_by_its_moment_as_well(house, given):
    at_work = house.at_work(dag_of("a"), days=3)
    assert at_work.job._get_dag_run(given, at_work.job.dag).logical_date == day(2)


def test_a_date_that_has_its_run_gives_the_same_run_again(house):
    at_work = house.at_work(dag_of("a", max_active_runs=1), days=2)
    first = at_work.job._get_dag_run(day(1), at_work.job.dag)
    assert at_work.job._get_dag_run(day(1), at_work.job.dag) == first


def test_a_date_that_is_not_the_jobs_is_refused(house):
    at_work = house.at_work(dag_of("a"), days=2)
    with pytest.raises(ValueError, match=r"2024-01-03T.* is no date"):
        at_work.job._get_dag_run(day(3), at_work.job.dag)


def test_a_session_of_the_caller_is_used_and_committed(house):
    at_work = house.at_work(dag_of("a"))
    with Session(house.engine) as session:
        get_run(at_work, session=session)
    assert house.runs() == {1: "running"}


def test_the_dag_of_another_job_is_refused(house):
    at_work = house.at_work(dag_of("a"))
    with pytest.raises(ValueError, match="is about DAG 'd', not 'other'"):
        at_work.job._get_dag_run(at_work.dates()[0], DAG("other"))


# -- _task_instances_for_dag_run ----------------------------------------------------------------------------------------


def keys_of(task_instances):
    return sorted(key.task_id for key in task_instances)


def test_task_instances_are_made_and_the_ready_ones_scheduled(house):
    at_work = house.at_work(dag_of("a", "b < a", "c"))
    to_run = at_work.job._task_instances_for_dag_run(get_run(at_work))
    assert keys_of(to_run) == ["a", "b", "c"]
    assert house.states() == {"a1": "scheduled", "b1": "none", "c1": "scheduled"}
    assert to_run[next(key for key in to_run if key.task_id == "a")].facts.state == "scheduled"


def test_only_what_is_to_run_is_returned(house):
    house.plant_run(1, {"a": "success", "b": "failed", "c": "skipped", "d": "none"}, state="failed")
    at_work = house.at_work(dag_of("a", "b", "c", "d"))
    to_run = at_work.job._task_instances_for_dag_run(get_run(at_work))
    assert keys_of(to_run) == ["d"]


def test_the_rows_of_tasks_that_are_gone_are_removed_and_those_of_new_ones_made(house):
    house.plant_run(1, {"old": "success", "a": "success"})
    at_work = house.at_work(dag_of("a", "new < a"))
    to_run = at_work.job._task_instances_for_dag_run(get_run(at_work))
    assert keys_of(to_run) == ["new"]
    assert house.states() == {"old1": "removed", "a1": "success", "new1": "scheduled"}


def test_a_removed_one_whose_task_is_back_starts_anew(house):
    house.plant_run(1, {"a": "removed"})
    at_work = house.at_work(dag_of("a"))
    assert keys_of(at_work.job._task_instances_for_dag_run(get_run(at_work))) == ["a"]
    assert house.states() == {"a1": "scheduled"}


def test_tasks_outside_of_the_subset_are_left_alone(house):
    house.plant_run(1, {"a": "none", "b": "failed"}, state="failed")
    at_work = house.at_work(dag_of("a", "b < a"), task_regex="^a$")
    assert keys_of(at_work.job._task_instances_for_dag_run(get_run(at_work))) == ["a"]
    assert house.states() == {"a1": "scheduled", "b1": "failed"}


def test_what_its_dependencies_decide_is_settled_and_not_to_run(house):
    house.plant_run(1, {"a": "failed", "b": "none", "c": "none"}, state="failed")
    at_work = house.at_work(dag_of("a", "b < a", "c < b"))
    assert at_work.job._task_instances_for_dag_run(get_run(at_work)) == {}
    assert house.states() == {"a1": "failed", "b1": "upstream_failed", "c1": "upstream_failed"}


def test_a_task_with_nothing_to_execute_is_done_at_once(house):
    with dag_of("a") as dag:
        EmptyOperator(task_id="empty")
    at_work = house.at_work(dag)
    assert keys_of(at_work.job._task_instances_for_dag_run(get_run(at_work))) == ["a"]
    assert house.states() == {"a1": "scheduled", "empty1": "success"}


def test_the_rows_have_what_the_dag_says(house):
    dag = dag_of("a", arguments={"a": {"retries": 4, "pool_slots": 2, "queue": "big", "priority_weight": 7}})
    at_work = house.at_work(dag)
    at_work.job._task_instances_for_dag_run(get_run(at_work))
    columns = ("max_tries", "pool", "pool_slots", "queue", "priority_weight", "operator", "try_number")
    assert house.rows(*columns) == [(4, "default_pool", 2, "big", 7, "PythonOperator", 0)]


def test_a_session_of_the_caller_is_used_for_task_instances_too(house):
    at_work = house.at_work(dag_of("a"))
    run = get_run(at_work)
    with Session(house.engine) as session:
        assert len(at_work.job._task_instances_for_dag_run(run, session)) == 1
    assert house.states() == {"a1": "scheduled"}
