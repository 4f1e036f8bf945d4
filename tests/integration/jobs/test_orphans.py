"""`reset_state_for_orphaned_tasks`: what is scheduled or queued and held by nobody starts anew (S8.5)."""

from uuid import uuid4

import pytest
from playhouse import dag_of
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from backfill.models import job as job_table
from backfill.states import TaskInstanceState

RESET = {"scheduled", "queued"}


@pytest.fixture
def at_work(house):
    return house.at_work(dag_of("a"))


def plant(house, number, states, **values):
    """A run of another DAG with task instances in `states`."""
    run_id = house.plant_run(
        number, {f"t{n}": state for n, state in enumerate(states)}, **{"dag_id": "other", **values}
    )
    return run_id, house.rows("id", dag_run_id=run_id)


@pytest.mark.parametrize("state", TaskInstanceState)
@pytest.mark.parametrize("run_type", ["backfill", "scheduled", "manual"])
def test_only_what_is_scheduled_or_queued_is_reset_in_runs_of_every_type(house, at_work, state, run_type):
    plant(house, 1, [state], state="running", run_type=run_type)
    assert at_work.job.reset_state_for_orphaned_tasks() == (state in RESET)
    assert house.rows("state", dag_id="other") == ["none" if state in RESET else state]


@pytest.mark.parametrize("run_state", ["queued", "success", "failed"])
def test_runs_that_are_not_running_are_left_alone(house, at_work, run_state):
    plant(house, 1, ["queued", "scheduled"], state=run_state)
    assert at_work.job.reset_state_for_orphaned_tasks() == 0
    assert house.rows("state", dag_id="other") == ["queued", "scheduled"]


def test_without_orphans_the_number_is_zero(at_work):
    assert at_work.job.reset_state_for_orphaned_tasks() == 0


def test_with_a_run_only_that_run_is_looked_at(house, at_work):
    at_work.admit()
    (run,) = at_work.ti_status.active_runs.values()
    house.set_rows(house.rows("id", dag_run_id=run.id), state="scheduled")
    plant(house, 2, ["scheduled", "queued"], state="running")
    assert at_work.job.reset_state_for_orphaned_tasks(filter_by_dag_run=run) == 1
    assert house.rows("state", dag_id="other") == ["scheduled", "queued"]
    assert at_work.job.reset_state_for_orphaned_tasks() == 2


def test_the_attempt_id_is_voided_and_neither_try_nor_budget_is_spent(house, at_work):
    _, ids = plant(house, 1, ["queued"], state="running")
    house.set_rows(ids, external_executor_id=str(uuid4()), try_number=2, try_open=True, infrastructure_failures=1)
    assert at_work.job.reset_state_for_orphaned_tasks() == 1
    columns = ("state", "external_executor_id", "try_number", "try_open", "infrastructure_failures")
    assert house.rows(*columns, dag_id="other") == [("none", None, 2, True, 1)]


def test_what_this_jobs_executors_hold_is_not_reset(house, at_work):
    at_work.admit()
    at_work.process()
    assert at_work.job.reset_state_for_orphaned_tasks() == 0
    at_work.executor.held.clear()
    assert at_work.job.reset_state_for_orphaned_tasks() == 1
    assert house.states() == {"a1": "none"}


def test_what_another_job_with_a_live_lease_drives_is_not_touched(house, at_work):
    other = house.at_work(dag_of("b", dag_id="other"))
    other.admit()
    other.process()
    assert at_work.job.reset_state_for_orphaned_tasks() == 0
    assert house.states("other") == {"b1": "queued"}


def test_what_another_job_with_a_live_lease_queued_elsewhere_is_not_touched(house, at_work):
    other = house.at_work(dag_of("b", dag_id="other"))
    _, ids = plant(house, 5, ["queued", "scheduled"], state="running")
    house.set_rows(ids, queued_by_job_id=other.job.id)
    assert at_work.job.reset_state_for_orphaned_tasks() == 1  # scheduled ones nobody has queued
    assert house.rows("state", dag_id="other") == ["queued", "none"]


def test_what_a_job_whose_lease_has_run_out_left_is_reset(house, at_work):
    other = house.at_work(dag_of("b", dag_id="other"))
    other.admit()
    other.process()
    with house.engine.begin() as tx:
        hour_ago = func.now() - func.make_interval(0, 0, 0, 0, 1)
        tx.execute(update(job_table).where(job_table.c.id == other.job.id).values(latest_heartbeat=hour_ago))
    assert at_work.job.reset_state_for_orphaned_tasks() == 1


def test_a_session_of_the_caller_takes_the_write(house, at_work):
    plant(house, 1, ["scheduled"], state="running")
    with Session(house.engine) as session:
        assert at_work.job.reset_state_for_orphaned_tasks(session=session) == 1
    assert house.rows("state", dag_id="other") == ["none"]
