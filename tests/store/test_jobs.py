"""Job rows: state changes with a guard (section 1), and what is read of them."""

from typing import Any

import pytest
from planted import plant_date, plant_job
from sqlalchemy import Connection, select, text, update

from backfill.models import job, job_run_date
from backfill.states import ACTIVE_JOB, FINISHED_JOB, JobState
from backfill.store.jobs import list_jobs, request_cancel_if_active, select_job, set_job_state_if, set_total_runs
from backfill.store.leases import JobControl


def row(tx: Connection, job_id: int) -> Any:
    return tx.execute(select(job).where(job.c.id == job_id)).one()


def owns_dates(tx: Connection, job_id: int) -> bool:
    return tx.execute(select(job_run_date.c.active).where(job_run_date.c.job_id == job_id)).scalars().all()[0]


@pytest.mark.parametrize("state", list(JobState))
def test_the_state_changes_only_from_those_given(tx: Connection, state: JobState) -> None:
    job_id = plant_job(tx, state=state)
    moved = set_job_state_if(tx, job_id, {JobState.QUEUED, JobState.RUNNING}, JobState.PAUSED)
    assert moved is (state in {JobState.QUEUED, JobState.RUNNING})
    assert row(tx, job_id).state == ("paused" if moved else state)


def test_the_state_changes_only_under_the_lease(tx: Connection) -> None:
    job_id = plant_job(tx, lease_holder="me", lease_epoch=3)
    assert not set_job_state_if(tx, job_id, {JobState.RUNNING}, JobState.FAILED, epoch=2)
    assert set_job_state_if(tx, job_id, {JobState.RUNNING}, JobState.PAUSED, epoch=3)
    tx.execute(update(job).values(lease_holder=None))
    assert not set_job_state_if(tx, job_id, {JobState.PAUSED}, JobState.RUNNING, epoch=3)


def test_the_first_start_stays_and_a_final_state_has_an_end(tx: Connection) -> None:
    job_id = plant_job(tx, state="queued", start_date=None)
    set_job_state_if(tx, job_id, {JobState.QUEUED}, JobState.RUNNING)
    started = row(tx, job_id).start_date
    set_job_state_if(tx, job_id, {JobState.RUNNING}, JobState.PAUSED)
    tx.execute(update(job).values(start_date=text("start_date - interval '1 day'")))
    set_job_state_if(tx, job_id, {JobState.PAUSED}, JobState.RUNNING)
    assert started is not None
    assert row(tx, job_id).start_date < started
    assert row(tx, job_id).end_date is None
    set_job_state_if(tx, job_id, {JobState.RUNNING}, JobState.DEADLOCKED)
    assert row(tx, job_id).end_date is not None


@pytest.mark.parametrize("state", list(JobState))
def test_a_job_owns_its_dates_as_long_as_it_is_active(tx: Connection, state: JobState) -> None:
    job_id = plant_job(tx)
    plant_date(tx, job_id, 0, None, active=True)
    set_job_state_if(tx, job_id, {JobState.RUNNING}, state)
    assert owns_dates(tx, job_id) is (state in ACTIVE_JOB)


def test_the_text_of_an_error_is_kept_until_the_job_runs_again(tx: Connection) -> None:
    job_id = plant_job(tx)
    set_job_state_if(tx, job_id, {JobState.RUNNING}, JobState.PAUSED, error="out of luck")
    assert row(tx, job_id).error == "out of luck"
    set_job_state_if(tx, job_id, {JobState.PAUSED}, JobState.RUNNING)
    assert row(tx, job_id).error is None


def test_a_cancel_is_noted_for_the_holder(tx: Connection) -> None:
    job_id = plant_job(tx)
    plant_date(tx, job_id, 0, None, active=True)
    assert request_cancel_if_active(tx, job_id) == JobControl(JobState.RUNNING, cancel_requested=True)
    assert request_cancel_if_active(tx, job_id) == JobControl(JobState.RUNNING, cancel_requested=True)
    assert owns_dates(tx, job_id)


def test_a_queued_job_is_cancelled_at_once(tx: Connection) -> None:
    job_id = plant_job(tx, state="queued")
    plant_date(tx, job_id, 0, None, active=True)
    assert request_cancel_if_active(tx, job_id) == JobControl(JobState.CANCELLED, cancel_requested=True)
    assert row(tx, job_id).end_date is not None
    assert not owns_dates(tx, job_id)


def test_a_queued_job_that_somebody_is_about_to_drive_is_cancelled_by_that_process(tx: Connection) -> None:
    job_id = plant_job(tx, state="queued", lease_holder="host:1:a")
    assert request_cancel_if_active(tx, job_id) == JobControl(JobState.QUEUED, cancel_requested=True)


@pytest.mark.parametrize("state", sorted(FINISHED_JOB))
def test_a_job_that_ended_is_not_cancelled(tx: Connection, state: JobState) -> None:
    job_id = plant_job(tx, state=state)
    assert request_cancel_if_active(tx, job_id) is None
    assert not row(tx, job_id).cancel_requested


def test_a_job_is_read_with_the_age_of_its_holders_heartbeat(tx: Connection) -> None:
    job_id = plant_job(tx, params={"pool": "p"}, lease_holder="me")
    tx.execute(update(job).values(latest_heartbeat=text("now() - interval '1 hour'")))
    set_total_runs(tx, job_id, 31)
    found = select_job(tx, job_id)
    assert found is not None
    assert (found.id, found.dag_id, found.state, found.params, found.total_runs) == (
        job_id,
        "sales",
        "running",
        {"pool": "p"},
        31,
    )
    assert found.heartbeat_age is not None
    assert round(found.heartbeat_age.total_seconds() / 3600) == 1
    tx.execute(update(job).values(lease_holder=None))
    assert select_job(tx, job_id).heartbeat_age is None  # type: ignore[union-attr]
    assert select_job(tx, job_id + 1) is None


def test_the_latest_jobs_are_listed_first(tx: Connection) -> None:
    ids = [plant_job(tx, f"dag{number}") for number in range(3)]
    assert [found.id for found in list_jobs(tx, 2)] == ids[:0:-1]
