from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from planted import (
    FIRST_DATE,
    Planted,
    attempt_of,
    look,
    plant_attempt,
    plant_job,
    plant_pickle,
    plant_run,
    plant_task_instance,
    plant_xcom,
    statements,
    waits_for_a_lock,
)
from sqlalchemy import Connection, Engine, update

from backfill.keys import TaskInstanceKey
from backfill.models import task_instance
from backfill.states import TRANSITIONS, TaskInstanceState
from backfill.store.claims import Claim, claim_if_queued

CLAIMABLE = next(row.sources for row in TRANSITIONS if row.rule == "S3.7")


def claim(tx: Connection, planted: Planted, **values: Any) -> Claim | None:
    hostname = values.pop("hostname", "worker-1")
    found = claim_if_queued(tx, [attempt_of(planted, **values)], hostname=hostname, pid=4711)
    return found[0] if found else None


@pytest.mark.parametrize("state", TaskInstanceState)
def test_only_a_queued_task_instance_can_be_claimed(engine: Engine, state: TaskInstanceState) -> None:
    with engine.begin() as tx:
        planted = plant_task_instance(tx, plant_run(tx), state=state, skips=["a"], error="old")
        plant_xcom(tx, planted, "k", 1)
        before = look(tx, planted)
        if state in CLAIMABLE:
            assert claim(tx, planted) is not None
            assert look(tx, planted)["state"] == "running"
        else:
            assert claim(tx, planted) is None
            assert look(tx, planted) == before


@pytest.mark.parametrize(
    "wrong",
    [{"attempt_id": str(uuid4())}, {"try_number": 2}, {"try_number": 0}, {"task_instance_id": 10**9}],
    ids=["another attempt", "a later try", "an earlier try", "another task instance"],
)
def test_a_message_that_is_not_about_the_row_claims_nothing(engine: Engine, wrong: dict[str, Any]) -> None:
    with engine.begin() as tx:
        planted = plant_task_instance(tx, plant_run(tx))
        plant_xcom(tx, planted, "k", 1)
        before = look(tx, planted)
        assert claim(tx, planted, **wrong) is None
        assert look(tx, planted) == before


def test_an_attempt_that_was_taken_back_cannot_be_claimed(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_task_instance(tx, plant_run(tx))
        tx.execute(update(task_instance).values(external_executor_id=None))
        assert claim(tx, planted) is None


def test_a_claim_tells_all_that_the_worker_needs(engine: Engine) -> None:
    with engine.begin() as tx:
        job_id = plant_job(
            tx, params={"mark_success": True}, dag_pickle_hash=plant_pickle(tx), dag_source={"file": "a.py"}
        )
        run_id = plant_run(tx, conf={"region": "north"}, run_type="manual", external_trigger=True)
        planted = plant_task_instance(
            tx,
            run_id,
            "load",
            map_index=3,
            max_tries=2,
            infrastructure_failures=1,
            queued_by_job_id=job_id,
            queued_at=FIRST_DATE,
            pool="wide",
            pool_slots=2,
            queue="fast",
            executor="celery",
            operator="PythonOperator",
            priority_weight=7,
        )
        claimed = claim(tx, planted)
        row = look(tx, planted)
    assert claimed == Claim(
        task_instance_id=planted.id,
        attempt_id=planted.attempt_id,
        dag_run_id=run_id,
        dag_id="sales",
        task_id="load",
        run_id="backfill__2024-01-01T00:00:00+00:00",
        map_index=3,
        try_number=1,
        max_tries=2,
        infrastructure_failures=1,
        start_date=row["start_date"],
        first_start_date=row["first_start_date"],
        queued_at=FIRST_DATE,
        pool="wide",
        pool_slots=2,
        queue="fast",
        executor="celery",
        operator="PythonOperator",
        priority_weight=7,
        logical_date=FIRST_DATE,
        data_interval_start=FIRST_DATE,
        data_interval_end=FIRST_DATE + timedelta(days=1),
        run_type="manual",
        external_trigger=True,
        conf={"region": "north"},
        run_start_date=FIRST_DATE + timedelta(hours=30),
        job_id=job_id,
        job_params={"mark_success": True},
        dag_pickle_hash="cafe",
        dag_source={"file": "a.py"},
    )
    assert isinstance(claimed.attempt_id, str)
    assert claimed.key == TaskInstanceKey("sales", "load", "backfill__2024-01-01T00:00:00+00:00", 3)


def test_a_claim_without_a_job_says_so(engine: Engine) -> None:
    with engine.begin() as tx:
        claimed = claim(tx, plant_task_instance(tx, plant_run(tx), queued_by_job_id=10**9))
    assert claimed is not None
    assert (claimed.job_id, claimed.job_params, claimed.dag_pickle_hash, claimed.dag_source) == (None, {}, None, {})


def test_a_claim_begins_the_attempt_in_row_and_history(engine: Engine) -> None:
    with engine.begin() as tx:
        job_id = plant_job(tx)
        planted = plant_task_instance(
            tx,
            plant_run(tx),
            queued_by_job_id=job_id,
            end_date=FIRST_DATE,
            duration=5.0,
            next_attempt_at=FIRST_DATE,
            skips=["a"],
            error="the last try failed",
            infrastructure_failures=2,
        )
        claim(tx, planted)
        row = look(tx, planted)
    assert row["start_date"] == row["first_start_date"] == row["heartbeat_at"]
    assert datetime.now(UTC) - row["start_date"] < timedelta(minutes=1)
    assert (row["hostname"], row["pid"], row["try_number"], row["try_open"]) == ("worker-1", 4711, 1, True)
    assert row["external_executor_id"] == planted.attempt_id
    assert [row[name] for name in ("end_date", "duration", "next_attempt_at", "skips")] == [None] * 4
    assert (row["error"], row["infrastructure_failures"]) == ("the last try failed", 2)
    assert row["attempts"][planted.attempt_id] == {
        "attempt_id": planted.attempt_id,
        "task_instance_id": planted.id,
        "try_number": 1,
        "job_id": job_id,
        "start_date": row["start_date"],
        "end_date": None,
        "outcome": None,
        "hostname": "worker-1",
        "pid": 4711,
        "error": None,
    }


def test_the_first_start_is_kept_over_later_attempts(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_task_instance(tx, plant_run(tx), first_start_date=FIRST_DATE)
        claimed = claim(tx, planted)
    assert claimed is not None
    assert claimed.first_start_date == FIRST_DATE < claimed.start_date


def test_a_claim_deletes_the_xcoms_of_this_task_instance_only(engine: Engine) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        planted, other = plant_task_instance(tx, run, "a"), plant_task_instance(tx, run, "b")
        for one in (planted, other):
            plant_xcom(tx, one, "return_value", 1)
            plant_xcom(tx, one, "more", [2])
        claim(tx, planted)
        assert look(tx, planted)["xcoms"] == {}
        assert look(tx, other)["xcoms"] == {"return_value": 1, "more": [2]}


def test_claims_of_one_transaction_have_times_of_their_own(engine: Engine) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        first, second = (claim(tx, plant_task_instance(tx, run, task_id)) for task_id in "ab")
    assert first is not None
    assert second is not None
    assert first.start_date < second.start_date


def test_a_claim_is_one_round_trip(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_task_instance(tx, plant_run(tx))
        with statements(engine) as seen:
            claim(tx, planted)
    assert len(seen) == 1


def test_an_attempt_put_back_to_queued_by_hand_can_be_claimed_again(engine: Engine) -> None:
    with engine.begin() as tx:
        planted = plant_task_instance(tx, plant_run(tx))
        plant_attempt(tx, planted, hostname="before")
        assert claim(tx, planted) is not None
        assert look(tx, planted)["attempts"][planted.attempt_id]["hostname"] == "before"


def _claim_elsewhere(engine: Engine, planted: Planted) -> Claim | None:
    with engine.begin() as tx:
        return claim(tx, planted, hostname="worker-2")


@pytest.mark.parametrize("first_commits", [True, False])
def test_of_two_claims_at_once_one_wins(engine: Engine, wait_until: Callable[..., None], first_commits: bool) -> None:
    with engine.begin() as tx:
        planted = plant_task_instance(tx, plant_run(tx))
    with ThreadPoolExecutor(1) as threads, engine.connect() as first:
        assert claim(first, planted) is not None
        second: Future[Claim | None] = threads.submit(_claim_elsewhere, engine, planted)
        wait_until(lambda: waits_for_a_lock(engine), "the second claim waits for the first")
        first.commit() if first_commits else first.rollback()
        assert (second.result(timeout=30) is None) == first_commits
    with engine.begin() as tx:
        row = look(tx, planted)
    assert row["hostname"] == ("worker-1" if first_commits else "worker-2")
    assert len(row["attempts"]) == 1


def test_many_are_claimed_by_one_statement_in_the_order_asked_for(engine: Engine) -> None:
    with engine.begin() as tx:
        job_id = plant_job(tx, params={"conf": 1}, dag_source={"file": "a.py"})
        run = plant_run(tx, conf={"region": "north"})
        planted = [plant_task_instance(tx, run, f"t{n}", queued_by_job_id=job_id) for n in range(5)]
        asked = [attempt_of(planted[n]) for n in (3, 0, 4, 1)]
        with statements(engine) as seen:
            claims = claim_if_queued(tx, asked, hostname="w", pid=1)
            assert claim_if_queued(tx, [], hostname="w", pid=1) == []
        states = [look(tx, one)["state"] for one in planted]
    assert len(seen) == 1
    assert [claim.task_id for claim in claims] == ["t3", "t0", "t4", "t1"]
    assert {(str(c.job_params), str(c.dag_source), str(c.conf)) for c in claims} == {
        ("{'conf': 1}", "{'file': 'a.py'}", "{'region': 'north'}")
    }
    assert states == ["running", "running", "queued", "running", "running"]


def test_each_of_many_is_guarded_by_its_own_row(engine: Engine) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        planted = [plant_task_instance(tx, run, f"t{n}") for n in range(4)]
        tx.execute(
            update(task_instance).where(task_instance.c.id == planted[1].id).values(external_executor_id=str(uuid4()))
        )
        before = [look(tx, one) for one in planted]
        asked = [
            attempt_of(planted[0], try_number=2),
            attempt_of(planted[1]),
            attempt_of(planted[2]),
            attempt_of(planted[2]),
            attempt_of(planted[3], task_instance_id=planted[0].id),
        ]
        claims = claim_if_queued(tx, asked, hostname="w", pid=1)
        after = [look(tx, one) for one in planted]
    assert [claim.task_id for claim in claims] == ["t2"]
    assert [now == then for now, then in zip(after, before, strict=True)] == [True, True, False, True]


def test_claims_for_several_jobs_tell_each_its_own(engine: Engine) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        jobs = [plant_job(tx, params={"number": number}) for number in range(2)]
        rows = [plant_task_instance(tx, run, f"t{n}", queued_by_job_id=[*jobs, 10**9][n % 3]) for n in range(6)]
        claims = claim_if_queued(tx, [attempt_of(row) for row in rows], hostname="w", pid=1)
    assert [claim.job_params for claim in claims] == [{"number": 0}, {"number": 1}, {}] * 2
