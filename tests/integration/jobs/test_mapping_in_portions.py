"""The rows of a mapping over many items are created in several rounds, and nobody sees a part of them (S4.7)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from playhouse import JobAtWork, dag_of
from sqlalchemy import insert

from backfill import DAG
from backfill.coordinator.drive import drive
from backfill.executors.mailbox import Mailbox
from backfill.jobs.creation import read_job
from backfill.keys import TaskInstanceKey
from backfill.models import xcom
from backfill.operators import PythonOperator
from backfill.testing.script import Script, ScriptedExecutor

ITEMS = 7


def nothing() -> None:
    """The body of tasks that only a script plays."""


def mapped_dag(rule: str = "all_success", **given: object) -> DAG:
    dag = dag_of("source", "z", arguments={"z": {"trigger_rule": rule}}, **given)
    with dag:
        each = PythonOperator.partial(task_id="each", python_callable=nothing)
        each.expand(op_args=dag.task_dict["source"].output) >> dag.task_dict["z"]
    return dag


@pytest.fixture(autouse=True)
def small_portions(monkeypatch):
    """Let one round create no more than two rows of mapped tasks."""
    monkeypatch.setattr("backfill.jobs.settling.MAPPED_PORTION", 2)


@pytest.fixture
def begun(house) -> JobAtWork:
    """A job whose mapping has its first portion of rows."""
    return begin(house, mapped_dag("one_success"))


def begin(house, dag: DAG) -> JobAtWork:
    at_work = house.at_work(dag)
    at_work.admit()
    at_work.process()
    give_items(house, at_work)
    at_work.process()
    return at_work


def give_items(house, at_work: JobAtWork) -> None:
    """Let the source return a list, without a word to the window but that it has succeeded."""
    row = at_work.running("source").facts
    with house.engine.begin() as tx:
        tx.execute(insert(xcom).values(task_instance_id=row.id, key="return_value", value=[[n] for n in range(ITEMS)]))
    house.set_rows(row.id, state="success", try_open=False)
    at_work.job._update_counters(at_work.ti_status)


def indexes(house) -> list[int]:
    return sorted(house.rows("map_index", task_id="each"))


def test_a_job_whose_mappings_come_in_portions_comes_to_the_same_end(house):
    outcomes = {"source": {"*": {"return": [[n] for n in range(ITEMS)]}}}
    report = house.play(mapped_dag(), days=2, outcomes=outcomes)
    assert (report.state, report.tasks["success"]) == ("success", 2 * (ITEMS + 2))
    assert indexes(house) == sorted([*range(ITEMS)] * 2)
    assert house.rows("try_number", task_id="z") == [1, 1]


def test_nothing_is_sent_before_the_last_row_is_there(house, begun):
    for there in ([-1, 1, 2], [-1, 1, 2, 3, 4], [-1, 1, 2, 3, 4, 5, 6]):
        assert (indexes(house), begun.executor.order()) == (there, ["source1"])
        assert begun.job.course.rhythm.due_in() == 0
        begun.job.course.rhythm.begin_round()
        begun.process()
    assert indexes(house) == list(range(ITEMS))
    assert begun.executor.order() == ["source1", *["each1"] * ITEMS]
    assert begun.job.course.rhythm.due_in() > 0


def test_a_sweep_in_the_midst_shows_the_window_no_part_of_it(house, begun):
    reconciler = begun.job._reconciler
    reconciler.begin_sweep()
    begun.ti_status.observe(reconciler.sweep_on())
    begun.job._update_counters(begun.ti_status)
    assert begun.job.course.window.counts().total == 3
    for _ in range(4):
        begun.process()
    assert begun.executor.order() == ["source1", *["each1"] * ITEMS]
    assert begun.job.course.window.counts().total == ITEMS + 2


def test_a_source_that_is_cleared_in_the_midst_ends_the_expansion(house, begun):
    [source] = house.rows("id", task_id="source")
    house.set_rows(source, state="none", external_executor_id=None)
    begun.job._reconciler.begin_sweep()
    begun.ti_status.observe(begun.job._reconciler.sweep_on())
    begun.job._update_counters(begun.ti_status)
    begun.process()
    assert (indexes(house), begun.executor.order()) == ([-1, 1, 2], ["source1", "source1"])
    house.set_rows(source, state="success", try_open=False)
    begun.job._update_counters(begun.ti_status)
    for _ in range(4):
        begun.process()
    assert indexes(house) == list(range(ITEMS))


def test_a_run_whose_time_is_over_in_the_midst_ends_with_what_is_there(house):
    at_work = begin(house, mapped_dag(dagrun_timeout=timedelta(hours=1)))
    house.set_run(1, start_date=datetime.now(UTC) - timedelta(hours=2))
    at_work.job.course.timeouts.due_in = lambda _now: 0
    assert at_work.job._settle_runs(at_work.ti_status, None)
    assert (indexes(house), house.rows("state", task_id="each")) == ([-1, 1, 2], ["skipped"] * 3)
    assert house.runs() == {1: "failed"}


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_who_takes_over_in_the_midst_goes_on_where_it_stopped(house, begun, rounds):
    for _ in range(rounds):
        begun.process()
    made = house.rows("id", task_id="each")
    assert -1 in indexes(house)
    executor = ScriptedExecutor(house.engine, Script(begun.job.dag, {}))
    job = read_job(house.engine, begun.job.id)
    job.dag = begun.job.dag
    workplace = replace(begun.workplace, executors={executor.name: executor}, mailbox=Mailbox())
    report = drive(job, workplace, begun.lease, resumed=True)
    assert (report.state, report.tasks["success"]) == ("success", ITEMS + 2)
    assert indexes(house) == list(range(ITEMS))
    assert set(made) <= set(house.rows("id", task_id="each"))
    assert set(house.rows("try_number")) == {1}


def buckets_of(at_work: JobAtWork) -> list[TaskInstanceKey]:
    status = at_work.ti_status
    return [*status.to_run, *status.running, *status.succeeded, *status.skipped, *status.failed]


def known(at_work: JobAtWork) -> set[TaskInstanceKey]:
    window = at_work.job.course.window
    rows = (row for run_id in window.run_ids() for row in window.rows(run_id))
    return {window.key(row.id) for row in rows if row.state != "removed"}


def look_again(at_work: JobAtWork) -> None:
    """Sweep, as the loop does when it is time."""
    at_work.job._reconciler.begin_sweep()
    at_work.ti_status.observe(at_work.job._reconciler.sweep_on())
    at_work.job._update_counters(at_work.ti_status)


@pytest.mark.parametrize("noticed", [False, True])
@pytest.mark.parametrize("taken_over", [False, True])
def test_each_index_is_in_a_bucket_where_the_row_before_them_was_ended_in_the_midst(house, begun, taken_over, noticed):
    [row] = house.rows("id", task_id="each", map_index=-1)
    house.set_rows(row, state="success")
    at_work = begun
    if taken_over:
        begun.job.take_up_work(begun.workplace)
        at_work.ti_status = begun.job._take_over(None)
    if noticed:
        look_again(at_work)
    for _ in range(4):
        assert sorted(buckets_of(at_work)) == sorted(known(at_work))
        at_work.process()
    look_again(at_work)
    assert indexes(house) == list(range(-1, ITEMS))
    assert len(known(at_work)) == ITEMS + 2
    assert sorted(buckets_of(at_work)) == sorted(known(at_work))


def test_a_mapped_task_that_was_ended_by_hand_before_its_expansion_has_none_until_it_is_cleared(house):
    at_work = house.at_work(mapped_dag())
    at_work.admit()
    at_work.process()
    [row] = house.rows("id", task_id="each")
    house.set_rows(row, state="success")  # which the window has not seen when its source succeeds
    give_items(house, at_work)
    at_work.process()
    assert house.rows("map_index", "state", task_id="each") == [(-1, "success")]
    at_work.process()
    assert at_work.executor.order() == ["source1", "z1"]
    house.set_rows(row, state="none")
    look_again(at_work)
    for _ in range(4):
        at_work.process()
    assert indexes(house) == list(range(ITEMS))
    assert at_work.executor.order() == ["source1", "z1", *["each1"] * ITEMS]
