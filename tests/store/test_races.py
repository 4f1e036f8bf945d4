"""What happens when two processes write at once: limits hold (S5.1), one of two writers wins (S0.2), nobody deadlocks."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from planted import Planted, attempt_of, look, plant_date, plant_job, plant_run, plant_task_instance, waits_for_a_lock
from sqlalchemy import Connection, Engine, insert, text

from backfill.models import slot_pool
from backfill.states import DagRunState, JobState, TaskInstanceState
from backfill.store.claims import claim_if_queued
from backfill.store.clearing import clear_task_instances
from backfill.store.leases import claim_lease_if_free, fence
from backfill.store.recovery import Loss, lose_if_current
from backfill.store.runs import admit_dates, count_running_runs, finish_runs_if_running, lock_runs
from backfill.store.task_instances import (
    QueueRequest,
    lock_limits,
    queue_if_idle,
    select_facts,
    select_facts_of_runs,
    select_occupancy,
    settle_if_idle,
    take_back_if_queued,
)

T = TypeVar("T")
LEASE = timedelta(seconds=30)


def request(row: Planted, pool: str = "default_pool") -> QueueRequest:
    return QueueRequest(row.id, str(uuid4()), pool, "celery")


@pytest.fixture
def while_open(engine: Engine, wait_until: Callable[..., None]) -> Iterator[Callable[..., Any]]:
    """`with while_open(second) as (tx, answer)`: when the block ends `second` waits for `tx`, which is committed then."""
    with ThreadPoolExecutor(1) as pool:

        @contextmanager
        def open_transaction(second: Callable[[Connection], T]) -> Iterator[tuple[Connection, Callable[[], T]]]:
            started: list[Future[T]] = []

            def run() -> T:
                with engine.begin() as tx:
                    return second(tx)

            with engine.begin() as tx:
                yield tx, lambda: started[0].result(timeout=30)
                started.append(pool.submit(run))
                wait_until(lambda: waits_for_a_lock(engine), "the second transaction waits for the first")

        yield open_transaction


def take_places(tx: Connection, job_id: int, rows: list[Planted], pool: str) -> list[int]:
    """What a coordinator does: lock, count, and take what is free."""
    [slots] = lock_limits(tx, ["sales"], [pool]).values()
    taken = sum(row.slots for row in select_occupancy(tx, ["sales"], [pool]))
    return [
        facts.id for facts in queue_if_idle(tx, job_id, [request(row, pool) for row in rows[: max(0, slots - taken)]])
    ]


def test_the_second_of_two_coordinators_counts_what_the_first_has_taken(
    engine: Engine, while_open: Callable[..., Any]
) -> None:
    with engine.begin() as tx:
        tx.execute(insert(slot_pool).values(pool="narrow", slots=3))
        jobs = [plant_job(tx), plant_job(tx)]
        runs = [plant_run(tx, day, job_id=job_id) for day, job_id in enumerate(jobs)]
        rows = [[plant_task_instance(tx, run, f"t{i}", state="none") for i in range(3)] for run in runs]
    with while_open(lambda tx: take_places(tx, jobs[1], rows[1], "narrow")) as (tx, second):
        assert take_places(tx, jobs[0], rows[0][:2], "narrow") == [row.id for row in rows[0][:2]]
    assert len(second()) == 1


def test_a_pool_is_never_overbooked(engine: Engine) -> None:
    """Four coordinators dispatch, take back and dispatch again while an observer counts."""
    with engine.begin() as tx:
        tx.execute(insert(slot_pool).values(pool="narrow", slots=3))
        jobs = [plant_job(tx) for _ in range(4)]
        runs = [plant_run(tx, day, job_id=job_id) for day, job_id in enumerate(jobs)]
        rows = [[plant_task_instance(tx, run, f"t{i}", state="none") for i in range(3)] for run in runs]

    def coordinate(number: int) -> int:
        taken = 0
        for _ in range(8):
            with engine.begin() as tx:
                queued = take_places(tx, jobs[number], rows[number], "narrow")
            taken += len(queued)
            with engine.begin() as tx:
                attempts = {facts.id: facts.attempt_id for facts in select_facts(tx, queued)}
                take_back_if_queued(tx, attempts.items())
        return taken

    seen = {0}
    with ThreadPoolExecutor(4) as pool:
        coordinators = [pool.submit(coordinate, number) for number in range(4)]
        while not all(future.done() for future in coordinators):
            with engine.connect() as observer:
                seen.add(
                    observer.execute(text("select count(*) from task_instance where state = 'queued'")).scalar_one()
                )
    assert sum(future.result() for future in coordinators) > 0
    assert max(seen) <= 3


def test_a_place_is_not_taken_for_what_was_settled_meanwhile(engine: Engine, while_open: Callable[..., Any]) -> None:
    with engine.begin() as tx:
        job_id = plant_job(tx)
        run_id = plant_run(tx, job_id=job_id)
        rows = [plant_task_instance(tx, run_id, name, state="none") for name in "ab"]
    with while_open(lambda tx: queue_if_idle(tx, job_id, [request(row) for row in rows])) as (tx, queued):
        settle_if_idle(tx, [(rows[0].id, TaskInstanceState.SKIPPED)])
    assert [facts.id for facts in queued()] == [rows[1].id]


def test_a_place_is_not_taken_in_a_run_that_was_finished_meanwhile(
    engine: Engine, while_open: Callable[..., Any]
) -> None:
    with engine.begin() as tx:
        job_id = plant_job(tx)
        run_id = plant_run(tx, job_id=job_id)
        row = plant_task_instance(tx, run_id, state="none")
    with while_open(lambda tx: queue_if_idle(tx, job_id, [request(row)])) as (tx, queued):
        finish_runs_if_running(tx, [(run_id, DagRunState.FAILED)])
    assert queued() == []


def test_a_clear_waits_for_the_end_of_a_run_and_reopens_it(engine: Engine, while_open: Callable[..., Any]) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        plant_task_instance(tx, run, state="success")
    with while_open(lambda tx: clear_task_instances(tx, [run], {"load": 0})) as (tx, second):
        lock_runs(tx, [run])
        finish_runs_if_running(tx, [(run, DagRunState.SUCCESS)])
    assert [facts.state for facts in second()] == ["none"]
    with engine.connect() as tx:
        assert tx.execute(text("select state from dag_run")).scalar_one() == "queued"


def test_whoever_ends_a_run_sees_what_was_cleared_just_before(engine: Engine, while_open: Callable[..., Any]) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        plant_task_instance(tx, run, state="success")

    def look(tx: Connection) -> list[str]:
        lock_runs(tx, [run])
        return [facts.state for facts in select_facts_of_runs(tx, [run])]

    with while_open(look) as (tx, second):
        assert clear_task_instances(tx, [run], {"load": 0})
    assert second() == ["none"]


def test_of_claim_and_take_back_one_wins(engine: Engine, while_open: Callable[..., Any]) -> None:
    with engine.begin() as tx:
        run_id = plant_run(tx)
        claimed, taken = plant_task_instance(tx, run_id, "a"), plant_task_instance(tx, run_id, "b")

    def claim(tx: Connection, row: Planted) -> object:
        return claim_if_queued(tx, [attempt_of(row)], hostname="h", pid=1)

    with while_open(lambda tx: take_back_if_queued(tx, [(claimed.id, claimed.attempt_id)])) as (tx, answer):
        assert claim(tx, claimed)
    assert answer() == set()
    with while_open(lambda tx: claim(tx, taken)) as (tx, answer):
        assert take_back_if_queued(tx, [(taken.id, taken.attempt_id)]) == {taken.id}
    assert answer() == []


def test_one_of_two_takes_over_a_job_and_the_former_holder_is_fenced_out(
    engine: Engine, while_open: Callable[..., Any]
) -> None:
    with engine.begin() as tx:
        job_id = plant_job(tx, lease_holder="old", lease_epoch=1)
    running = {JobState.RUNNING}
    with while_open(lambda tx: claim_lease_if_free(tx, job_id, "two", LEASE, running)) as (tx, epoch):
        assert claim_lease_if_free(tx, job_id, "one", LEASE, running) == 2
    assert epoch() is None
    with engine.begin() as tx:
        assert fence(tx, job_id, 2).state == JobState.RUNNING


def test_nobody_takes_over_while_the_holder_writes(engine: Engine, while_open: Callable[..., Any]) -> None:
    with engine.begin() as tx:
        job_id = plant_job(tx, lease_holder="old", lease_epoch=1)
    with while_open(lambda tx: claim_lease_if_free(tx, job_id, "new", LEASE, {JobState.RUNNING})) as (tx, epoch):
        fence(tx, job_id, 1)
    assert epoch() == 2


def test_the_second_of_two_jobs_counts_the_runs_of_the_first(engine: Engine, while_open: Callable[..., Any]) -> None:
    with engine.begin() as tx:
        first, second = plant_job(tx), plant_job(tx)
        plant_date(tx, first, 0, None, active=True)

    def count(tx: Connection) -> int:
        lock_limits(tx, ["sales"], [])
        return count_running_runs(tx, "sales").all

    with engine.begin() as tx:
        lock_limits(tx, ["sales"], [])
    assert second > first
    with while_open(count) as (tx, counted):
        assert count(tx) == 0
        assert len(admit_dates(tx, first, "sales", [0], conf=None)) == 1
    assert counted() == 1


def test_statements_for_the_same_rows_in_opposite_orders_do_not_deadlock(engine: Engine) -> None:
    with engine.begin() as tx:
        job_id = plant_job(tx)
        run_id = plant_run(tx, job_id=job_id)
        rows = [plant_task_instance(tx, run_id, f"t{i}", state="none") for i in range(50)]

    def forwards(tx: Connection) -> None:
        queue_if_idle(tx, job_id, [request(row) for row in rows])

    def backwards(tx: Connection) -> None:
        found = select_facts(tx, [row.id for row in rows])
        lose_if_current(tx, [Loss(facts.id, facts.attempt_id, "x") for facts in reversed(found)])

    def by_task(tx: Connection) -> None:
        clear_task_instances(tx, [run_id], {f"t{i}": 0 for i in reversed(range(50))})

    def repeat_it(work: Callable[[Connection], None]) -> None:
        for _ in range(10):
            with engine.begin() as tx:
                work(tx)

    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(repeat_it, work) for work in (forwards, backwards, by_task)]:
            future.result(timeout=60)
    with engine.begin() as tx:
        assert look(tx, rows[0])["state"] in {"none", "queued"}
