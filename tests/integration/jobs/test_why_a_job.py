"""What `why` answers for a whole job, and what is said of a job by a process that did not drive it."""

from __future__ import annotations

from datetime import timedelta

from interview import Interview
from playhouse import Playhouse, dag_of, day

from backfill.jobs.conclusion import job_report
from backfill.jobs.why.answers import Held
from backfill.states import DagRunState, JobState
from backfill.store import pools, runs


def counts(answer) -> dict[str, int]:
    return {str(reason.held_by): reason.count for reason in answer.reasons}


def test_the_reasons_of_a_job_are_counted_with_an_example_each(house: Playhouse) -> None:
    with house.engine.begin() as tx:
        pools.set_pool(tx, "db", 1)
    dag = dag_of("a", "b < a", "c", arguments={"a": {"pool": "db"}}, max_active_runs=3)
    work = house.at_work(dag, days=5)
    work.admit()
    work.process()
    house.set_rows(house.rows("id", task_id="c")[:2], state="running", start_date=day(1))
    answer = Interview(house, work.job.id, dag).about_job()
    assert counts(answer) == {"running": 2, "queued": 2, "upstream": 3, "limit": 2}
    limit = next(reason for reason in answer.reasons if reason.held_by is Held.LIMIT)
    assert limit.what.startswith(
        "waiting for a place in pool 'db': 1 of 1 slot is taken by d.a of 2024-01-01 (queued for"
    )
    assert limit.example == "a of 2024-01-02"
    assert answer.sentences[0].startswith(f"Job {work.job.id} of d is running, driven by process ")
    dates = answer.dates
    assert (dates.total, dates.finished, dates.in_window, dates.not_admitted) == (5, 0, 3, 2)
    assert dates.why is not None
    assert dates.why.startswith(
        "max_active_runs of 3 has no room: the runs of 2024-01-01, 2024-01-02 and 2024-01-03 are"
    )
    of_b = Interview(house, work.job.id, dag).about_job("b")
    assert (counts(of_b), of_b.task_id) == ({"upstream": 3}, "b")


def test_a_job_all_of_whose_dates_wait_says_that_nothing_is_unfinished(house: Playhouse) -> None:
    work = house.at_work(dag_of("a"), days=2)
    answer = Interview(house, work.job.id, dag_of("a")).about_job()
    assert answer.notes == ("No task instance is unfinished in the runs that are admitted.",)
    assert answer.dates.why == "There is room for it: 0 of max_active_runs 16 are running."


def test_another_process_names_the_same_blocked_ones_as_the_one_that_drove_the_job(house: Playhouse) -> None:
    dag = dag_of("a", "b < a", "c", arguments={"a": {"depends_on_past": True}})
    house.plant_run(1, {"a": "failed", "b": "success", "c": "success"}, state="failed")
    report = house.play(dag, (2, 4), continue_on_failures=True)
    assert report.state is JobState.DEADLOCKED
    assert [error.key.task_id for error in report.errors] == ["a", "b"] * 3
    ask = Interview(house, report.job_id, dag)
    read = ask.inquirer.report(report.job_id)
    assert read.errors == report.errors
    assert read.hint == report.hint
    answer = ask.about_job()
    assert [(reason.count, reason.what, reason.example) for reason in answer.reasons] == [
        (3, "blocked for good by the run before", "a of 2024-01-02, which waits for a of 2024-01-01 (failed)"),
        (3, "blocked for good by others of the same run", "b of 2024-01-02, which waits for a (not started)"),
    ]
    assert answer.sentences[0].startswith(f"Job {report.job_id} of d has ended as deadlocked at ")


def test_what_somebody_took_since_is_not_told_as_blocked(house: Playhouse) -> None:
    dag = dag_of("a", arguments={"a": {"depends_on_past": True}})
    house.plant_run(1, {"a": "failed"}, state="failed")
    report = house.play(dag, (2, 2))
    ask = Interview(house, report.job_id, dag)
    ask.write("update dag_run set state = 'queued' where logical_date = :date", date=day(2))
    assert ask.inquirer.report(report.job_id).errors == ()


def test_runs_that_timed_out_are_named_also_by_those_who_did_not_see_it(house: Playhouse) -> None:
    dag = dag_of("a", "b < a", dagrun_timeout=timedelta(hours=1))
    work = house.at_work(dag, days=2, continue_on_failures=True)
    work.admit()
    house.set_run(1, start_date=day(1))
    with house.engine.begin() as tx:
        run = house.run_row(1)
        assert job_report(tx, work.job.id).errors == ()
        work.job.course.timeouts.write(tx)
        runs.finish_runs_if_running(tx, [(run.id, DagRunState.FAILED)])
        found = job_report(tx, work.job.id).errors
    assert [(error.kind, error.key.run_id, error.error) for error in found] == [
        ("run_timed_out", run.run_id, "dagrun_timeout of 1:00:00 is over")
    ]


def test_a_job_that_failed_by_earlier_runs_only_hints_at_what_runs_them_again(house: Playhouse) -> None:
    dag = dag_of("a")
    house.plant_run(1, {"a": "failed"}, state="failed")
    report = house.play(dag, (1, 1))
    assert report.state is JobState.FAILED
    assert report.hint is not None
    assert "rerun_failed_tasks (--rerun-failed-tasks) runs it again" in report.hint
    with house.engine.begin() as tx:
        assert job_report(tx, report.job_id).hint == report.hint
    house.plant_run(2, {"a": "success"})
    own = house.play(dag, (1, 3), outcomes={"a": {"*": "failed"}}, continue_on_failures=True)
    assert (own.state, own.hint) == (JobState.FAILED, None)
