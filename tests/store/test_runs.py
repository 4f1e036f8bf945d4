"""Runs: created, taken, counted, read and finished (S2.10 to S2.14)."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from planted import DAY, FIRST_DATE, plant_date, plant_job, plant_run, plant_task_instance
from sqlalchemy import Connection, select, text

from backfill.facts import RunFacts
from backfill.keys import backfill_run_id
from backfill.models import dag_run, job_run_date
from backfill.states import DagRunState, RunType
from backfill.store.runs import (
    admit_dates,
    count_running_runs,
    finish_runs_if_running,
    select_runs,
    select_window_runs,
)


def date(day: int) -> datetime:
    return FIRST_DATE + day * DAY


def job_with_dates(tx: Connection, *days: int) -> int:
    job_id = plant_job(tx)
    for ordinal, day in enumerate(days):
        plant_date(
            tx,
            job_id,
            ordinal,
            None,
            logical_date=date(day),
            data_interval_start=date(day),
            data_interval_end=date(day + 1),
            active=True,
        )
    return job_id


def row(tx: Connection, run_id: int) -> Any:
    return tx.execute(select(dag_run).where(dag_run.c.id == run_id)).one()


def progress(tx: Connection, job_id: int) -> list[tuple[str, int | None]]:
    columns = select(job_run_date.c.progress, job_run_date.c.dag_run_id)
    found = tx.execute(columns.where(job_run_date.c.job_id == job_id).order_by(job_run_date.c.ordinal))
    return [(row.progress, row.dag_run_id) for row in found]


def test_a_new_run_is_made_by_the_job(tx: Connection) -> None:
    job_id = job_with_dates(tx, 3)
    [run] = admit_dates(tx, job_id, "sales", [0], conf={"region": "north"})
    assert run == RunFacts(
        id=run.id,
        dag_id="sales",
        run_id="backfill__2024-01-04T00:00:00+00:00",
        logical_date=date(3),
        data_interval_start=date(3),
        data_interval_end=date(4),
        state="running",
        run_type="backfill",
        conf={"region": "north"},
        start_date=run.start_date,
        ordinal=0,
    )
    made = row(tx, run.id)
    assert (made.creating_job_id, made.job_id, made.external_trigger, made.end_date) == (job_id, job_id, False, None)
    assert made.start_date >= tx.execute(text("select now()")).scalar_one()
    assert progress(tx, job_id) == [("admitted", run.id)]


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2024, 2, 29, tzinfo=UTC),
        datetime(2024, 3, 31, 1, 30, tzinfo=UTC),
        datetime(2024, 1, 1, 5, 6, 7, 89, tzinfo=UTC),
        datetime(987, 1, 1, 23, 59, 59, 999999, tzinfo=UTC),
    ],
)
def test_the_run_id_is_that_of_the_keys(tx: Connection, moment: datetime) -> None:
    tx.execute(text("set timezone to 'America/New_York'"))
    job_id = plant_job(tx)
    plant_date(tx, job_id, 0, None, logical_date=moment, active=True)
    assert [run.run_id for run in admit_dates(tx, job_id, "sales", [0], conf=None)] == [backfill_run_id(moment)]


@pytest.mark.parametrize(
    ("state", "run_type"),
    [(s, RunType.BACKFILL) for s in DagRunState]
    + [(s, t) for s in DagRunState for t in (RunType.MANUAL, RunType.SCHEDULED) if s != DagRunState.RUNNING],
)
def test_a_run_that_is_there_is_taken(tx: Connection, state: DagRunState, run_type: RunType) -> None:
    job_id = job_with_dates(tx, 0)
    before = row(
        tx,
        plant_run(
            tx,
            0,
            run_id="hers",
            state=state,
            run_type=run_type,
            conf={"a": 1},
            end_date=date(9),
            external_trigger=True,
            idle_seconds=5,
            data_interval_end=date(7),
        ),
    )
    [run] = admit_dates(tx, job_id, "sales", [0], conf=None)
    after = row(tx, run.id)
    assert (run.id, run.run_id, run.conf, run.data_interval_end) == (before.id, "hers", {"a": 1}, date(7))
    assert (after.state, after.run_type, after.job_id, after.creating_job_id) == ("running", "backfill", job_id, None)
    assert (after.end_date, after.idle_seconds, after.external_trigger) == (None, 0, True)
    assert after.start_date > before.start_date
    assert progress(tx, job_id) == [("admitted", run.id)]


def test_a_conf_that_is_given_replaces_that_of_a_taken_run(tx: Connection) -> None:
    job_id = job_with_dates(tx, 0, 1)
    plant_run(tx, 0, state="queued", conf={"a": 1})
    assert [run.conf for run in admit_dates(tx, job_id, "sales", [0, 1], conf={})] == [{}, {}]


@pytest.mark.parametrize("run_type", [RunType.MANUAL, RunType.SCHEDULED])
def test_a_running_run_of_another_type_is_left_alone(tx: Connection, run_type: RunType) -> None:
    job_id = job_with_dates(tx, 0, 1)
    before = row(tx, plant_run(tx, 0, run_type=run_type))
    assert [run.ordinal for run in admit_dates(tx, job_id, "sales", [0, 1], conf=None)] == [1]
    assert row(tx, before.id) == before
    assert [p for p, _ in progress(tx, job_id)] == ["pending", "admitted"]


def test_many_dates_are_admitted_at_once_in_their_order(tx: Connection) -> None:
    job_id = job_with_dates(tx, 4, 3, 2, 1, 0)
    taken = plant_run(tx, 2, state="failed")
    runs = admit_dates(tx, job_id, "sales", [0, 1, 2, 3], conf=None)
    assert [(run.ordinal, run.logical_date) for run in runs] == [(i, date(4 - i)) for i in range(4)]
    assert runs[2].id == taken
    assert [p for p, _ in progress(tx, job_id)] == ["admitted"] * 4 + ["pending"]


def test_a_date_is_admitted_once(tx: Connection) -> None:
    job_id = job_with_dates(tx, 0, 1)
    admit_dates(tx, job_id, "sales", [0], conf=None)
    assert [run.ordinal for run in admit_dates(tx, job_id, "sales", [0, 1], conf=None)] == [1]
    assert admit_dates(tx, job_id, "sales", [], conf=None) == []


def test_only_dates_of_this_job_and_dag_that_it_still_owns_are_admitted(tx: Connection) -> None:
    job_id, other = job_with_dates(tx, 0), job_with_dates(tx, 1)
    plant_date(tx, job_id, 1, None, dag_id="sales.sub", active=True)
    plant_date(tx, job_id, 2, None, active=False)
    assert [r.ordinal for r in admit_dates(tx, job_id, "sales", [0, 1, 2], conf=None)] == [0]
    assert [r.dag_id for r in admit_dates(tx, job_id, "sales.sub", [0, 1], conf=None)] == ["sales.sub"]
    assert progress(tx, other) == [("pending", None)]


def test_running_runs_are_counted_over_all_jobs_but_for_triggered_ones(tx: Connection) -> None:
    mine, others = plant_job(tx), plant_job(tx)
    plant_run(tx, 0, job_id=mine)
    plant_run(tx, 1, job_id=others)
    plant_run(tx, 2, run_type="scheduled")
    plant_run(tx, 3, external_trigger=True)
    plant_run(tx, 4, state="queued", job_id=mine)
    plant_run(tx, 5, state="success")
    plant_run(tx, 6, dag_id="other")
    assert count_running_runs(tx, "sales") == (3, 0)
    assert count_running_runs(tx, "sales", mine) == (3, 1)
    assert count_running_runs(tx, "none", mine) == (0, 0)


def test_the_window_is_what_the_job_has_running(tx: Connection) -> None:
    job_id = job_with_dates(tx, 2, 1, 0)
    first, second = admit_dates(tx, job_id, "sales", [0, 1], conf={"a": [1]})
    plant_run(tx, 7)
    assert select_window_runs(tx, job_id) == [first, second]
    finish_runs_if_running(tx, [(first.id, DagRunState.SUCCESS)])
    assert select_window_runs(tx, job_id) == [second]


def test_runs_are_read_in_their_order_of_admission(tx: Connection) -> None:
    former, job_id = plant_job(tx, state="failed"), job_with_dates(tx, 2, 1)
    first, second = admit_dates(tx, job_id, "sales", [0, 1], conf=None)
    plant_date(tx, former, 9, first.id)
    alone = plant_run(tx, 5)
    finish_runs_if_running(tx, [(first.id, DagRunState.FAILED)])
    assert [(run.id, run.ordinal, run.state) for run in select_runs(tx, [alone, second.id, first.id, 0])] == [
        (first.id, 0, "failed"),
        (second.id, 1, "running"),
        (alone, -1, "running"),
    ]
    assert select_runs(tx, []) == []


@pytest.mark.parametrize("state", list(DagRunState))
def test_a_run_finishes_only_while_it_is_running(tx: Connection, state: DagRunState) -> None:
    job_id = plant_job(tx)
    run_id = plant_run(tx, 0, state=state, job_id=job_id)
    plant_date(tx, job_id, 0, run_id, active=True)
    before = row(tx, run_id)
    finished, _ = finish_runs_if_running(tx, [(run_id, DagRunState.FAILED)])
    if state == DagRunState.RUNNING:
        after = row(tx, run_id)
        assert finished == {run_id}
        assert (after.state, after.job_id) == ("failed", None)
        assert after.end_date - before.start_date > timedelta(0)
        assert progress(tx, job_id) == [("finished", run_id)]
    else:
        assert finished == set()
        assert row(tx, run_id) == before
        assert progress(tx, job_id) == [("admitted", run_id)]


def test_many_runs_finish_at_once_each_in_its_state(tx: Connection) -> None:
    former, job_id = plant_job(tx, state="failed"), job_with_dates(tx, *range(4))
    runs = admit_dates(tx, job_id, "sales", range(4), conf=None)
    plant_date(tx, former, 0, runs[0].id, active=False)
    outcomes = [(run.id, DagRunState.FAILED if run.ordinal % 2 else DagRunState.SUCCESS) for run in runs[:3]]
    assert finish_runs_if_running(tx, reversed(outcomes)).finished == {run.id for run in runs[:3]}
    assert [row(tx, run.id).state for run in runs] == ["success", "failed", "success", "running"]
    assert [p for p, _ in progress(tx, job_id)] == ["finished", "finished", "finished", "admitted"]
    assert progress(tx, former) == [("admitted", runs[0].id)]
    assert finish_runs_if_running(tx, outcomes).finished == set()
    assert finish_runs_if_running(tx, []).finished == set()


def test_a_run_goes_on_whose_task_instances_are_not_as_they_were_seen(tx: Connection) -> None:
    job_id = job_with_dates(tx, *range(3))
    runs = admit_dates(tx, job_id, "sales", range(3), conf=None)
    states = ["success", "none", "removed"]
    rows = [plant_task_instance(tx, run.id, state=state) for run, state in zip(runs, states, strict=True)]
    seen = [(rows[0].id, "success"), (rows[1].id, "success")]
    ended = finish_runs_if_running(tx, [(run.id, DagRunState.SUCCESS) for run in runs], seen=seen)
    assert ended == ({runs[0].id, runs[2].id}, {runs[1].id})
    assert [row(tx, run.id).state for run in runs] == ["success", "running", "success"]
    assert [p for p, _ in progress(tx, job_id)] == ["finished", "admitted", "finished"]


@pytest.mark.parametrize("state", [DagRunState.QUEUED, DagRunState.RUNNING])
def test_a_run_ends_well_or_badly_and_in_no_other_way(tx: Connection, state: DagRunState) -> None:
    assert finish_runs_if_running(tx, [(plant_run(tx), state)]).finished == set()
