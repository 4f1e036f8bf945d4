"""`_update_counters` sorts by the row's state, whatever was remembered (S8.7)."""

import pytest
from playhouse import dag_of
from sqlalchemy.orm import Session

from backfill.jobs import BackfillJob
from backfill.states import TaskInstanceState

BUCKETS = ("to_run", "running", "skipped", "succeeded", "failed", "not_ready", "deadlocked")
BUCKET_OF = {
    TaskInstanceState.SUCCESS: "succeeded",
    TaskInstanceState.SKIPPED: "skipped",
    TaskInstanceState.FAILED: "failed",
    TaskInstanceState.UPSTREAM_FAILED: "failed",
    TaskInstanceState.QUEUED: "running",
    TaskInstanceState.RUNNING: "running",
    TaskInstanceState.NONE: "to_run",
    TaskInstanceState.SCHEDULED: "to_run",
    TaskInstanceState.UP_FOR_RETRY: "to_run",
    TaskInstanceState.UP_FOR_RESCHEDULE: "to_run",
    TaskInstanceState.REMOVED: None,
}


@pytest.fixture
def at_work(house):
    return house.at_work(dag_of("a"))


@pytest.fixture
def ti(at_work):
    run = at_work.job._get_dag_run(at_work.dates()[0], at_work.job.dag)
    (ti,) = at_work.job._task_instances_for_dag_run(run).values()
    return ti


def buckets_with(ti_status, key):
    return [name for name in BUCKETS if key in getattr(ti_status, name)]


def test_there_is_a_bucket_for_every_state():
    assert BUCKET_OF.keys() == set(TaskInstanceState)


@pytest.mark.parametrize("try_number", [0, 1, 7])
@pytest.mark.parametrize("state", TaskInstanceState)
def test_a_running_one_goes_where_its_row_says_also_with_another_try_number(house, at_work, ti, state, try_number):
    ti_status = BackfillJob._DagRunTaskStatus()
    ti_status.running[ti.key] = ti
    house.set_rows(ti.facts.id, state=state, try_number=try_number)
    at_work.job._update_counters(ti_status=ti_status)
    assert buckets_with(ti_status, ti.key) == ([BUCKET_OF[state]] if BUCKET_OF[state] else [])


def test_one_status_follows_a_row_through_many_states(house, at_work, ti):
    ti_status = BackfillJob._DagRunTaskStatus()
    for state in [*TaskInstanceState, *reversed(TaskInstanceState)]:
        ti_status.running[ti.key] = ti
        house.set_rows(ti.facts.id, state=state)
        at_work.job._update_counters(ti_status=ti_status)
        assert buckets_with(ti_status, ti.key) == ([BUCKET_OF[state]] if BUCKET_OF[state] else []), state


def test_what_was_not_running_is_left_where_it_is(house, at_work, ti):
    ti_status = BackfillJob._DagRunTaskStatus(to_run={ti.key: ti})
    house.set_rows(ti.facts.id, state="success")
    at_work.job._update_counters(ti_status=ti_status)
    assert buckets_with(ti_status, ti.key) == ["to_run"]


def test_a_session_of_the_caller_is_used(house, at_work, ti):
    ti_status = BackfillJob._DagRunTaskStatus()
    ti_status.running[ti.key] = ti
    with Session(house.engine) as session:
        house.set_rows(ti.facts.id, state="failed")
        at_work.job._update_counters(ti_status=ti_status, session=session)
    assert ti_status.failed == {ti.key}


def test_what_ended_badly_counts_once_as_a_failure_of_the_job(house, at_work, ti):
    ti_status = BackfillJob._DagRunTaskStatus()
    house.set_rows(ti.facts.id, state="failed")
    for _ in range(3):
        ti_status.running[ti.key] = ti
        at_work.job._update_counters(ti_status=ti_status)
    assert at_work.job.course.policy.failures == 1


def test_without_arguments_the_buckets_are_empty_and_their_own():
    one, other = BackfillJob._DagRunTaskStatus(), BackfillJob._DagRunTaskStatus()
    assert all(len(getattr(one, name)) == 0 for name in (*BUCKETS, "active_runs", "executed_dag_run_dates"))
    assert one.running is not other.running
    assert (one.finished_runs, one.total_runs) == (0, 0)


def test_the_states_that_count_as_running_are_those_in_flight():
    assert set(BackfillJob.STATES_COUNT_AS_RUNNING) == {TaskInstanceState.RUNNING, TaskInstanceState.QUEUED}
