"""Subdags: their runs begin and end with the task instance that stands for them (S13)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from playhouse import dag_of, day
from sqlalchemy import select
from subdag_stage import around, begin, child_of, finish

from backfill.exceptions import DateOwned, NothingToDo, RefusedError, UnknownExecutor, UnknownPool, UsageError
from backfill.models import job_run_date
from backfill.operators import EmptyOperator, SubDagOperator
from backfill.store import pools
from backfill.testing.dags import date_key

FIRST = date_key(day(1))
NOW = timedelta()


def errors_of(report):
    return [(error.kind, error.key.dag_id, error.key.task_id) for error in report.errors]


# -- a run of a subdag begins and ends -------------------------------------------------------------------------------------


def test_a_subdag_runs_when_the_dependencies_of_its_task_are_met_and_the_task_ends_with_it(house):
    report = house.play(around("x", "y < x"), 2)
    assert report.state == "success"
    assert house.states() == dict.fromkeys(("a1", "s1", "z1", "a2", "s2", "z2"), "success")
    assert house.states("d.s") == dict.fromkeys(("x1", "y1", "x2", "y2"), "success")
    assert house.runs("d.s") == {1: "success", 2: "success"}


def test_no_task_of_a_subdag_has_a_row_before_the_dependencies_are_met(house):
    at_work = house.at_work(around("x"))
    at_work.admit()
    at_work.process()
    assert house.states() == {"a1": "queued", "s1": "none", "z1": "none"}
    assert (house.states("d.s"), house.runs("d.s")) == ({}, {})


def test_its_task_runs_without_a_worker_an_attempt_or_a_heartbeat(house):
    at_work = begin(house, around("x"))
    columns = ("state", "try_number", "external_executor_id", "hostname", "heartbeat_at", "executor")
    assert house.rows(*columns, task_id="s") == [("running", 1, None, None, None, "silent")]
    assert house.rows("start_date", task_id="s") != [None]
    assert at_work.executor.order() == ["a1", "x1"]


def test_its_run_has_date_interval_and_id_of_the_run_that_it_belongs_to(house):
    house.play(around("x"))
    names = ("run_id", "logical_date", "data_interval_start", "data_interval_end", "run_type", "external_trigger")
    above, below = house.run_row(1), house.run_row(1, "d.s")
    assert [getattr(below, name) for name in names] == [getattr(above, name) for name in names]
    assert below.creating_job_id == above.creating_job_id is not None


@pytest.mark.parametrize(
    ("of_task", "of_job", "found"),
    [({"n": 1}, {"n": 2}, {"n": 1}), (None, {"n": 2}, {"n": 2}), (None, None, {}), ({}, {"n": 2}, {})],
)
def test_its_run_has_the_conf_of_the_task_else_that_of_the_run_that_it_belongs_to(house, of_task, of_job, found):
    house.play(around("x", conf=of_task), conf=of_job)
    assert house.run_row(1, "d.s").conf == found


def test_subdags_of_subdags_work_alike(house):
    dag = dag_of("a")
    child = child_of(dag, "x", below="a")
    child_of(child, "deep", below="x", task_id="t")
    report = house.play(dag, 2)
    assert report.state == "success"
    assert house.states("d.s.t") == {"deep1": "success", "deep2": "success"}
    assert house.states("d.s") == dict.fromkeys(("x1", "t1", "x2", "t2"), "success")
    assert report.tasks["total"] == report.tasks["success"] == 10


def test_a_subdag_without_tasks_ends_at_once(house):
    assert house.play(around()).state == "success"
    assert house.runs("d.s") == {1: "success"}


def test_several_subdags_run_side_by_side_and_the_runs_of_one_date_by_date(house):
    dag = dag_of("a")
    child_of(dag, "x", task_id="s", below="a")
    child_of(dag, "x", task_id="t", below="a", arguments={"x": {"depends_on_past": True}})
    assert house.play(dag, 3, ignore_first_depends_on_past=True).state == "success"
    assert house.states("d.t") == {"x1": "success", "x2": "success", "x3": "success"}


def test_a_run_of_a_subdag_that_is_there_is_taken_and_keeps_its_run_id(house):
    run_id = house.plant_run(1, {"x": "success"}, "d.s", run_id="mine", state="failed", conf={"n": 1})
    assert house.play(around("x", "y < x")).state == "success"
    row = house.run_row(1, "d.s")
    assert (row.id, row.run_id, row.state, row.conf) == (run_id, "mine", "success", {"n": 1})
    assert house.rows("state", "try_number", dag_id="d.s") == [("success", 1), ("success", 1)]


def test_a_subdag_as_target_runs_by_itself_on_the_dates_of_its_parent(house):
    dag = dag_of("a")
    child = child_of(dag, "x", below="a")
    assert house.play(child, 2).runs["total"] == 2
    assert (house.states("d.s"), house.states()) == ({"x1": "success", "x2": "success"}, {})


# -- failures --------------------------------------------------------------------------------------------------------------


def test_its_task_fails_with_its_run_and_says_what_ended_badly(house):
    report = house.play(around("x", "y < x"), outcomes={"d.s.x": {"*": "failed"}})
    assert house.states() == {"a1": "success", "s1": "failed", "z1": "upstream_failed"}
    assert house.runs("d.s") == {1: "failed"}
    assert house.rows("error", task_id="s") == ["The run of its subdag 'd.s' failed: x, y ended badly."]
    assert report.exit_code == 1
    assert errors_of(report) == [
        ("failed", "d.s", "x"),
        ("upstream_failed", "d.s", "y"),
        ("failed", "d", "s"),
        ("upstream_failed", "d", "z"),
    ]


def test_a_retry_of_its_task_clears_what_ended_badly_in_it_first(house):
    outcomes = {"d.s.y": {"*": ["failed"]}}
    report = house.play(around("x", "y < x", "w < y", retries=1, retry_delay=NOW), outcomes=outcomes)
    assert (report.state, report.errors) == ("success", ())
    assert house.rows("task_id", "state", "try_number", dag_id="d.s") == [
        ("x", "success", 1),
        ("y", "success", 2),
        ("w", "success", 1),
    ]
    assert house.rows("try_number", task_id="s") == [2]
    assert house.runs("d.s") == {1: "success"}


def test_what_a_retry_clears_is_no_failure_of_the_job_so_that_further_dates_are_admitted(house):
    dag = around("x", retries=1, retry_delay=NOW, max_active_runs=1)
    report = house.play(dag, 3, {"d.s.x": {FIRST: ["failed"]}}, max_active_runs=1)
    assert (report.state, report.runs["success"]) == ("success", 3)


def test_what_ended_badly_counts_once_its_task_has_failed_for_good(house):
    dag = around("x", retries=1, retry_delay=NOW)
    report = house.play(dag, 3, {"d.s.x": {FIRST: ["failed", "failed"]}}, max_active_runs=1)
    assert (report.state, report.runs["finished"]) == ("failed", 1)
    assert house.rows("task_id", "state", "try_number", dag_id="d.s") == [("x", "failed", 2)]


def test_what_ended_badly_in_a_run_that_ended_well_is_a_failure_of_the_job(house):
    dag = around("x", "y < x", arguments={"y": {"trigger_rule": "all_done"}})
    report = house.play(dag, outcomes={"d.s.x": {"*": "failed"}})
    assert house.states()["s1"] == "success"
    assert (report.state, errors_of(report)) == ("failed", [("failed", "d.s", "x")])


@pytest.mark.parametrize(("budget", "admitted"), [("1", 1), ("3", 2), ("50%", 3)])
def test_failures_in_subdags_count_for_the_budget_of_the_job(house, budget, admitted):
    dag = around("x")  # x and s of each date fail; 50 % of 16 are 8
    report = house.play(dag, 4, {"d.s.x": {"*": "failed"}}, max_failures=budget, max_active_runs=1)
    assert (report.state, report.runs["finished"]) == ("failed", min(4, {"50%": 4}.get(budget, admitted)))


def test_a_job_may_forbid_the_retry_of_its_task(house):
    dag = around("x", retries=3, retry_delay=NOW)
    report = house.play(dag, outcomes={"d.s.x": {"*": ["failed"]}}, disable_retry=True)
    assert (report.state, house.rows("try_number", task_id="s")) == ("failed", [1])


def test_a_retry_reaches_into_a_subdag_of_a_subdag(house):
    dag = dag_of("a")
    child = child_of(dag, "x", below="a", retries=1, retry_delay=NOW)
    child_of(child, "deep", "done < deep", below="x", task_id="t")
    report = house.play(dag, outcomes={"d.s.t.deep": {"*": ["failed"]}})
    assert (report.state, report.errors) == ("success", ())
    assert house.rows("try_number", task_id="deep") == [2]
    assert house.rows("try_number", task_id="x") == [1]


def test_callbacks_of_the_task_and_of_the_subdag_are_called(house):
    told = []
    dag = around(
        "x",
        retries=1,
        retry_delay=NOW,
        on_retry_callback=lambda context: told.append(f"retry of {context['task'].task_id}"),
        on_success_callback=lambda context: told.append(f"success of {context['task'].task_id}"),
        on_failure_callback=lambda context: told.append(f"{context['dag'].dag_id}: {context['reason']}"),
    )
    house.play(dag, outcomes={"d.s.x": {"*": ["failed"]}})
    assert told == ["d.s: task_failure", "retry of s", "success of s"]


# -- skips -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outcome", "state"), [("skipped", "skipped"), ("failed", "upstream_failed")])
def test_a_subdag_whose_task_is_settled_gets_no_run(house, outcome, state):
    report = house.play(around("x"), 2, {"a": {"*": outcome}}, continue_on_failures=True)
    assert house.states()["s1"] == house.states()["s2"] == state
    assert house.runs("d.s") == {}
    assert report.tasks["total"] == 6


@pytest.mark.parametrize(
    ("option", "skipped", "state"),
    [
        (None, ["x", "y"], "success"),
        ("any_leaf", [], "success"),
        ("any_leaf", ["x"], "skipped"),
        ("all_leaves", ["x"], "success"),
        ("all_leaves", ["x", "y"], "skipped"),
    ],
)
def test_its_task_decides_to_skip_its_children_when_any_or_all_leaves_were_skipped(house, option, skipped, state):
    dag = around("w", "x < w", "y < w", propagate_skipped_state=option)
    report = house.play(dag, outcomes={f"d.s.{task_id}": {"*": "skipped"} for task_id in skipped})
    assert report.state == "success"
    assert house.states() == {"a1": "success", "s1": "success", "z1": state}


def test_the_run_after_one_whose_subdag_was_skipped_does_not_wait_for_it(house):
    dag = around("x", arguments={"x": {"depends_on_past": True}})
    report = house.play(dag, 3, {"a": {date_key(day(2)): "skipped"}})
    assert report.state == "success"
    assert house.states("d.s") == {"x1": "success", "x3": "success"}


# -- limits, pools, flags --------------------------------------------------------------------------------------------------


def test_max_active_tasks_of_a_subdag_holds_for_its_tasks_and_not_for_those_above(house):
    dag = dag_of("p", "q", "r", max_active_tasks=2)
    child_of(dag, "x", "y", "w", max_active_tasks=1)
    at_work = house.at_work(dag)
    at_work.admit()
    at_work.process()
    queued = house.rows("dag_id", state="queued")
    assert (queued.count("d"), queued.count("d.s")) == (2, 1)
    assert house.rows("state", task_id="s") == ["running"]


def test_max_active_runs_does_not_hold_for_runs_of_subdags(house):
    dag = dag_of()
    child_of(dag, "x", max_active_runs=1)
    at_work = house.at_work(dag, 3)
    at_work.admit()
    at_work.process()
    assert house.runs("d.s") == {1: "running", 2: "running", 3: "running"}
    assert at_work.executor.order() == ["x1", "x2", "x3"]


def test_a_date_that_waits_for_the_runs_of_others_holds_back_no_subdag(house):
    dag = dag_of("a", max_active_runs=2)
    child_of(dag, "x", below="a")
    house.plant_run(9, {"a": "running"}, state="running", run_type="manual")
    assert house.play(dag, 3).state == "success"
    assert house.states("d.s") == {"x1": "success", "x2": "success", "x3": "success"}


def test_tasks_of_all_dags_go_by_weight_then_date_then_topology(house):
    dag = dag_of("a", "z", arguments={"z": {"weight_rule": "absolute"}})
    child_of(dag, "x", "urgent", arguments={"urgent": {"priority_weight": 9}})
    dag.task_dict["s"] >> EmptyOperator(task_id="last", dag=dag)
    at_work = house.at_work(dag, 2)
    at_work.admit()
    at_work.process()
    assert at_work.executor.order() == ["urgent1", "urgent2", "a1", "z1", "x1", "a2", "z2", "x2"]


def test_the_pool_of_a_job_reaches_into_subdags_and_holds_them_all(house):
    with house.engine.begin() as tx:
        pools.set_pool(tx, "narrow", 2)
    dag = dag_of("p")
    child_of(dag, "x", "y")
    at_work = house.at_work(dag, pool="narrow")
    at_work.admit()
    at_work.process()
    assert len(house.rows("id", state="queued", pool="narrow")) == 2
    assert set(house.rows("pool")) == {"narrow"}


def test_mark_success_reaches_into_subdags(house):
    report = house.play(around("x", "y < x"), mark_success=True, outcomes={"d.s.x": {"*": "failed"}})
    assert report.state == "success"
    assert house.states("d.s") == {"x1": "success", "y1": "success"}
    assert house.states() == {"a1": "success", "s1": "success", "z1": "success"}


def test_a_subset_with_the_task_has_the_whole_subdag_and_one_without_it_nothing_of_it(house):
    dag = around("x", "y < x")
    assert house.play(dag, task_regex="^a$").tasks["total"] == 1
    assert house.runs("d.s") == {}
    assert house.play(dag, task_regex="^s$").tasks["total"] == 4
    assert house.states("d.s") == {"x1": "success", "y1": "success"}


@pytest.mark.parametrize(
    ("option", "tries"),
    [({}, [2, 1, 1]), ({"reprocess": "failed"}, [2, 2, 2]), ({"rerun_failed_tasks": True}, [2, 2, 1])],
)
def test_what_is_cleared_at_a_date_is_cleared_in_its_subdag_too(house, option, tries):
    dag = around("x", "y < x", arguments={"y": {"retries": 0}})
    house.play(dag, outcomes={"d.s.y": {"*": ["failed"]}})
    if not option:
        house.set_rows(house.rows("id", task_id="z"), state="none")  # s counts as it is
        house.set_run(1, state="failed")
        assert house.play(dag).state == "failed"
        return
    assert house.play(dag, **option).state == "success"
    by_task = dict(house.rows("task_id", "try_number"))
    assert [by_task["y"], by_task["s"], by_task["x"]] == tries


def test_a_failed_task_in_the_subdag_of_a_run_that_ended_well_is_run_again_by_rerun_failed_tasks(house):
    dag = dag_of("a")
    child = child_of(dag, below="a")
    with child:
        SubDagOperator(
            task_id="t", subdag=dag_of("x", "y < x", dag_id="d.s.t", arguments={"y": {"trigger_rule": "all_done"}})
        )
    assert house.play(dag, outcomes={"d.s.t.x": {"*": "failed"}}).state == "failed"
    assert (house.runs(), house.runs("d.s"), house.runs("d.s.t")) == ({1: "success"},) * 3
    assert house.play(dag, rerun_failed_tasks=True).state == "success"
    assert dict(house.rows("task_id", "try_number")) == {"a": 1, "s": 2, "t": 2, "x": 2, "y": 1}


def test_a_run_that_counts_as_done_counts_with_its_subdags_and_nothing_of_it_is_touched(house):
    dag = around("x")
    house.play(dag)
    before = house.run_row(1, "d.s")
    report = house.play(dag, 2)
    assert report.tasks["total"] == report.tasks["success"] == 8
    assert house.run_row(1, "d.s") == before


# -- what is refused -------------------------------------------------------------------------------------------------------


def test_the_job_owns_the_dates_of_its_subdags(house):
    dag = dag_of("a")
    child = child_of(dag, "x", below="a")
    first = house.at_work(dag, 2)
    with house.engine.connect() as tx:
        found = tx.execute(select(job_run_date.c.dag_id, job_run_date.c.active)).all()
    assert sorted(found) == [("d", True), ("d", True), ("d.s", True), ("d.s", True)]
    with pytest.raises(DateOwned, match=rf"Job {first.job.id} owns 2024-01-02T00:00:00\+00:00 of DAG 'd.s'"):
        house.at_work(child, (2, 3))
    assert house.at_work(child, (3, 4))
    with pytest.raises(DateOwned, match=r"of DAG 'd\.s'"):
        house.at_work(dag, (4, 5))


def test_a_run_of_another_type_that_runs_at_a_date_of_a_subdag_has_the_job_refused(house):
    house.plant_run(1, {"x": "running"}, "d.s", state="running", run_type="manual")
    with pytest.raises(DateOwned, match=r"of DAG 'd\.s' is running at"):
        house.at_work(around("x"))
    assert house.rows("state") == ["running"]


def test_a_run_of_another_type_that_came_later_is_waited_for(house):
    at_work = house.at_work(around("x"))
    house.plant_run(1, {"x": "running"}, "d.s", state="running", run_type="manual")
    at_work.admit()
    at_work.process()
    finish(at_work, house, "a")
    assert house.rows("state", task_id="s") == ["none"]
    assert not at_work.job._is_over(at_work.job.course.admission)
    house.set_run(1, state="running")
    with house.engine.begin() as tx:
        tx.exec_driver_sql("update dag_run set state = 'failed' where dag_id = 'd.s'")
    at_work.job.course.rhythm.subdags.end()
    at_work.process()
    assert house.rows("state", task_id="s") == ["running"]


def refused(**of_x):
    return around("x", arguments={"x": of_x})


def test_what_is_checked_of_tasks_is_checked_of_those_of_subdags(house):
    with pytest.raises(UnknownPool, match=r"Task 'x' of DAG 'd\.s' names the pool 'nowhere'"):
        house.play(refused(pool="nowhere"))
    with pytest.raises(UnknownExecutor, match=r"Task 'x' of DAG 'd\.s' names the executor 'nobody'"):
        house.play(refused(executor="nobody"))
    with pytest.raises(
        RefusedError, match=r"DAG 'd\.s' cannot run backwards, as it has tasks that depend on the past: x;"
    ):
        house.play(refused(depends_on_past=True), run_backwards=True)
    assert house.nothing_written()


def test_a_mapped_subdag_is_refused(house):
    dag = dag_of("a")
    with dag:
        SubDagOperator.partial(task_id="s", subdag=dag_of(dag_id="d.s")).expand(conf=[{"n": 1}])
    with pytest.raises(UsageError, match=r"Task 's' of DAG 'd' is a SubDagOperator that is mapped"):
        house.play(dag)


def test_a_range_without_a_date_is_refused_with_and_without_subdags(house):
    with pytest.raises(NothingToDo):
        house.play(around("x"), start_date=day(1) + timedelta(hours=1), end_date=day(1) + timedelta(hours=2))
