from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from planted import (
    DAY,
    FIRST_DATE,
    plant_date,
    plant_job,
    plant_run,
    plant_running,
    plant_task_instance,
    statements,
)
from sqlalchemy import Connection, Engine

from backfill.states import TaskInstanceState
from backfill.store.report import (
    JobCounts,
    Pace,
    RunCounts,
    finished_since,
    job_counts,
    list_job_summaries,
    select_errors,
    select_running,
    select_task_instances,
)

S = TaskInstanceState


def plant_range(tx: Connection) -> int:
    """A job of five dates: a success counted as done, a failure, one that runs, one to come that has a run, one without."""
    job_id = plant_job(tx)
    done = plant_run(tx, 0, state="success")
    failed = plant_run(tx, 1, state="failed")
    running = plant_run(tx, 2)
    to_come = plant_run(tx, 3, state="queued")
    plant_date(tx, job_id, 0, done, action="done", progress="pending")
    plant_date(tx, job_id, 1, failed, progress="finished")
    plant_date(tx, job_id, 2, running, action="take")
    plant_date(tx, job_id, 3, to_come, action="take", progress="pending")
    plant_date(tx, job_id, 4, None)
    for task_id, states in {"b": ["success", "failed", "running"], "a": ["skipped", "upstream_failed", "none"]}.items():
        for run, state in zip([done, failed, running], states, strict=True):
            plant_task_instance(tx, run, task_id, state=state)
    plant_task_instance(tx, running, "c", state="removed")
    plant_task_instance(tx, to_come, "a", state="failed")
    return job_id


def counted(counts: JobCounts) -> dict[str, int]:
    return {str(state): count for state, count in counts.states.items() if count}


def test_runs_and_task_instances_of_admitted_dates_are_counted(engine: Engine) -> None:
    with engine.begin() as tx:
        job_id, _ = plant_range(tx), plant_job(tx)
        with statements(engine) as seen:
            counts = job_counts(tx, job_id)
        assert len(seen) == 1
    assert counts.runs == RunCounts(total=5, success=1, failed=1, running=1)
    assert counts.runs.finished == 2
    assert counted(counts) == {
        "success": 1,
        "failed": 1,
        "running": 1,
        "skipped": 1,
        "upstream_failed": 1,
        "none": 1,
        "removed": 1,
    }
    assert set(counts.states) == set(S)
    assert (counts.running, counts.waiting) == (1, 1)


@pytest.mark.parametrize("state", S)
def test_each_state_waits_runs_or_neither(engine: Engine, state: TaskInstanceState) -> None:
    with engine.begin() as tx:
        job_id = plant_job(tx)
        run = plant_run(tx)
        plant_date(tx, job_id, 0, run)
        plant_task_instance(tx, run, state=state)
        counts = job_counts(tx, job_id)
    assert counts.running == (state in {S.QUEUED, S.RUNNING})
    assert counts.waiting == (state in {S.NONE, S.SCHEDULED, S.UP_FOR_RETRY, S.UP_FOR_RESCHEDULE})


def test_a_job_without_dates_has_nothing_to_count(engine: Engine) -> None:
    with engine.begin() as tx:
        counts = job_counts(tx, plant_job(tx))
    assert (counts.runs, counted(counts)) == (RunCounts(), {})


def test_only_chosen_tasks_count_and_all_of_a_subdag(engine: Engine) -> None:
    with engine.begin() as tx:
        job_id = plant_range(tx)
        child = plant_run(tx, 2, dag_id="sales.child")
        plant_date(tx, job_id, 2, child, dag_id="sales.child")
        plant_task_instance(tx, child, "inner", state="failed")
        counts = job_counts(tx, job_id, task_ids=["a"])
        assert counted(counts) == {"skipped": 1, "upstream_failed": 1, "none": 1, "failed": 1}
        assert counts.runs.total == 5
        errors = select_errors(tx, job_id, topological_order=["a"], task_ids={"a"})
        assert [(error.dag_id, error.task_id) for error in errors] == [("sales", "a"), ("sales.child", "inner")]
        assert len(select_task_instances(tx, job_id, task_ids=["a"])) == 4


def test_errors_come_by_run_date_then_topology_then_map_index(engine: Engine) -> None:
    with engine.begin() as tx:
        job_id = plant_job(tx)
        for ordinal, day in enumerate((1, 0)):  # a job that runs backwards
            run = plant_run(tx, day)
            plant_date(tx, job_id, ordinal, run, logical_date=FIRST_DATE + day * DAY)
            for task_id, index, state in (
                ("a", -1, "upstream_failed"),
                ("unknown", -1, "failed"),
                ("z", 10, "failed"),
                ("z", 2, "failed"),
                ("z", 1, "success"),
                ("m", -1, "none"),
            ):
                plant_task_instance(
                    tx, run, task_id, map_index=index, state=state, error="why", try_number=2, hostname="h"
                )
        errors = select_errors(tx, job_id, topological_order=["z", "m", "a"])
    assert [(error.logical_date, error.task_id, error.map_index, error.state) for error in errors] == [
        (FIRST_DATE + day * DAY, task_id, index, state)
        for day in (0, 1)
        for task_id, index, state in (
            ("z", 2, "failed"),
            ("z", 10, "failed"),
            ("a", -1, "upstream_failed"),
            ("unknown", -1, "failed"),
        )
    ]
    first = errors[0]
    assert (first.dag_id, first.run_id, first.try_number, first.error, first.hostname) == (
        "sales",
        "backfill__2024-01-01T00:00:00+00:00",
        2,
        "why",
        "h",
    )


def test_task_instances_are_told_in_the_words_of_the_interface(engine: Engine) -> None:
    with engine.begin() as tx:
        job_id = plant_job(tx)
        run = plant_run(tx)
        plant_date(tx, job_id, 0, run)
        end = FIRST_DATE + timedelta(seconds=2.5)
        planted = plant_task_instance(
            tx, run, state="success", start_date=FIRST_DATE, end_date=end, duration=2.5, hostname="worker-1"
        )
        (row,) = select_task_instances(tx, job_id)
    told = row._asdict()
    assert told == {
        "dag_id": "sales",
        "task_id": "load",
        "run_id": "backfill__2024-01-01T00:00:00+00:00",
        "logical_date": FIRST_DATE,
        "map_index": -1,
        "state": "success",
        "try_number": 1,
        "start_date": FIRST_DATE,
        "end_date": end,
        "duration": 2.5,
        "hostname": "worker-1",
        "external_executor_id": planted.attempt_id,
        "error": None,
    }


def test_task_instances_of_one_state_can_be_asked_for(engine: Engine) -> None:
    with engine.begin() as tx:
        job_id = plant_range(tx)
        rows = select_task_instances(tx, job_id, topological_order=["b", "a"])
        assert [(row.logical_date.day, row.task_id) for row in rows] == [
            (day, task_id) for day in (1, 2, 3) for task_id in ("b", "a")
        ] + [(3, "c")]
        failed = select_task_instances(tx, job_id, S.FAILED)
        assert [(row.logical_date.day, row.task_id, row.state) for row in failed] == [(2, "b", "failed")]
        assert select_task_instances(tx, job_id, S.SCHEDULED) == []


def test_what_runs_now_is_told_with_its_age_the_longest_first(engine: Engine) -> None:
    with engine.begin() as tx:
        job_id = plant_job(tx)
        other = plant_job(tx)
        run, foreign = plant_run(tx, job_id=job_id), plant_run(tx, 1, job_id=other)
        plant_date(tx, job_id, 0, run)
        plant_date(tx, other, 1, foreign)
        start = datetime.now(UTC) - timedelta(hours=2)
        plant_running(tx, run, "short")
        plant_running(tx, run, "long", start_date=start, hostname="worker-1")
        plant_task_instance(tx, run, "waits")
        plant_running(tx, foreign, "foreign")
        running = select_running(tx, job_id)
        assert [one.task_id for one in select_running(tx, job_id, limit=1)] == ["long"]
    assert [one.task_id for one in running] == ["long", "short"]
    assert timedelta(hours=2) <= running[0].elapsed < timedelta(hours=3)
    assert (running[0].hostname, running[0].logical_date, running[0].try_number) == ("worker-1", FIRST_DATE, 1)


def test_the_pace_counts_what_this_job_finished_within_the_window(engine: Engine) -> None:
    now = datetime.now(UTC)
    with engine.begin() as tx:
        job_id = plant_job(tx, start_date=now - timedelta(hours=1))
        run, early = plant_run(tx), plant_run(tx, 1, state="success", end_date=now - timedelta(minutes=30))
        done = plant_run(tx, 2, state="success", end_date=now)
        plant_date(tx, job_id, 0, run)
        plant_date(tx, job_id, 1, early, progress="finished")
        plant_date(tx, job_id, 2, done, action="done", progress="finished")
        just_now, before = now - timedelta(seconds=20), now - timedelta(minutes=31)
        for task_id, state, end in (
            ("a", "success", just_now),
            ("b", "failed", just_now),
            ("c", "upstream_failed", just_now),
            ("d", "skipped", just_now),
            ("e", "up_for_retry", just_now),
            ("f", "removed", just_now),
            ("g", "success", before),
        ):
            plant_task_instance(tx, run, task_id, state=state, end_date=end)
        plant_task_instance(tx, early, "a", state="success", end_date=before)
        plant_task_instance(tx, done, "a", state="success", end_date=just_now)
        assert finished_since(tx, job_id) == Pace(4, timedelta(seconds=60))
        assert finished_since(tx, job_id).per_second == pytest.approx(4 / 60)
        assert finished_since(tx, job_id, timedelta(minutes=50)) == Pace(6, timedelta(minutes=50))
        longer = finished_since(tx, job_id, timedelta(days=1))
        assert longer.finished == 6
        assert timedelta(hours=1) <= longer.elapsed < timedelta(hours=2)


def test_the_pace_of_a_job_that_ended_is_that_before_its_end(engine: Engine) -> None:
    with engine.begin() as tx:
        end = FIRST_DATE + timedelta(seconds=10)
        job_id = plant_job(tx, state="success", start_date=FIRST_DATE, end_date=end)
        run = plant_run(tx, state="success", end_date=end)
        plant_date(tx, job_id, 0, run, progress="finished")
        plant_task_instance(tx, run, state="success", end_date=FIRST_DATE + timedelta(seconds=5))
        plant_task_instance(tx, run, "rerun since", state="success", end_date=FIRST_DATE + DAY)
        assert finished_since(tx, job_id) == Pace(1, timedelta(seconds=10))


def test_a_job_that_has_not_started_has_no_pace(engine: Engine) -> None:
    with engine.begin() as tx:
        pace = finished_since(tx, plant_job(tx, state="queued", start_date=None))
    assert (pace, pace.per_second) == (Pace(0, timedelta(0)), 0.0)


def test_a_job_that_has_finished_nothing_has_a_pace_of_zero(engine: Engine) -> None:
    with engine.begin() as tx:
        pace = finished_since(tx, plant_job(tx))
    assert (pace.finished, pace.per_second) == (0, 0.0)


def test_jobs_are_listed_newest_first_with_how_far_they_came(engine: Engine) -> None:
    with engine.begin() as tx:
        old = plant_range(tx)
        beat = datetime.now(UTC) - timedelta(minutes=10)
        new = plant_job(tx, state="paused", lease_holder="host:1", latest_heartbeat=beat, error="oh", start_date=None)
        jobs = list_job_summaries(tx)
        assert list_job_summaries(tx, limit=1)[0].job_id == new
    assert [job.job_id for job in jobs] == [new, old]
    newest, oldest = jobs
    assert (oldest.runs, oldest.runs_finished, oldest.runs_failed, oldest.lease_age) == (5, 2, 1, None)
    assert (newest.runs, newest.runs_finished, newest.runs_failed) == (0, 0, 0)
    assert (newest.dag_id, newest.state, newest.error, newest.start_date) == ("sales", "paused", "oh", None)
    assert newest.lease_holder == "host:1"
    assert newest.lease_age is not None
    assert timedelta(minutes=10) <= newest.lease_age < timedelta(minutes=20)
