"""Run dates: ownership (S2.6), what is found at them (S2.7), how far they have come (S2.13)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from planted import (
    DAY,
    FIRST_DATE,
    plant_date,
    plant_job,
    plant_run,
    plant_task_instance,
    waits_for_a_lock,
)
from sqlalchemy import Connection, Engine, select, update

from backfill.exceptions import DateOwned
from backfill.models import job_run_date
from backfill.states import JobState
from backfill.store.alignment import TaskTemplate
from backfill.store.dates import (
    DateFound,
    PlannedDate,
    mark_dates,
    own_dates,
    pending_dates,
    select_dates_found,
)
from backfill.store.jobs import set_job_state_if


def date(day: int) -> datetime:
    return FIRST_DATE + day * DAY


def planned(*days: int, action: Any = "create", dag_run_id: int | None = None) -> list[PlannedDate]:
    return [PlannedDate(i, date(d), date(d), date(d + 1), action, dag_run_id) for i, d in enumerate(days)]


def template(task_id: str, map_index: int = -1, *, dynamic: bool = False) -> TaskTemplate:
    return TaskTemplate(task_id, map_index, 0, "default_pool", 1, "backfill", "", "", 1, dynamic)


def end(tx: Connection, job_id: int) -> None:
    set_job_state_if(tx, job_id, {JobState.RUNNING}, JobState.SUCCESS)


def test_dates_are_written_with_all_that_was_planned(tx: Connection) -> None:
    job_id, run_id = plant_job(tx), plant_run(tx, 1)
    own_dates(tx, job_id, "sales", [*planned(5), PlannedDate(1, date(1), date(1), date(2), "done", run_id)])
    own_dates(tx, job_id, "sales", [])
    assert pending_dates(tx, job_id, None) == [
        PlannedDate(0, date(5), date(5), date(6), "create", None),
        PlannedDate(1, date(1), date(1), date(2), "done", run_id, counts_as_running=True),
    ]


def test_a_date_has_one_owner_who_is_named(tx: Connection) -> None:
    first, second = plant_job(tx), plant_job(tx)
    own_dates(tx, first, "sales", planned(0, 1, 2))
    with pytest.raises(DateOwned, match=rf"^Job {first} owns 2024-01-02T00:00:00\+00:00 of DAG 'sales'; wait for it"):
        own_dates(tx, second, "sales", planned(3, 2, 1))


def test_disjoint_dates_and_other_dags_are_free(tx: Connection) -> None:
    first, second = plant_job(tx), plant_job(tx)
    own_dates(tx, first, "sales", planned(0, 1))
    own_dates(tx, first, "sales.sub", planned(0, 1))
    own_dates(tx, second, "sales", planned(2, 3))
    assert pending_dates(tx, first, None) == planned(0, 1)
    assert pending_dates(tx, first, None, dag_id="sales.sub") == planned(0, 1)
    assert pending_dates(tx, second, None) == planned(2, 3)


def test_the_dates_of_a_job_that_ended_are_free(tx: Connection) -> None:
    first, second = plant_job(tx), plant_job(tx)
    own_dates(tx, first, "sales", planned(0, 1))
    end(tx, first)
    own_dates(tx, second, "sales", planned(0, 1))
    assert pending_dates(tx, second, None) == planned(0, 1)


@pytest.mark.parametrize("finally_", ["commit", "rollback"])
def test_of_two_jobs_that_claim_a_date_at_once_one_gets_it(
    engine: Engine, wait_until: Callable[..., None], finally_: str
) -> None:
    """The second, which goes the other way through the dates, waits for the first and then sees what it did (S2.6)."""
    with engine.begin() as tx:
        first, second = plant_job(tx), plant_job(tx)

    def claim_backwards() -> str:
        with engine.begin() as tx:
            own_dates(tx, second, "sales", planned(2, 1, 0))
        return "owned"

    with ThreadPoolExecutor(1) as pool, engine.connect() as tx:
        own_dates(tx, first, "sales", planned(0, 1, 2))
        other = pool.submit(claim_backwards)
        wait_until(lambda: waits_for_a_lock(engine), "the second job waits for the first")
        getattr(tx, finally_)()
        if finally_ == "rollback":
            assert other.result(timeout=30) == "owned"
        else:
            with pytest.raises(DateOwned, match=f"Job {first} owns 2024-01-01"):
                other.result(timeout=30)


def test_jobs_that_go_through_the_same_dates_in_opposite_directions_do_not_deadlock(
    engine: Engine, wait_until: Callable[..., None]
) -> None:
    with engine.begin() as tx:
        first, second = plant_job(tx), plant_job(tx)

    def claim_backwards() -> None:
        with engine.begin() as tx:
            own_dates(tx, second, "sales", planned(1, 0))

    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as tx:
            own_dates(tx, first, "sales", planned(0))
            other = pool.submit(claim_backwards)
            wait_until(lambda: waits_for_a_lock(engine), "the second job waits for the first")
            own_dates(tx, first, "sales", [PlannedDate(1, date(1), date(1), date(2), "create")])
        with pytest.raises(DateOwned):
            other.result(timeout=30)


def test_a_date_released_while_another_job_waited_for_it_is_refused_with_what_to_do(
    engine: Engine, wait_until: Callable[..., None]
) -> None:
    """The insert sees the row of the first job, the question for its name does not any more."""
    with engine.begin() as tx:
        first, second = plant_job(tx), plant_job(tx)
        own_dates(tx, first, "sales", planned(0))

    class EndsTheOwnerInBetween:
        def __init__(self, tx: Connection) -> None:
            self.tx = tx

        def execute(self, *args: Any) -> Any:
            result = self.tx.execute(*args)
            with engine.begin() as other:
                end(other, first)
            return result

    with engine.begin() as tx, pytest.raises(DateOwned, match="has just ended; repeat the command"):
        own_dates(EndsTheOwnerInBetween(tx), second, "sales", planned(0))  # type: ignore[arg-type]


def found(tx: Connection, *templates: TaskTemplate, days: range = range(5)) -> list[DateFound]:
    return select_dates_found(tx, "sales", [date(day) for day in days], templates)


def test_a_date_without_run_or_owner_is_not_found(tx: Connection) -> None:
    plant_run(tx, 2, dag_id="other")
    plant_run(tx, 7)
    assert found(tx, template("a")) == []


def test_what_is_found_at_a_date(tx: Connection) -> None:
    former, owner = plant_job(tx, state="success"), plant_job(tx, state="paused")
    bare = plant_run(tx, 1, run_type="manual", run_id="by hand", state="queued")
    taken = plant_run(tx, 3, state="failed")
    plant_date(tx, former, 1, bare, active=False)
    plant_date(tx, owner, 2, None, active=True)
    plant_date(tx, owner, 3, taken, active=True)
    assert found(tx, template("a")) == [
        DateFound(date(1), bare, "by hand", "queued", "manual", 1, 0, None, None),
        DateFound(date(2), None, None, None, None, 0, 0, owner, "paused"),
        DateFound(date(3), taken, "backfill__2024-01-04T00:00:00+00:00", "failed", "backfill", 1, 0, owner, "paused"),
    ]


@pytest.mark.parametrize(
    ("rows", "unfinished", "ended_badly"),
    [
        ([("a", -1, "success"), ("b", -1, "skipped")], 0, 0),
        ([("a", -1, "failed"), ("b", -1, "upstream_failed")], 0, 2),
        ([("a", -1, "success")], 1, 0),
        ([], 2, 0),
        ([("a", -1, "none"), ("b", -1, "up_for_retry")], 2, 0),
        ([("a", -1, "running"), ("b", -1, "queued")], 2, 0),
        ([("a", -1, "removed"), ("b", -1, "success")], 1, 0),
        ([("a", -1, "success"), ("b", -1, "success"), ("gone", -1, "none"), ("gone", 0, "failed")], 0, 0),
        ([("a", 0, "success"), ("b", -1, "success")], 1, 0),
    ],
)
def test_unfinished_are_missing_rows_and_rows_that_are_not_finished(
    tx: Connection, rows: list[tuple[str, int, str]], unfinished: int, ended_badly: int
) -> None:
    run_id = plant_run(tx, 0, state="success")
    for task_id, map_index, state in rows:
        plant_task_instance(tx, run_id, task_id, map_index=map_index, state=state)
    [there] = found(tx, template("a"), template("b"))
    assert (there.unfinished, there.ended_badly) == (unfinished, ended_badly)


@pytest.mark.parametrize(
    ("rows", "unfinished", "ended_badly"),
    [
        ([(0, "success"), (1, "success")], 0, 0),
        ([(0, "success")], 1, 0),
        ([(0, "failed"), (1, "failed"), (2, "none")], 0, 2),
        ([(-1, "success")], 2, 0),
    ],
)
def test_each_index_of_a_literal_mapping_is_expected(
    tx: Connection, rows: list[tuple[int, str]], unfinished: int, ended_badly: int
) -> None:
    run_id = plant_run(tx, 0, state="success")
    for map_index, state in rows:
        plant_task_instance(tx, run_id, "a", map_index=map_index, state=state)
    [there] = found(tx, template("a", 0), template("a", 1))
    assert (there.unfinished, there.ended_badly) == (unfinished, ended_badly)


@pytest.mark.parametrize(
    ("rows", "unfinished", "ended_badly"),
    [
        ([(0, "success"), (1, "success"), (2, "removed")], 0, 0),
        ([(0, "failed"), (1, "success"), (2, "failed")], 0, 2),
        ([(0, "none"), (1, "queued")], 2, 0),
        ([(-1, "skipped")], 0, 0),
        ([(-1, "none")], 1, 0),
        ([(-1, "removed"), (0, "removed")], 1, 0),
        ([], 1, 0),
    ],
)
def test_a_mapping_expanded_at_run_time_may_have_any_rows(
    tx: Connection, rows: list[tuple[int, str]], unfinished: int, ended_badly: int
) -> None:
    run_id = plant_run(tx, 0, state="success")
    for map_index, state in rows:
        plant_task_instance(tx, run_id, "a", map_index=map_index, state=state)
    [there] = found(tx, template("a", dynamic=True))
    assert (there.unfinished, there.ended_badly) == (unfinished, ended_badly)


def test_pending_dates_come_in_order_and_know_their_run(tx: Connection) -> None:
    job_id = plant_job(tx)
    own_dates(tx, job_id, "sales", planned(4, 3, 2, 1, 0))
    own_dates(tx, job_id, "sales.sub", planned(9))
    running, manual = plant_run(tx, 4), plant_run(tx, 3, run_type="manual", external_trigger=True)
    success = plant_run(tx, 2, state="success")
    pending = pending_dates(tx, job_id, 3)
    assert [(p.ordinal, p.dag_run_id, p.counts_as_running) for p in pending] == [
        (0, running, True),
        (1, manual, False),
        (2, success, False),
    ]
    mark_dates(tx, job_id, [0, 1], "admitted")
    mark_dates(tx, job_id, [2], "finished")
    assert [p.ordinal for p in pending_dates(tx, job_id, None)] == [3, 4]
    assert [p.logical_date for p in pending_dates(tx, job_id, 5, dag_id="sales.sub")] == [date(9)]


def test_dates_are_marked_with_their_runs_while_the_job_is_active(tx: Connection) -> None:
    job_id, run_id = plant_job(tx), plant_run(tx, 0)
    own_dates(tx, job_id, "sales", planned(0, 1))
    own_dates(tx, job_id, "sales.sub", planned(0))

    def progress() -> list[Any]:
        columns = (job_run_date.c.dag_id, job_run_date.c.progress, job_run_date.c.dag_run_id)
        return [
            tuple(row) for row in tx.execute(select(*columns).order_by(job_run_date.c.dag_id, job_run_date.c.ordinal))
        ]

    mark_dates(tx, job_id, [0, 1], "finished", [run_id, None])
    mark_dates(tx, job_id, [1], "admitted")
    mark_dates(tx, job_id, [], "finished")
    assert progress() == [
        ("sales", "finished", run_id),
        ("sales", "admitted", None),
        ("sales.sub", "pending", None),
    ]
    mark_dates(tx, job_id, [0], "admitted", dag_id="sales.sub")
    assert progress()[2] == ("sales.sub", "admitted", None)
    tx.execute(update(job_run_date).values(active=False))
    mark_dates(tx, job_id, [0], "pending")
    assert progress()[0] == ("sales", "finished", run_id)
