"""Who drives a job (S1.4, S1.5)."""

from datetime import timedelta
from typing import Any

import pytest
from planted import plant_job, plant_run
from sqlalchemy import Connection, Engine, select, text, update

from backfill.exceptions import LeaseLost
from backfill.models import dag_run, job
from backfill.states import JobState
from backfill.store.leases import (
    JobControl,
    claim_lease_if_free,
    fence,
    fence_and_lock_limits,
    release_lease_if_held,
    renew_lease_if_held,
    take_waiting_job,
)

TIMEOUT = timedelta(seconds=30)
RUNNING = {JobState.RUNNING}


def ago(seconds: float) -> Any:
    return text(f"now() - interval '{seconds} s'")


def held_job(tx: Connection, silent_for: float = 0, **values: Any) -> int:
    job_id = plant_job(tx, lease_holder="a", lease_epoch=4, **values)
    tx.execute(update(job).where(job.c.id == job_id).values(latest_heartbeat=ago(silent_for)))
    return job_id


def row(tx: Connection, job_id: int) -> Any:
    return tx.execute(select(job).where(job.c.id == job_id)).one()


def idle_seconds(tx: Connection, run_id: int) -> float:
    return tx.execute(select(dag_run.c.idle_seconds).where(dag_run.c.id == run_id)).scalar_one()


def test_a_free_lease_is_claimed_under_a_new_epoch(tx: Connection) -> None:
    job_id = plant_job(tx, lease_epoch=4)
    assert claim_lease_if_free(tx, job_id, "me", TIMEOUT, RUNNING) == 5
    assert (row(tx, job_id).lease_holder, row(tx, job_id).state) == ("me", "running")
    assert row(tx, job_id).latest_heartbeat is not None


def test_a_lease_that_is_renewed_is_not_claimed(tx: Connection) -> None:
    job_id = held_job(tx, silent_for=29)
    assert claim_lease_if_free(tx, job_id, "me", TIMEOUT, RUNNING) is None
    assert (row(tx, job_id).lease_holder, row(tx, job_id).lease_epoch) == ("a", 4)


def test_a_lease_that_ran_out_is_claimed(tx: Connection) -> None:
    job_id = held_job(tx, silent_for=31)
    assert claim_lease_if_free(tx, job_id, "me", TIMEOUT, RUNNING) == 5


@pytest.mark.parametrize("state", list(JobState))
def test_a_lease_is_claimed_in_the_states_asked_for(tx: Connection, state: JobState) -> None:
    job_id = plant_job(tx, state=state)
    epoch = claim_lease_if_free(tx, job_id, "me", TIMEOUT, {JobState.PAUSED, JobState.QUEUED})
    assert epoch == (1 if state in {JobState.PAUSED, JobState.QUEUED} else None)


def test_a_job_that_is_not_there_has_no_lease(tx: Connection) -> None:
    assert claim_lease_if_free(tx, 77, "me", TIMEOUT, RUNNING) is None
    assert renew_lease_if_held(tx, 77, 1) is None
    assert not release_lease_if_held(tx, 77, 1)


def test_the_holder_renews_and_hears_what_operators_want(tx: Connection) -> None:
    job_id = held_job(tx, silent_for=100, state="paused", cancel_requested=True)
    before = row(tx, job_id).latest_heartbeat
    renewal = renew_lease_if_held(tx, job_id, 4)
    assert renewal == (JobControl(JobState.PAUSED, cancel_requested=True), row(tx, job_id).latest_heartbeat)
    assert row(tx, job_id).latest_heartbeat > before


def test_an_older_epoch_can_do_nothing(tx: Connection) -> None:
    job_id = held_job(tx)
    assert renew_lease_if_held(tx, job_id, 3) is None
    assert not release_lease_if_held(tx, job_id, 3)
    with pytest.raises(LeaseLost, match=f"took over job {job_id}"):
        fence(tx, job_id, 3)
    assert row(tx, job_id).lease_holder == "a"


def test_the_fence_lets_the_holder_through_also_when_nobody_took_its_silent_lease(tx: Connection) -> None:
    job_id = held_job(tx, silent_for=100)
    assert fence(tx, job_id, 4) == JobControl(JobState.RUNNING, cancel_requested=False)


def test_the_fence_locks_limits_for_the_holder_alone(engine: Engine) -> None:
    with engine.begin() as tx:
        job_id = held_job(tx)
    with engine.connect() as tx, pytest.raises(LeaseLost, match=f"took over job {job_id}"):
        fence_and_lock_limits(tx, job_id, 3, ["sales"], ["default_pool"])
    with engine.begin() as tx:
        held, sizes = fence_and_lock_limits(tx, job_id, 4, ["sales", "new", "sales"], ["default_pool", "none of these"])
        assert held == JobControl(JobState.RUNNING, cancel_requested=False)
        assert sizes == {"default_pool": 128}
    asked = "select dag_id from dag where dag_id in ('sales', 'new') order by dag_id for no key update skip locked"
    with engine.connect() as holder, engine.connect() as other:
        fence_and_lock_limits(holder, job_id, 4, ["new"], [])
        assert other.execute(text(asked)).scalars().all() == ["sales"]
        assert other.execute(text("select id from job for no key update skip locked")).all() == []
        other.rollback()
        assert fence_and_lock_limits(holder, job_id, 4, [], []).pool_sizes == {}


def test_who_lost_the_lease_locks_no_limits(engine: Engine) -> None:
    with engine.begin() as tx:
        job_id = held_job(tx)
        fence_and_lock_limits(tx, job_id, 4, ["sales"], [])
    with engine.connect() as stale, engine.connect() as other:
        with pytest.raises(LeaseLost):
            fence_and_lock_limits(stale, job_id, 3, ["sales"], ["default_pool"])
        assert other.execute(text("select dag_id from dag for no key update nowait")).scalars().all() == ["sales"]
        assert len(other.execute(text("select pool from slot_pool for no key update nowait")).all()) == 1


def test_a_released_lease_is_free_at_once_and_its_holder_is_fenced_out(tx: Connection) -> None:
    job_id = held_job(tx)
    assert release_lease_if_held(tx, job_id, 4)
    assert not release_lease_if_held(tx, job_id, 4)
    assert renew_lease_if_held(tx, job_id, 4) is None
    with pytest.raises(LeaseLost):
        fence(tx, job_id, 4)
    assert claim_lease_if_free(tx, job_id, "me", TIMEOUT, RUNNING) == 5


def test_waiting_jobs_are_taken_the_oldest_first(tx: Connection) -> None:
    plant_job(tx)  # run in the foreground: only `resume` takes it over
    plant_job(tx, state="paused", submitted=True)
    held_job(tx, submitted=True)
    queued = plant_job(tx, state="queued", submitted=True)
    orphaned = held_job(tx, silent_for=31, submitted=True)
    released = plant_job(tx, submitted=True, lease_epoch=7)
    for expected in ((queued, 1), (orphaned, 5), (released, 8)):
        assert take_waiting_job(tx, "me", TIMEOUT) == expected
    assert take_waiting_job(tx, "me", TIMEOUT) is None
    assert row(tx, queued).state == "queued"


def test_two_coordinators_take_different_jobs_without_waiting(engine: Engine) -> None:
    with engine.begin() as tx:
        first, second = plant_job(tx, state="queued"), plant_job(tx, state="queued")
    with engine.begin() as one, engine.begin() as other:
        assert take_waiting_job(one, "one", TIMEOUT) == (first, 1)
        assert take_waiting_job(other, "other", TIMEOUT) == (second, 1)
        assert take_waiting_job(other, "other", TIMEOUT) is None


def test_time_without_a_holder_is_idle_time_of_the_runs(tx: Connection) -> None:
    job_id = held_job(tx, silent_for=100)
    long = plant_run(tx, 0, job_id=job_id)
    short = plant_run(tx, 1, job_id=job_id, start_date=ago(40))
    finished, foreign = plant_run(tx, 2, job_id=job_id, state="success"), plant_run(tx, 3)
    claim_lease_if_free(tx, job_id, "me", TIMEOUT, RUNNING)
    assert idle_seconds(tx, long) == pytest.approx(100, abs=20)
    assert idle_seconds(tx, short) == pytest.approx(40, abs=20)
    assert idle_seconds(tx, finished) == idle_seconds(tx, foreign) == 0


def test_time_in_which_the_job_is_paused_is_idle_time_of_the_runs(tx: Connection) -> None:
    job_id = held_job(tx, silent_for=100)
    run_id = plant_run(tx, 0, job_id=job_id)
    renew_lease_if_held(tx, job_id, 4)
    assert idle_seconds(tx, run_id) == 0
    tx.execute(update(job).values(state="paused", latest_heartbeat=ago(50)))
    renew_lease_if_held(tx, job_id, 4)
    assert idle_seconds(tx, run_id) == pytest.approx(50, abs=20)
