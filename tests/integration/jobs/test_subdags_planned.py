"""What a plan says of subdags: the same as the job does (S13, `plan`)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from playhouse import dag_of, day
from subdag_stage import after, around, child_of

from backfill.exceptions import DateOwned
from backfill.jobs.checks import check_request
from backfill.jobs.outlook import look_ahead
from backfill.jobs.request import BackfillRequest


def plan_of(house, dag, days=1, **request):
    asked = BackfillRequest(start_date=day(1), end_date=day(days), executor="local", **request)
    checked = check_request(dag, asked, house.stage.settings)
    with house.engine.begin() as tx:
        return look_ahead(tx, checked, house.stage.settings)


def lots(plan):
    return [
        (f"{task.dag_id}.{task.task_id}{task.logical_date.day}", str(task.lot))
        for date in plan.dates
        for task in date.tasks
    ]


def test_the_tasks_of_subdags_stand_behind_those_of_the_dag(house):
    dag = around("x", "y < x")
    child_of(dag.subdags[0], "deep", task_id="t", below="x")
    plan = plan_of(house, dag, 2)
    order = ("d.a1", "d.s1", "d.z1", "d.s.x1", "d.s.y1", "d.s.t1", "d.s.t.deep1")
    assert lots(plan)[:7] == [(name, "run") for name in order]
    shown = plan.to_json()
    assert shown["tasks"]["total"] == shown["tasks"]["run"] == 14
    assert shown["runs"]["total"] == 2
    assert house.nothing_written()


def test_what_is_there_of_a_subdag_is_done_cleared_or_left_out_with_its_task(house):
    dag = around("x", "y < x")
    house.play(dag, outcomes={"d.s.y": {"*": "failed"}})
    done = ["d.a1", "d.s1", "d.z1", "d.s.x1", "d.s.y1"]
    assert lots(plan_of(house, dag)) == [(name, "done") for name in done]
    again = dict(lots(plan_of(house, dag, rerun_failed_tasks=True)))
    assert again == {"d.a1": "done", "d.s1": "rerun", "d.z1": "rerun", "d.s.x1": "done", "d.s.y1": "rerun"}
    assert set(dict(lots(plan_of(house, dag, reprocess="failed"))).values()) == {"rerun"}


def test_a_subdag_whose_task_would_be_skipped_is_left_out_with_it(house):
    dag = around("x")
    house.plant_run(1, {"a": "skipped"}, state="running")
    assert lots(plan_of(house, dag)) == [
        ("d.a1", "done"), ("d.s1", "left_out"), ("d.z1", "left_out"), ("d.s.x1", "left_out")
    ]  # fmt: skip


def test_limits_of_a_subdag_are_told_and_pools_are_wanted_by_all_of_them(house):
    dag = dag_of("a", "b")
    child_of(dag, "x", "y", "w", max_active_tasks=2)
    limits = {(row.limit, row.of): (row.wanted, row.binds) for row in plan_of(house, dag).limits}
    assert limits["max_active_tasks", "d.s"] == (3, True)
    assert limits["max_active_tasks", "d"] == (2, False)
    assert limits["pool", "default_pool"] == (5, False)
    assert [of for limit, of in limits if limit == "max_active_runs"] == ["d"]


def test_the_estimate_takes_the_time_of_the_subdag_for_its_task(house):
    dag = around("x", "y < x")
    house.play(dag, 2)
    with house.engine.begin() as tx:
        tx.exec_driver_sql("update task_attempt set end_date = start_date + interval '10 s'")
    estimate = plan_of(house, dag, 4).estimate
    assert estimate.seconds == pytest.approx(40.0)
    assert estimate.by == "the longest run"


def test_a_plan_is_refused_where_the_job_would_be(house):
    dag = around("x")
    house.at_work(dag.subdags[0])
    with pytest.raises(DateOwned, match=r"of DAG 'd\.s'"):
        plan_of(house, dag)


def test_dates_that_are_left_out_are_so_with_their_subdags(house):
    dag = around("x")
    dag.end_date = day(1) + timedelta(hours=1)
    after(dag, "a", "z")
    assert lots(plan_of(house, dag, 2))[4:] == [(f"{name}2", "left_out") for name in ("d.a", "d.s", "d.z", "d.s.x")]


def test_what_failed_in_a_subdag_that_ended_well_is_run_again_with_its_task(house):
    dag = around("x", "y < x", arguments={"y": {"trigger_rule": "all_done"}})
    house.play(dag, outcomes={"d.s.x": {"*": "failed"}})
    planned = dict(lots(plan_of(house, dag, rerun_failed_tasks=True)))
    assert planned == {"d.a1": "done", "d.s1": "rerun", "d.z1": "done", "d.s.x1": "rerun", "d.s.y1": "done"}
    house.play(dag, rerun_failed_tasks=True)
    assert dict(house.rows("task_id", "try_number")) == {"a": 1, "s": 2, "z": 1, "x": 2, "y": 1}
