"""A clear reaches into subdags, and from a subdag to the task that stands for it (S13.5)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from playhouse import dag_of, day
from sqlalchemy import select, update
from subdag_stage import after, around, begin, child_of, finish, look

from backfill.jobs import BackfillJob
from backfill.jobs.clear import clear, clear_scope, count_clearable
from backfill.jobs.creation import create
from backfill.jobs.request import BackfillRequest
from backfill.models import dag_run, job
from backfill.testing.dags import date_key

TIMEOUT = timedelta(minutes=1)


def clear_in(house, dag, days=(1, 9), **which):
    """Clear, and return what was cleared by task; what is announced before is the same."""
    scope = clear_scope(dag, day(days[0]), day(days[1]), **which)
    with house.engine.begin() as tx:
        foretold = count_clearable(tx, scope, TIMEOUT)
        cleared = clear(tx, scope, TIMEOUT)
    assert foretold == cleared
    return dict(cleared.tasks)


@pytest.fixture
def dag(house):
    """A DAG with a subdag and one in that, all of which ended well on two days."""
    dag = dag_of("a", "z", "other")
    child = child_of(dag, "x", "y", below="a")
    child_of(child, "deep", task_id="t", below="x")
    after(child, "t", "y")
    after(dag, "s", "z")
    assert house.play(dag, 2).state == "success"
    return dag


def test_a_clear_of_a_dag_clears_its_subdags(house, dag):
    assert clear_in(house, dag) == {
        "a": 2, "s": 2, "z": 2, "other": 2, "d.s.x": 2, "d.s.t": 2, "d.s.y": 2, "d.s.t.deep": 2
    }  # fmt: skip
    assert set(house.rows("state")) == {"none"}
    assert house.runs() == house.runs("d.s") == house.runs("d.s.t") == {1: "queued", 2: "queued"}
    assert clear_in(house, dag) == {}


def test_a_clear_of_the_task_clears_its_subdag_and_nothing_downstream(house, dag):
    assert clear_in(house, dag, (1, 1), task_regex="^s$") == {
        "s": 1,
        "d.s.x": 1,
        "d.s.t": 1,
        "d.s.y": 1,
        "d.s.t.deep": 1,
    }
    assert clear_in(house, dag, (2, 2), task_regex="^a$") == {"a": 1}


def test_a_clear_of_a_subdag_alone_clears_its_task_and_what_is_downstream_in_all_dags_above_at_those_dates(house, dag):
    deepest = next(each for each in dag.subdags if each.dag_id == "d.s.t")
    assert clear_in(house, deepest, (2, 2)) == {"deep": 1, "d.s.t": 1, "d.s.y": 1, "d.s": 1, "d.z": 1}
    assert house.states()["s1"] == "success"
    assert house.states() | {"s2": "none", "z2": "none"} == house.states()
    assert (house.runs(), house.runs("d.s.t")) == ({1: "success", 2: "queued"},) * 2
    report = house.play(dag, 2)
    assert (report.state, set(house.rows("state"))) == ("success", {"success"})
    assert house.rows("try_number", task_id="deep") == [1, 2]
    assert house.rows("try_number", task_id="x") == [1, 1]


def test_a_clear_of_what_failed_in_a_subdag_clears_its_task_also_where_that_ended_well(house):
    dag = around("x", "y < x", arguments={"y": {"trigger_rule": "all_done"}})
    house.play(dag, 2, {"d.s.x": {date_key(day(1)): "failed"}}, continue_on_failures=True)
    assert clear_in(house, dag, only_failed=True) == {"s": 1, "d.s.x": 1}
    assert house.play(dag, 2).state == "success"


def test_subdags_downstream_of_a_cleared_subdag_are_cleared_with_it(house):
    dag = dag_of("a")
    child = child_of(dag, "x", below="a")
    child_of(dag, "w", task_id="u", below="s")
    house.play(dag)
    assert clear_in(house, child) == {"x": 1, "d.s": 1, "d.u": 1, "d.u.w": 1}


def test_what_runs_in_a_subdag_is_left_alone(house, dag):
    with house.engine.begin() as tx:
        tx.exec_driver_sql("update task_instance set state = 'running', heartbeat_at = now() where task_id = 'deep'")
    assert "d.s.t.deep" not in clear_in(house, dag)
    assert house.rows("state", task_id="deep") == ["running", "running"]


def test_a_job_that_is_at_work_takes_up_what_was_cleared_in_a_subdag(house):
    dag = around("x", "y < x")
    at_work = begin(house, dag)
    finish(at_work, house, "x")
    finish(at_work, house, "y")
    assert house.states() == {"a1": "success", "s1": "success", "z1": "queued"}
    assert clear_in(house, dag.subdags[0], task_regex="y") == {"y": 1, "d.s": 1, "d.z": 1}
    look(at_work)
    assert house.states() == {"a1": "success", "s1": "running", "z1": "none"}
    assert house.states("d.s") == {"x1": "success", "y1": "queued"}
    finish(at_work, house, "y")
    finish(at_work, house, "z")
    assert (house.runs(), house.runs("d.s")) == ({1: "success"}, {1: "success"})


def test_reset_dagruns_reaches_into_subdags(house, dag):
    asked = []
    create(
        BackfillJob.from_request(dag, BackfillRequest(start_date=day(1), end_date=day(2), executor="local")),
        house.engine,
        house.stage.settings,
        frozen=None,
        dag_source={},
        holder=None,
        confirm_reset=lambda scope, count: asked.append(str(count)),
    )
    assert asked == ["16 task instances in 6 runs"]
    assert set(house.rows("state")) == {"none"}
    with house.engine.begin() as tx:
        tx.execute(update(job).values(state="cancelled"))
        assert len(tx.execute(select(dag_run.c.id).where(dag_run.c.state == "queued")).all()) == 6
