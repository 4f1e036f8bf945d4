"""A job is a row that knows its parameters: enough to go on with it (S1.3, interface.md section 2)."""

import pytest
from playhouse import SilentExecutor, dag_of, day
from sqlalchemy import select
from sqlalchemy.orm import Session

from backfill.executors import LocalExecutor
from backfill.jobs import BackfillJob, BackfillUnfinished, BaseJob
from backfill.jobs.request import BackfillRequest

ASKED = {
    "mark_success": True,
    "donot_pickle": True,
    "ignore_first_depends_on_past": True,
    "ignore_task_deps": True,
    "pool": "default_pool",
    "verbose": True,
    "conf": {"region": "eu", "days": [1, 2]},
    "rerun_failed_tasks": True,
    "run_backwards": True,
    "run_at_least_once": True,
    "continue_on_failures": True,
    "disable_retry": True,
    "max_active_runs": 3,
    "reprocess": "failed",
    "max_failures": "5%",
    "task_regex": "a",
    "ignore_dependencies": True,
}


def test_the_class_says_how_its_rows_are_known():
    assert BackfillJob.__mapper_args__ == {"polymorphic_identity": "BackfillJob"}
    assert issubclass(BackfillJob, BaseJob)
    assert BackfillJob.__table__.name == BaseJob.__table__.name == "job"


def test_a_row_read_back_is_a_backfill_job_that_knows_its_parameters(house):
    cast = house.put_on(dag_of("a"), SilentExecutor(), 5, **ASKED)
    with Session(house.engine) as session:
        job = session.get(BaseJob, cast.job.id)
        assert type(job) is BackfillJob
        assert job.request == BackfillRequest(
            start_date=day(1), end_date=day(5), delay_on_limit_secs=0.01, executor="silent", **ASKED
        )
        assert (job.dag_id, job.state, job.total_runs) == ("d", "running", 5)
        assert job.dag is None


def test_jobs_are_found_by_a_query_for_either_class(house):
    house.put_on(dag_of("a"), SilentExecutor())
    with Session(house.engine) as session:
        for cls in (BaseJob, BackfillJob):
            assert [type(job) for job in session.scalars(select(cls))] == [BackfillJob]


def test_a_job_that_was_read_back_can_be_driven_to_its_end(house):
    cast = house.put_on(dag_of("a"), SilentExecutor(), 2)
    with Session(house.engine, expire_on_commit=False) as session:
        job = session.get(BaseJob, cast.job.id)
        session.expunge(job)
    job.dag = dag_of("a")
    job.take_up_work(cast.workplace)
    assert job.course.total_runs == 2


def test_a_job_that_was_read_back_says_that_it_needs_its_dag(house):
    cast = house.put_on(dag_of("a"), SilentExecutor())
    with Session(house.engine) as session:
        job = session.get(BaseJob, cast.job.id)
        with pytest.raises(ValueError, match="give it its DAG first"):
            job.take_up_work(cast.workplace)


def test_parameters_stand_where_airflow_has_them():
    dag = dag_of("a")
    job = BackfillJob(dag, day(1), day(2), True, True, True, True, "p", 2.0, True, {"k": 1}, True, True)
    assert job.request == BackfillRequest(
        start_date=day(1),
        end_date=day(2),
        mark_success=True,
        donot_pickle=True,
        ignore_first_depends_on_past=True,
        ignore_task_deps=True,
        pool="p",
        delay_on_limit_secs=2.0,
        verbose=True,
        conf={"k": 1},
        rerun_failed_tasks=True,
        run_backwards=True,
    )
    assert job.dag is dag


def test_defaults_are_those_of_the_interface():
    request = BackfillJob(dag_of("a")).request
    assert request == BackfillRequest()
    assert (request.delay_on_limit_secs, request.ignore_first_depends_on_past, request.executor) == (
        1.0,
        False,
        "celery",
    )


def test_an_executor_is_given_by_keyword():
    executor = LocalExecutor()
    job = BackfillJob(dag_of("a"), executor=executor, max_failures=3)
    assert (job.executor, job.request.executor, job.request.max_failures) == (executor, "local", "3")


def test_steps_say_so_if_the_job_is_not_at_work():
    with pytest.raises(RuntimeError, match="not being driven"):
        BackfillJob(dag_of("a")).reset_state_for_orphaned_tasks()


def test_the_report_hangs_on_the_exception_that_run_raises():
    assert BackfillUnfinished("text", report="the report", exit_code=3).report == "the report"
