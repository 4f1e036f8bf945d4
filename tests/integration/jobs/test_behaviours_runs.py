"""What becomes of runs that are there, through the loop (S2.7 to S2.15)."""

import pytest
from playhouse import FIRST, dag_of
from sqlalchemy import select

from backfill.exceptions import DateOwned
from backfill.models import job
from backfill.telemetry import RunAdmitted


def test_backwards_is_strictly_descending(house):
    house.play(dag_of("a", "b < a", max_active_runs=1), days=4, run_backwards=True)
    admitted = [event.run_id for event in house.events if isinstance(event, RunAdmitted)]
    assert admitted == [f"backfill__2024-01-0{number}T00:00:00+00:00" for number in (4, 3, 2, 1)]


def test_job_id_is_on_the_run(house):
    house.play(dag_of("a"))
    with house.engine.connect() as tx:
        job_id = tx.execute(select(job.c.id)).scalar_one()
    assert house.run_row().creating_job_id == job_id
    assert house.rows("queued_by_job_id") == [job_id]


def test_cleared_run_gets_a_new_start_date(house):
    house.plant_run(1, {"a": "success"})
    assert house.run_row().start_date == FIRST
    house.play(dag_of("a"), reprocess="completed")
    assert house.run_row().start_date > FIRST
    assert house.run_row().end_date >= house.run_row().start_date


@pytest.mark.parametrize("given", [None, {"new": 1}])
def test_conf_is_that_of_new_runs_and_of_existing_ones_only_when_given(house, given):
    house.plant_run(1, {"a": "none"}, conf={"old": 1}, state="queued")
    house.play(dag_of("a"), days=2, conf=given)
    assert house.run_row(1).conf == (given or {"old": 1})
    assert house.run_row(2).conf == (given or {})


def test_run_id_of_a_reused_run_stays(house):
    house.plant_run(1, {"a": "none"}, run_id="manual__of_mine", run_type="manual", state="queued")
    house.play(dag_of("a"))
    run = house.run_row()
    assert (run.run_id, run.run_type, run.state) == ("manual__of_mine", "backfill", "success")


def test_run_with_a_new_task_is_re_opened(house):
    called = []
    house.plant_run(1, {"a": "success"})
    dag = dag_of("a", "b < a", on_success_callback=lambda context: called.append(context["reason"]))
    assert house.play(dag).state == "success"
    assert house.rows("task_id", "state", "try_number") == [("a", "success", 1), ("b", "success", 1)]
    assert called == ["success"]


def test_run_counted_as_done_is_untouched_and_its_callbacks_silent(house):
    called = []
    house.plant_run(1, {"a": "success"})
    before = house.run_row()
    house.play(dag_of("a", on_success_callback=called.append, on_failure_callback=called.append))
    assert (house.run_row(), called) == (before, [])


@pytest.mark.parametrize(
    ("outcome", "reason"), [("success", "success"), ("failed", "task_failure"), ("skipped", "success")]
)
def test_callbacks_fire_once_per_finish(house, outcome, reason):
    called = []

    def note(context):
        called.append((context["dag_run"].run_id[-25:-15], context["reason"]))

    dag = dag_of("a", "b", on_success_callback=note, on_failure_callback=note)
    house.play(dag, days=2, outcomes={"a": {"*": outcome}}, continue_on_failures=True)
    assert sorted(called) == [("2024-01-01", reason), ("2024-01-02", reason)]


@pytest.mark.parametrize("run_type", ["scheduled", "manual"])
def test_running_non_backfill_run_is_refused_and_its_task_instances_untouched(house, run_type):
    house.plant_run(1, {"a": "running", "b": "queued", "c": "none"}, run_type=run_type, state="running")
    before = house.states()
    with pytest.raises(DateOwned, match="is running"):
        house.play(dag_of("a", "b", "c"))
    assert house.states() == before


def test_dag_without_tasks_ends_at_once(house):
    report = house.play(dag_of(), days=2)
    assert (report.state, house.runs()) == ("success", {1: "success", 2: "success"})
