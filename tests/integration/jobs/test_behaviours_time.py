"""Tries, timeouts and edits by hand, through the loop (S0.1, S6, S9.3)."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from playhouse import dag_of
from sqlalchemy import text, update

from backfill import DAG
from backfill.jobs import settling
from backfill.models import task_instance
from backfill.operators import PythonOperator
from backfill.states import TaskInstanceState
from backfill.store.clearing import clear_task_instances

FAILS = {"*": "failed"}
RETRIES = {"a": {"retries": 2}}


def pump(at_work):
    """Go round once, as the loop does when the sweep is due."""
    job, ti_status = at_work.job, at_work.ti_status
    at_work.admit()
    at_work.process()
    job._settle_runs(ti_status, None)
    job.course.rhythm._sweep_at = 0.0
    ti_status.observe(job._manage_executor_state(ti_status.running))
    job._update_counters(ti_status)


def settle(at_work, task_id, state):
    """Let what is in flight of a task end by its worker."""
    ti = at_work.running(task_id)
    house_set(at_work, ti.facts.id, state)
    at_work.report(ti, TaskInstanceState(state))


def make_overdue(house, at_work):
    """Let the run of the first date have started long ago."""
    house.set_run(1, start_date=datetime.now(UTC) - timedelta(hours=2))
    at_work.job.course.timeouts.due_in = lambda now: 0


def house_set(at_work, ti_id, state):
    with at_work.engine.begin() as tx:
        tx.execute(update(task_instance).where(task_instance.c.id == ti_id).values(state=state, try_open=False))


# -- tries --------------------------------------------------------------------------------------------------------------


def test_intermittent_failure_succeeds_and_a_constant_one_fails(house):
    dag = dag_of("a", "b", arguments={"a": {"retries": 2}, "b": {"retries": 2}})
    report = house.play(dag, outcomes={"a": {"*": ["failed", "failed"]}, "b": FAILS})
    assert house.rows("task_id", "state", "try_number") == [("a", "success", 3), ("b", "failed", 3)]
    assert report.state == "failed"


@pytest.mark.parametrize(("disabled", "tries"), [(False, 3), (True, 1)])
def test_disable_retry_on_and_off(house, disabled, tries):
    house.play(dag_of("a", arguments=RETRIES), outcomes={"a": FAILS}, disable_retry=disabled)
    assert house.rows("state", "try_number") == [("failed", tries)]


def test_with_disable_retry_a_task_instance_found_up_for_retry_gets_one_try(house):
    house.plant_run(1, {"a": "up_for_retry"}, state="failed")
    house.set_rows(house.rows("id"), max_tries=2)
    house.play(dag_of("a", arguments=RETRIES), outcomes={"a": FAILS}, disable_retry=True)
    assert house.rows("state", "try_number") == [("failed", 2)]


def test_fail_task_is_not_retried(house):
    house.play(dag_of("a", arguments=RETRIES), outcomes={"a": {"*": "fail_no_retry"}})
    assert house.rows("state", "try_number") == [("failed", 1)]


def test_sensor_over_several_reschedules_then_a_retry_stays_within_its_tries(house):
    outcomes = {"a": {"*": ["reschedule", "reschedule", "failed", "reschedule", "success"]}}
    house.play(dag_of("a", arguments=RETRIES), outcomes=outcomes)
    assert house.rows("state", "try_number") == [("success", 2)]


def test_rerun_failed_tasks_that_fail_again_end_the_job(house):
    house.plant_run(1, {"a": "failed", "b": "upstream_failed"}, state="failed")
    report = house.play(dag_of("a", "b < a"), outcomes={"a": FAILS}, rerun_failed_tasks=True)
    assert (report.state, house.states()) == ("failed", {"a1": "failed", "b1": "upstream_failed"})


# -- fail_stop ----------------------------------------------------------------------------------------------------------


def test_fail_stop_skips_the_rest_of_the_run_but_teardowns(house):
    with DAG("d", schedule="@daily", start_date=datetime(2023, 1, 1, tzinfo=UTC), fail_stop=True) as dag:
        setup, a, b, c, tidy = (PythonOperator(task_id=name, python_callable=print) for name in "sabct")
        setup >> a >> b >> tidy.as_teardown(setups=setup)
        c.priority_weight = -100
        setup >> c
    report = house.play(dag, outcomes={"a": FAILS})
    states = house.states()
    assert (states["a1"], states["b1"], states["t1"]) == ("failed", "skipped", "success")
    assert states["c1"] in {"success", "skipped"}
    assert report.exit_code == 1


def test_fail_stop_of_a_subset_leaves_other_tasks_alone(house):
    with DAG("d", schedule="@daily", start_date=datetime(2023, 1, 1, tzinfo=UTC), fail_stop=True) as dag:
        for name in ("a", "b", "other"):
            PythonOperator(task_id=name, python_callable=print)
        dag.task_dict["a"] >> dag.task_dict["b"]
    house.plant_run(1, {"a": "none", "b": "none", "other": "up_for_retry"}, state="failed")
    house.play(dag, outcomes={"a": FAILS}, task_regex="^b$")
    assert house.states() == {"a1": "failed", "b1": "skipped", "other1": "up_for_retry"}


# -- dagrun_timeout -----------------------------------------------------------------------------------------------------


def test_dagrun_timeout_skips_what_is_unfinished_and_fails_the_run(house):
    called = []
    dag = dag_of(
        "a",
        "b < a",
        "c",
        dagrun_timeout=timedelta(hours=1),
        on_failure_callback=lambda context: called.append(context["reason"]),
    )
    at_work = house.at_work(dag)
    pump(at_work)
    settle(at_work, "c", "success")
    pump(at_work)
    make_overdue(house, at_work)
    pump(at_work)
    assert house.states() == {"a1": "skipped", "b1": "skipped", "c1": "success"}
    assert house.runs() == {1: "failed"}
    at_work.job._callbacks.end()
    assert called == ["timed_out"]


def test_dagrun_timeout_of_a_subset_leaves_other_tasks_alone(house):
    house.plant_run(1, {"a": "none", "other": "none", "gone": "up_for_retry"}, state="failed")
    at_work = house.at_work(dag_of("a", "other", dagrun_timeout=timedelta(hours=1)), task_regex="^a$")
    pump(at_work)
    make_overdue(house, at_work)
    pump(at_work)
    assert (house.states()["a1"], house.states()["other1"], house.runs()) == ("skipped", "none", {1: "failed"})


# -- by hand ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", ["queued", "running"])
@pytest.mark.parametrize(
    ("by_hand", "below"),
    [("none", "none"), ("failed", "upstream_failed"), ("success", "queued"), ("skipped", "skipped")],
)
def test_task_instance_cleared_or_ended_by_hand_while_in_flight(house, there, by_hand, below):
    at_work = house.at_work(dag_of("a", "b < a"))
    pump(at_work)
    house_set(at_work, at_work.running("a").facts.id, there)
    pump(at_work)
    house_set(at_work, at_work.running("a").facts.id, by_hand)
    pump(at_work)
    pump(at_work)
    expected = {"a1": "queued" if by_hand == "none" else by_hand, "b1": below}
    assert house.states() == expected


@pytest.mark.parametrize(("by_hand", "b"), [("none", "success"), ("failed", "success"), ("skipped", "success")])
def test_task_instance_cleared_or_ended_otherwise_by_hand_when_finished(house, by_hand, b):
    """What ran already is left alone; what was cleared runs again."""
    at_work = house.at_work(dag_of("a", "b < a", "c"))
    pump(at_work)
    settle(at_work, "a", "success")
    pump(at_work)
    pump(at_work)
    settle(at_work, "b", "success")
    pump(at_work)
    (a,) = house.rows("id", task_id="a")
    house_set(at_work, a, by_hand)
    pump(at_work)
    pump(at_work)
    assert house.states() == {"a1": "queued" if by_hand == "none" else by_hand, "b1": b, "c1": "queued"}


@pytest.mark.parametrize("found", ["failed", "success"])
def test_late_word_of_an_attempt_that_was_cleared_by_hand_changes_nothing(house, found):
    at_work = house.at_work(dag_of("a"))
    pump(at_work)
    ti = at_work.running("a")
    with house.engine.begin() as tx:
        tx.execute(update(task_instance).values(state="none", external_executor_id=None, try_open=False))
    pump(at_work)
    at_work.report(ti, TaskInstanceState(found), attempt_id=str(ti.facts.attempt_id))
    pump(at_work)
    assert house.rows("state", "try_number") == [("queued", 2)]


def test_what_is_cleared_while_its_run_ends_is_not_forgotten_in_a_finished_run(house, monkeypatch, wait_until):
    """The clear comes just between the last look at the rows and the commit of the run's end."""
    at_work = house.at_work(dag_of("a"))
    pump(at_work)
    settle(at_work, "a", "success")
    pump(at_work)
    clearing = ThreadPoolExecutor(1)
    write_outcomes = settling.write_outcomes

    def clear():
        with house.engine.begin() as tx:
            return clear_task_instances(tx, [house.run_row().id], {"a": 0})

    def write_while_somebody_clears(outcomes, tx, *, seen):
        cleared = clearing.submit(clear)
        wait_until(lambda: cleared.done() or waits_for_a_lock(house.engine), "the clear is done, or waits")
        return write_outcomes(outcomes, tx, seen=seen)

    monkeypatch.setattr(settling, "write_outcomes", write_while_somebody_clears)
    pump(at_work)
    clearing.shutdown()
    assert house.states() == {"a1": "none"}
    assert house.runs() == {1: "queued"}


def waits_for_a_lock(engine):
    query = (
        "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')"
    )
    with engine.connect() as tx:
        return tx.execute(text(query)).scalar_one()
