"""Subdags whose run does not come to its own end: timeouts, `fail_stop`, blocked work, the operator, a coordinator that dies (S13)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from playhouse import dag_of, day
from subdag_stage import after, around, begin, child_of, finish, look

from backfill.coordinator.drive import drive
from backfill.exceptions import BackfillUnfinished
from backfill.executors import Mailbox
from backfill.jobs.cancel import Cancellation
from backfill.jobs.conclusion import job_report
from backfill.jobs.creation import read_job
from backfill.store import pools
from backfill.store.report import select_running
from backfill.testing.dags import date_key
from backfill.testing.script import Script, ScriptedExecutor

NOW = timedelta()
SHORT = timedelta(minutes=1)


def make_late(house, dag_id):
    with house.engine.begin() as tx:
        tx.exec_driver_sql(
            "update dag_run set start_date = start_date - interval '1 hour' where dag_id = %s", (dag_id,)
        )


def take_up_again(at_work, executor=None):
    """Let another process take the job up by its rows, and return the report of its end."""
    cast_job = read_job(at_work.engine, at_work.job.id)
    cast_job.dag = at_work.job.dag
    chosen = executor or at_work.executor
    workplace = replace(at_work.workplace, executors={chosen.name: chosen}, mailbox=Mailbox())
    try:
        return drive(cast_job, workplace, at_work.lease, resumed=True)
    except BackfillUnfinished as unfinished:
        return unfinished.report


# -- time, fail_stop, hands ------------------------------------------------------------------------------------------------


def test_dagrun_timeout_of_the_run_above_ends_the_subdag_with_it(house):
    dag = around("x", "y < x")
    dag.dagrun_timeout = SHORT
    at_work = begin(house, dag)
    make_late(house, "d")
    take_new_dates(at_work)
    look(at_work)
    assert house.states() == {"a1": "success", "s1": "skipped", "z1": "skipped"}
    assert house.states("d.s") == {"x1": "skipped", "y1": "skipped"}
    assert (house.runs(), house.runs("d.s")) == ({1: "failed"}, {1: "failed"})
    assert [run.dag_id for run in at_work.ti_status.timed_out] == ["d"]


def take_new_dates(at_work):
    """Let the windows know the start dates of runs that a test has changed."""
    cast_job = read_job(at_work.engine, at_work.job.id)
    cast_job.dag = at_work.job.dag
    cast_job.take_up_work(at_work.workplace)
    at_work.job._callbacks.end()
    at_work.job, at_work.ti_status = cast_job, cast_job._take_over(None)


@pytest.mark.parametrize(("retries", "state"), [(0, "failed"), (1, "up_for_retry")])
def test_dagrun_timeout_of_a_subdag_fails_its_task_which_may_be_tried_again(house, retries, state):
    dag = around("x", "y < x", dagrun_timeout=SHORT, retries=retries, retry_delay=timedelta(hours=1))
    at_work = begin(house, dag)
    make_late(house, "d.s")
    take_new_dates(at_work)
    look(at_work)
    assert house.rows("state", "error", task_id="s") == [
        (state, "The run of its subdag 'd.s' failed: dagrun_timeout of 0:01:00 is over.")
    ]
    assert house.states("d.s") == {"x1": "skipped", "y1": "skipped"}
    if retries:
        finish(at_work, house, "s", "none")
        assert house.states("d.s") == {"x1": "queued", "y1": "none"}
        assert house.run_row(1, "d.s").state == "running"


def test_fail_stop_in_a_subdag_stays_there_and_a_retry_runs_what_it_skipped(house):
    dag = around("x", "w", "y < w", fail_stop=True, retries=1, retry_delay=NOW)
    report = house.play(dag, outcomes={"d.s.x": {"*": ["failed"]}})
    assert (report.state, report.errors) == ("success", ())
    assert house.states("d.s") == {"x1": "success", "w1": "success", "y1": "success"}
    assert house.rows("try_number", task_id="s") == [2]


def test_fail_stop_reaches_from_a_task_above_into_a_subdag_that_runs(house):
    dag = dag_of("a", "bad", fail_stop=True)
    child_of(dag, "x", "y < x", below="a")
    at_work = begin(house, dag)
    house.set_rows(house.rows("id", task_id="bad"), state="failed")
    house.set_rows(house.rows("id", task_id="s"), state="failed")  # as the worker writes it
    look(at_work)
    assert house.states("d.s") == {"x1": "skipped", "y1": "skipped"}
    assert (house.runs(), house.runs("d.s")) == ({1: "failed"}, {1: "failed"})


def test_fail_stop_after_a_subdag_failed_skips_the_rest_of_the_run(house):
    dag = dag_of("a", "slow", "later < slow", fail_stop=True)
    child_of(dag, "x", below="a")
    at_work = begin(house, dag)
    finish(at_work, house, "x", "failed")
    assert house.states() == {"a1": "success", "s1": "failed", "slow1": "skipped", "later1": "skipped"}
    assert house.runs() == {1: "failed"}


def test_a_state_set_by_hand_is_the_result_of_its_task_and_ends_its_run(house):
    at_work = begin(house, around("x", "y < x"))
    finish(at_work, house, "s", "success")
    assert house.states("d.s") == {"x1": "skipped", "y1": "skipped"}
    assert house.runs("d.s") == {1: "failed"}
    assert house.rows("state", task_id="z") == ["queued"]
    finish(at_work, house, "z")
    assert house.runs() == {1: "success"}


def test_a_task_that_is_cleared_by_hand_while_its_subdag_runs_goes_on_with_it(house):
    at_work = begin(house, around("x", "y < x"))
    finish(at_work, house, "s", "none")
    assert house.rows("state", task_id="s") == ["running"]
    finish(at_work, house, "x")
    finish(at_work, house, "y")
    assert house.rows("state", task_id="s") == ["success"]


# -- blocked work ----------------------------------------------------------------------------------------------------------


def lose_pool(house, name="p"):
    with house.engine.begin() as tx:
        pools.delete_pool(tx, name)


def test_a_blocked_task_of_a_subdag_blocks_the_run_above(house):
    with house.engine.begin() as tx:
        pools.set_pool(tx, "p", 1)
    dag = around("x", "y < x", arguments={"y": {"pool": "p"}})
    executor = ScriptedExecutor(house.engine, Script(dag, {}))
    cast = house.put_on(dag, executor)
    lose_pool(house)
    report = cast.drive()
    assert (report.state, report.exit_code) == ("deadlocked", 3)
    assert house.states("d.s") == {"x1": "success", "y1": "none"}
    assert house.states() == {"a1": "success", "s1": "failed", "z1": "none"}
    assert (house.runs(), house.runs("d.s")) == ({1: "failed"}, {1: "failed"})
    assert [(error.kind, error.key.task_id, error.error) for error in report.errors] == [
        ("deadlocked", "y", "waits for pool 'p' (does not exist)"),
        ("failed", "s", "The run of its subdag 'd.s' failed: what was left of it did not run."),
        ("deadlocked", "z", "waits for s of 2024-01-01T00:00:00+00:00 (running)"),
    ]


def test_stuck_runs_are_closed_with_their_subdags_so_that_further_dates_have_room(house):
    with house.engine.begin() as tx:
        pools.set_pool(tx, "p", 1)
    dag = dag_of("a")
    child = child_of(dag, below="a", retries=2)
    child_of(child, "x", task_id="t", arguments={"x": {"pool": "p"}})
    cast = house.put_on(
        dag, ScriptedExecutor(house.engine, Script(dag, {})), 3, continue_on_failures=True, max_active_runs=1
    )
    lose_pool(house)
    report = cast.drive()
    assert (report.state, report.runs["finished"]) == ("deadlocked", 3)
    assert set(house.runs("d.s.t").values()) == set(house.runs().values()) == {"failed"}
    assert house.rows("state", "try_number", task_id="s") == [("failed", 1)] * 3


def test_what_else_can_go_in_the_run_above_goes_before_it_is_stuck(house):
    with house.engine.begin() as tx:
        pools.set_pool(tx, "p", 1)
    dag = dag_of("a", "b < a", "c < b")
    child_of(dag, "x", below="a", arguments={"x": {"pool": "p"}})
    cast = house.put_on(dag, ScriptedExecutor(house.engine, Script(dag, {})))
    lose_pool(house)
    assert cast.drive().state == "deadlocked"
    assert house.states() == {"a1": "success", "b1": "success", "c1": "success", "s1": "failed"}


# -- the operator ----------------------------------------------------------------------------------------------------------


def test_nothing_of_a_subdag_is_started_during_a_pause(house):
    at_work = house.at_work(around("x"))
    at_work.admit()
    at_work.process()
    with house.engine.begin() as tx:
        tx.exec_driver_sql("update job set state = 'paused'")
    at_work.lease.renew_if_due(at_once=True)
    finish(at_work, house, "a")
    assert house.rows("state", task_id="s") == ["none"]
    assert not at_work.job._is_over(at_work.job.course.admission)
    with house.engine.begin() as tx:
        tx.exec_driver_sql("update job set state = 'running'")
    at_work.lease.renew_if_due(at_once=True)
    at_work.process()
    assert house.states("d.s") == {"x1": "queued"}


def test_a_pause_takes_back_what_of_a_subdag_nobody_claimed_and_its_task_runs_on(house):
    at_work = begin(house, around("x"))
    with house.engine.begin() as tx:
        tx.exec_driver_sql("update job set state = 'paused'")
    at_work.lease.renew_if_due(at_once=True)
    at_work.job._obey(at_work.ti_status, None)
    assert house.states("d.s") == {"x1": "none"}
    assert house.rows("state", task_id="s") == ["running"]


def test_a_cancel_ends_the_subdags_with_the_job(house):
    at_work = begin(house, around("x", "y < x", retries=3))
    at_work.workplace.mailbox.wake()
    report = Cancellation(at_work.job.id, at_work.workplace).carry_out()
    assert report.state == "cancelled"
    assert house.states() == {"a1": "success", "s1": "failed", "z1": "none"}
    assert house.states("d.s") == {"x1": "none", "y1": "none"}
    assert (house.runs(), house.runs("d.s")) == ({1: "failed"}, {1: "failed"})
    assert house.at_work(around("x"))  # nobody owns the dates any more


# -- progress --------------------------------------------------------------------------------------------------------------


def test_progress_counts_the_task_instances_of_subdags_from_the_beginning(house):
    dag = around("x", "y < x", retries=1, retry_delay=NOW)
    report = house.play(dag, 2, {"d.s.y": {"*": ["failed"]}, "a": {date_key(day(2)): "skipped"}})
    sums = [
        sum((e.waiting, e.running, e.succeeded, e.failed, e.skipped, e.deadlocked))
        for e in house.events
        if type(e).__name__ == "Progress"
    ]
    assert sums[0] == 10
    assert sums[-1] == report.tasks["total"] == 8
    assert report.runs["total"] == 2


def test_a_report_in_the_middle_counts_what_of_subdags_is_yet_to_begin(house):
    at_work = house.at_work(around("x", "y < x"), 2, max_active_runs=1)
    at_work.admit()
    with house.engine.connect() as tx:
        assert job_report(tx, at_work.job.id).tasks["waiting"] == 10
    numbers = at_work.job.course.numbers(at_work.ti_status)
    assert (numbers.waiting, numbers.running) == (10, 0)


def test_what_runs_now_are_tasks_and_not_what_stands_for_subdags(house):
    at_work = begin(house, around("x", "y"))
    house.set_rows(house.rows("id", task_id="x"), state="running", start_date=day(1))
    with house.engine.connect() as tx:
        assert [row.task_id for row in select_running(tx, at_work.job.id)] == ["x"]


# -- a coordinator that dies -----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Ends a process at once: nothing is written any more."""


def killed_after(workplace, writes):
    """Return a workplace in which the process dies just after its n-th transaction."""
    left = [writes]

    class Dying(type(workplace)):
        def write(self, work, session=None):
            result = super().write(work, session)
            left[0] -= 1
            if not left[0]:
                raise Killed
            return result

    fields = {name: getattr(workplace, name) for name in workplace.__dataclass_fields__}
    return Dying(**fields)


def family():
    """A DAG whose subdag fails once, with a subdag of its own that fails once."""
    dag = dag_of("a", "z")
    child = child_of(dag, "x", "y", below="a", retries=2, retry_delay=NOW)
    child_of(child, "deep", "deeper < deep", below="x", task_id="t", retries=1, retry_delay=NOW)
    after(child, "t", "y")
    after(dag, "s", "z")
    return dag


def test_a_coordinator_may_die_after_any_transaction_and_nothing_is_lost_or_runs_twice(house):
    outcomes = {"d.s.t.deeper": {"*": ["failed"]}, "d.s.y": {"*": ["failed"]}}
    writes, number = 1, 1
    while True:
        dag = family()
        script = Script(dag, outcomes)
        cast = house.put_on(dag, ScriptedExecutor(house.engine, script), (number, number))
        workplace = killed_after(cast.workplace, writes)
        try:
            report = drive(cast.job, workplace, cast.lease, resumed=False)
        except Killed:
            if read_job(house.engine, cast.job.id).state == "success":
                break
            at_work = Left(cast, house.engine)
            report = take_up_again(at_work, ScriptedExecutor(house.engine, script))
        assert (report.state, report.errors, report.tasks["success"]) == ("success", (), 8), f"after {writes} writes"
        counted = Counter({name: count for (name, _, _), count in script.executions.items()})
        assert counted == {"a": 1, "z": 1, "d.s.x": 1, "d.s.y": 2, "d.s.t.deep": 1, "d.s.t.deeper": 2}, f"{writes}"
        writes, number = writes + 1, number + 1
    assert writes > 10


class Left:
    """What a coordinator that died has left behind."""

    def __init__(self, cast, engine):
        self.job, self.lease, self.workplace, self.engine = cast.job, cast.lease, cast.workplace, engine


def test_the_end_of_a_run_is_not_missed_while_nobody_drives_the_job(house):
    dag = around("x")
    at_work = begin(house, dag)
    house.set_rows(house.rows("id", task_id="x"), state="success")
    report = take_up_again(at_work, ScriptedExecutor(house.engine, Script(dag, {})))
    assert (report.state, house.runs("d.s")) == ("success", {1: "success"})
