"""What `why` answers for the run of one date."""

from __future__ import annotations

import pytest
from interview import Interview
from playhouse import Playhouse, dag_of, day

from backfill.exceptions import UsageError
from backfill.jobs.why import run as of_runs


def told(ask: Interview, number: int = 1) -> list[str]:
    """Return what is said of the run of a day, and of each of its tasks."""
    answer = ask.inquirer.why_run(ask.job_id, day(number))
    return [answer.answer, *(f"{task.task_id}: {task.held_by}" for task in answer.tasks)]


def test_a_run_that_goes_on_tells_what_holds_each_task_that_is_not_finished(house: Playhouse) -> None:
    dag = dag_of("a", "b < a", "c", "d")
    work = house.at_work(dag)
    work.admit()
    work.process()
    house.set_rows(house.rows("id", task_id="c"), state="success")
    house.set_rows(house.rows("id", task_id="d"), state="running", start_date=day(1))
    assert told(Interview(house, work.job.id, dag)) == [
        "The run of 2024-01-01 is running, 1 of 4 task instances finished: 1 queued, 1 none, 1 success, 1 running.",
        "a: queued",
        "b: upstream",
        "d: running",
    ]


def test_a_run_of_many_tasks_names_the_first_and_counts_the_others(
    house: Playhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_runs, "SHOWN", 2)
    dag = dag_of("a", "b < a", "c < b", "d < c")
    work = house.at_work(dag)
    work.admit()
    answer = Interview(house, work.job.id, dag).inquirer.why_run(work.job.id, day(1))
    assert [task.task_id for task in answer.tasks] == ["a", "b"]
    assert answer.remarks == (f"2 more tasks: `backfill tasks {work.job.id}` shows them all.",)


def test_a_run_that_has_ended_tells_how_and_what_ended_badly_in_it(house: Playhouse) -> None:
    dag = dag_of("a", "b < a", "c")
    report = house.play(dag, (1, 1), outcomes={"a": {"*": "failed"}})
    ask = Interview(house, report.job_id, dag)
    answer = ask.inquirer.why_run(ask.job_id, day(1))
    assert answer.answer == "The run of 2024-01-01 has ended as failed: 1 failed, 1 upstream_failed, 1 success."
    assert [task.answer.split(" at ")[0] for task in answer.tasks] == [
        "a of 2024-01-01 failed",
        "b of 2024-01-01 could not run: by its trigger rule all_success, after a (failed).",
    ]


def test_a_run_all_of_whose_tasks_are_finished_is_about_to_end(house: Playhouse) -> None:
    dag = dag_of("a")
    work = house.at_work(dag)
    work.admit()
    house.set_rows(house.rows("id"), state="success")
    assert told(Interview(house, work.job.id, dag)) == [
        "The run of 2024-01-01 is about to end, all task instances finished: 1 success."
    ]


def test_what_was_left_of_a_run_that_was_stuck_is_told_as_blocked(house: Playhouse) -> None:
    dag = dag_of("a", "b < a", arguments={"a": {"depends_on_past": True}})
    house.plant_run(1, {"a": "failed", "b": "success"}, state="failed")
    report = house.play(dag, (2, 2))
    assert told(Interview(house, report.job_id, dag), 2) == [
        "The run of 2024-01-02 has ended as failed: 2 none.",
        "a: blocked",
        "b: blocked",
    ]


def test_a_run_from_before_the_job_says_that_it_counts_as_done(house: Playhouse) -> None:
    dag = dag_of("a")
    house.plant_run(1, {"a": "failed"}, state="failed")
    report = house.play(dag, (1, 2))
    answer = Interview(house, report.job_id, dag).inquirer.why_run(report.job_id, day(1))
    assert answer.remarks == (f"It was there before job {report.job_id}, and counts as done.",)


def test_a_date_that_is_not_admitted_tells_its_place_and_what_is_in_the_way(house: Playhouse) -> None:
    dag = dag_of("a", max_active_runs=1)
    work = house.at_work(dag, days=3)
    work.admit()
    answer = Interview(house, work.job.id, dag).inquirer.why_run(work.job.id, day(3))
    assert answer.answer == "The run of 2024-01-03 has not begun: its date is not admitted, and 1 date goes before it."
    assert answer.remarks == ("max_active_runs of 1 has no room: the runs of 2024-01-01 are running (1 of this job).",)


def test_a_date_that_is_none_of_the_job_is_wrong_use(house: Playhouse) -> None:
    work = house.at_work(dag_of("a"))
    with pytest.raises(UsageError, match="has no run date 2024-01-09"):
        Interview(house, work.job.id, dag_of("a")).inquirer.why_run(work.job.id, day(9))
