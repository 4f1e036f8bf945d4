"""Statements about the runs of subdags and the task instances that stand for them (S3.24, S13)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from planted import FIRST_DATE, look, plant_date, plant_job, plant_run, plant_task_instance
from sqlalchemy import Connection, select, update

from backfill.models import dag_run, job, job_run_date
from backfill.states import IDLE, TRANSITIONS, TaskInstanceState
from backfill.store.subdags import (
    SubdagEnd,
    count_as_done,
    end_if_running,
    lock_dates,
    pass_over_dates,
    pending_counts,
    reopen_dates,
    select_above_failures,
    select_ended_runs,
    start_if_idle,
)

S = TaskInstanceState
ENDS = next(each.targets for each in TRANSITIONS if each.rule == "S3.24" and each.sources == {S.RUNNING})


@pytest.mark.parametrize("state", S)
def test_a_subdag_starts_from_idle_states_only_and_opens_a_try(tx: Connection, state: S) -> None:
    job_id = plant_job(tx)
    row = plant_task_instance(tx, plant_run(tx, job_id=job_id), state=state, try_open=False, next_attempt_at=FIRST_DATE)
    started = start_if_idle(tx, job_id, [row.id])
    assert bool(started) == (state in IDLE)
    now = look(tx, row)
    if started:
        assert (now["state"], now["try_number"], now["try_open"]) == ("running", 2, True)
        assert (now["external_executor_id"], now["heartbeat_at"], now["next_attempt_at"]) == (None, None, None)
        assert now["start_date"] == now["first_start_date"] is not None
    else:
        assert now["state"] == state


def test_a_try_that_is_open_goes_on(tx: Connection) -> None:
    job_id = plant_job(tx)
    row = plant_task_instance(tx, plant_run(tx, job_id=job_id), state="none", try_open=True)
    assert [facts.try_number for facts in start_if_idle(tx, job_id, [row.id])] == [1]


@pytest.mark.parametrize("table", [job, dag_run])
def test_nothing_starts_unless_run_and_job_are_running(tx: Connection, table: object) -> None:
    job_id = plant_job(tx)
    row = plant_task_instance(tx, plant_run(tx, job_id=job_id), state="none")
    tx.execute(update(table).values(state="queued"))  # type: ignore[arg-type]
    assert start_if_idle(tx, job_id, [row.id]) == []


@pytest.mark.parametrize("state", S)
def test_the_end_of_a_subdag_is_written_while_its_task_runs_without_an_attempt(tx: Connection, state: S) -> None:
    run_id = plant_run(tx)
    row = plant_task_instance(tx, run_id, state=state, external_executor_id=None, start_date=FIRST_DATE)
    other = plant_task_instance(tx, run_id, "other", state="running")
    ended = end_if_running(tx, [SubdagEnd(each.id, S.SUCCESS, skips=["x"]) for each in (row, other)])
    assert [facts.id for facts in ended] == ([row.id] if state is S.RUNNING else [])
    assert look(tx, other)["state"] == "running"
    if ended:
        now = look(tx, row)
        assert (now["state"], now["try_open"], now["skips"], now["try_number"]) == ("success", False, ["x"], 1)
        assert now["duration"] == (now["end_date"] - FIRST_DATE).total_seconds()


@pytest.mark.parametrize("state", sorted(ENDS))
def test_a_subdag_ends_as_its_rule_says(tx: Connection, state: S) -> None:
    row = plant_task_instance(tx, plant_run(tx), state="running", external_executor_id=None)
    delay = timedelta(minutes=5) if state is S.UP_FOR_RETRY else None
    end_if_running(tx, [SubdagEnd(row.id, state, error="why", retry_delay=delay)])
    now = look(tx, row)
    assert (now["state"], now["error"], now["skips"]) == (state, "why", None)
    assert now["next_attempt_at"] == (now["end_date"] + delay if delay else None)


def test_no_end_and_no_start_is_no_statement(tx: Connection) -> None:
    assert (end_if_running(tx, []), start_if_idle(tx, 1, [])) == ([], [])


@pytest.fixture
def family(tx: Connection) -> int:
    """A job with three dates; that of ordinal 0 is admitted and its subdag has ended, that of 1 is admitted, that of 2 is not."""
    job_id = plant_job(tx)
    for ordinal in range(3):
        top = plant_run(tx, ordinal, job_id=job_id) if ordinal < 2 else None
        plant_date(tx, job_id, ordinal, top, active=True)
        child = plant_run(tx, ordinal, "sales.part", state="failed") if ordinal == 0 else None
        progress = "finished" if ordinal == 0 else "pending"
        plant_date(tx, job_id, ordinal, child, dag_id="sales.part", progress=progress, active=True)
    return job_id


def progress(tx: Connection) -> list[str]:
    asked = select(job_run_date.c.progress).where(job_run_date.c.dag_id == "sales.part")
    return list(tx.execute(asked.order_by(job_run_date.c.ordinal)).scalars())


def test_dates_of_subdags_are_read_passed_over_and_reopened(tx: Connection, family: int) -> None:
    places = [("sales.part", ordinal) for ordinal in range(3)]
    assert [(date.ordinal, date.progress) for date in lock_dates(tx, family, places)] == [
        (0, "finished"),
        (1, "pending"),
        (2, "pending"),
    ]
    pass_over_dates(tx, family, places[:2])
    assert progress(tx) == ["finished", "finished", "pending"]
    reopen_dates(tx, family, places[1:])
    assert progress(tx) == ["finished", "pending", "pending"]
    tx.execute(update(job_run_date).values(active=False))
    pass_over_dates(tx, family, places)
    assert (progress(tx), lock_dates(tx, family, places)) == (["finished", "pending", "pending"], [])


def test_ended_runs_and_those_to_come_are_told_while_the_run_above_goes_on(tx: Connection, family: int) -> None:
    assert [(run.dag_id, run.logical_date, run.ordinal) for run in select_ended_runs(tx, family)] == [
        ("sales.part", FIRST_DATE, 0)
    ]
    assert pending_counts(tx, family) == {"sales.part": 1}
    tx.execute(update(job_run_date).where(job_run_date.c.dag_id == "sales").values(progress="finished"))
    assert (select_ended_runs(tx, family), pending_counts(tx, family)) == ([], {})


def test_dates_that_count_as_done_count_with_what_is_found_in_subdags(tx: Connection, family: int) -> None:
    run_id = plant_run(tx, 1, "sales.part", state="success")
    tx.execute(update(job_run_date).where(job_run_date.c.ordinal == 1).values(dag_run_id=run_id))
    for task_id, state in (("a", "success"), ("b", "success"), ("c", "failed"), ("d", "removed")):
        plant_task_instance(tx, run_id, task_id, state=state)
    assert count_as_done(tx, family, [1, 2]) == {1: {S.SUCCESS: 2, S.FAILED: 1}, 2: {}}
    assert progress(tx) == ["finished", "finished", "finished"]


def test_tasks_are_found_in_whose_subdags_something_ended_badly(tx: Connection) -> None:
    top = [plant_run(tx, number) for number in range(2)]
    rows = {
        (number, task_id): plant_task_instance(tx, run_id, task_id, state="success")
        for number, run_id in enumerate(top)
        for task_id in ("part", "other", "load")
    }
    deepest = plant_run(tx, 1, "sales.part.deep")
    plant_task_instance(tx, deepest, state="upstream_failed")
    subdags = {"part": ["sales.part", "sales.part.deep"], "other": ["sales.other"]}
    assert select_above_failures(tx, top, subdags) == [rows[1, "part"].id]
    assert select_above_failures(tx, top[:1], subdags) == []
