"""A finished date is cleared while later runs, which fill the window, wait for it (S2.13, S4.9, S9.3, S9.4)."""

from dataclasses import replace

import pytest
from playhouse import JobAtWork, dag_of, day
from sqlalchemy import select

from backfill.coordinator.drive import drive
from backfill.exceptions import BackfillUnfinished
from backfill.executors.mailbox import Mailbox
from backfill.jobs.creation import read_job
from backfill.models import dag_run, task_instance
from backfill.store.clearing import clear_task_instances
from backfill.telemetry import Note
from backfill.testing.script import Script, ScriptedExecutor

PAST = {"a": {"depends_on_past": True}}


def end(house, at_work, state, number):
    """Let what is in flight of the task a end at a date, and with it the date's run."""
    at_work.admit()
    at_work.process()
    house.set_rows(ti_of(house, "a", number), state=state, try_open=False)
    at_work.job._update_counters(at_work.ti_status)
    at_work.job._settle_runs(at_work.ti_status, None)


def ti_of(house, task_id, number):
    chosen = select(task_instance.c.id).join(dag_run, dag_run.c.id == task_instance.c.dag_run_id)
    with house.engine.connect() as tx:
        return tx.execute(
            chosen.where(task_instance.c.task_id == task_id, dag_run.c.logical_date == day(number))
        ).scalar_one()


def clear(house, *numbers):
    with house.engine.begin() as tx:
        clear_task_instances(tx, [house.run_row(number).id for number in numbers], {"a": 0})


def taken_over(house, at_work: JobAtWork, outcomes=None):
    """Let somebody else drive the job to its end, and return its report and the order in which attempts were sent."""
    executor = ScriptedExecutor(house.engine, Script(at_work.job.dag, outcomes or {}))
    sent, queue = [], executor.queue_task_instances

    def note(attempts):
        assert list(house.runs().values()).count("running") <= at_work.job.dag.max_active_runs
        sent.extend(f"{each.attempt.key.task_id}{each.logical_date.day}" for each in attempts)
        return queue(attempts)

    executor.queue_task_instances = note
    job = read_job(house.engine, at_work.job.id)
    job.dag = at_work.job.dag
    workplace = replace(at_work.workplace, executors={executor.name: executor}, mailbox=Mailbox())
    try:
        return drive(job, workplace, at_work.lease, resumed=True), sent
    except BackfillUnfinished as unfinished:
        return unfinished.report, sent


@pytest.mark.parametrize("limit", [1, 2])
def test_cleared_dates_get_the_place_of_a_run_that_waits_for_them(house, limit):
    at_work = house.at_work(dag_of("a", max_active_runs=limit, arguments=PAST), days=5)
    end(house, at_work, "success", 1)
    end(house, at_work, "success", 2)
    clear(house, 1, 2)
    report, sent = taken_over(house, at_work)
    assert report.state == "success"
    assert sent == ["a1", "a2", "a3", "a4", "a5"]
    assert set(house.states().values()) == set(house.runs().values()) == {"success"}
    told = [event.text for event in house.events if isinstance(event, Note) and "is queued again" in event.text]
    assert len(told) == 1


def test_what_a_run_had_done_before_it_gave_way_is_not_done_again(house):
    at_work = house.at_work(dag_of("a", "b", max_active_runs=1, arguments=PAST), days=2)
    end(house, at_work, "success", 1)
    house.set_rows(ti_of(house, "b", 1), state="success", try_open=False)
    at_work.job._update_counters(at_work.ti_status)
    at_work.job._settle_runs(at_work.ti_status, None)
    house.set_rows(ti_of(house, "b", 2), state="success", try_number=1)
    clear(house, 1)
    report, sent = taken_over(house, at_work)
    assert (report.state, sent) == ("success", ["a1", "a2"])


def test_a_date_that_was_cleared_and_is_not_admitted_after_a_failure_ends_the_job_as_deadlocked(house):
    at_work = house.at_work(dag_of("a", max_active_runs=2, arguments=PAST), days=3)
    end(house, at_work, "failed", 1)
    clear(house, 1)
    job, ti_status = at_work.job, at_work.ti_status
    job.course.rhythm._sweep_at = 0.0
    ti_status.observe(job._manage_executor_state(ti_status.running))
    job._execute_for_run_dates(job.course.admission, ti_status, at_work.executor, None, None)
    job._turnover.end(job.course.stuck_outcomes(ti_status), ti_status, None)
    assert [(ti.key.task_id, reason) for ti, _, reason, _ in ti_status.blocked] == [
        ("a", "waits for a of 2024-01-01T00:00:00+00:00 (none)")
    ]
    assert any(
        isinstance(event, Note) and "2024-01-01T00:00:00+00:00 was cleared" in event.text for event in house.events
    )
    assert house.runs() == {1: "queued", 2: "failed"}
