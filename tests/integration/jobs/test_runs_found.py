"""What happens at a date by the run found there: the whole table of S2.7, with S2.8 and S2.9."""

import pytest
from playhouse import dag_of
from sqlalchemy import select

from backfill.exceptions import NothingToDo
from backfill.models import dag_run

#: Run and task instances (of a, then of b below it) before, by the rows of the table.
FOUND = {
    "unfinished": ("queued", {"a": "success", "b": "none"}),
    "success": ("success", {"a": "success", "b": "success"}),
    "failed": ("failed", {"a": "success", "b": "failed"}),
    "success, new task": ("success", {"a": "success"}),
    "failed, cleared": ("failed", {"a": "failed", "b": "none"}),
}
#: Which of a and b were executed; None: the date is left out.
EXECUTED = {
    "unfinished": {None: "b", "none": None, "failed": "b", "completed": "b"},
    "success": {None: "", "none": None, "failed": None, "completed": "ab"},
    "failed": {None: "", "none": None, "failed": "ab", "completed": "ab"},
    "success, new task": {None: "b", "none": None, "failed": "b", "completed": "ab"},
    "failed, cleared": {None: "", "none": None, "failed": "ab", "completed": "ab"},
}
CASES = [(found, reprocess) for found, row in EXECUTED.items() for reprocess in row]


@pytest.mark.parametrize(("found", "reprocess"), CASES)
def test_what_happens_at_a_date_with_a_run(house, found, reprocess):
    state, states = FOUND[found]
    house.plant_run(1, states, state=state)
    executed = EXECUTED[found][reprocess]
    before = house.run_row()
    if executed is None:
        with pytest.raises(NothingToDo, match="1 date left out"):
            house.play(dag_of("a", "b < a"), reprocess=reprocess)
        assert house.run_row() == before
        return
    house.play(dag_of("a", "b < a"), reprocess=reprocess)
    tried = dict(house.rows("task_id", "try_number"))
    assert "".join(task_id for task_id in "ab" if tried[task_id] > (states.get(task_id, "none") != "none")) == executed


@pytest.mark.parametrize("reprocess", [None, "none", "failed", "completed"])
def test_a_date_without_a_run_gets_one_whatever_reprocess_says(house, reprocess):
    house.play(dag_of("a"), reprocess=reprocess)
    assert house.states() == {"a1": "success"}


def test_what_is_left_out_does_not_hold_up_the_other_dates(house):
    house.plant_run(2, {"a": "success"})
    report = house.play(dag_of("a"), days=3, reprocess="none")
    assert report.runs["total"] == 2
    assert house.runs() == {1: "success", 2: "success", 3: "success"}


@pytest.mark.parametrize(
    ("state", "of_a"), [("success", "success"), ("success", "failed"), ("failed", "failed"), ("failed", "success")]
)
def test_a_run_counted_as_done_is_not_touched_and_its_callbacks_stay_silent(house, state, of_a):
    house.plant_run(1, {"a": of_a}, state=state, conf={"old": 1}, run_type="scheduled")
    called = []
    dag = dag_of("a", on_success_callback=called.append, on_failure_callback=called.append)
    with house.engine.connect() as tx:
        before = tx.execute(select(dag_run)).one()
    report = house.play(dag, conf={"new": 1})
    with house.engine.connect() as tx:
        assert tx.execute(select(dag_run)).one() == before
    assert called == []
    assert report.state == ("success" if (state, of_a) == ("success", "success") else "failed")
    assert report.runs["finished"] == 1


def test_a_run_that_is_counted_as_done_needs_no_place_in_the_window(house):
    for number in range(1, 6):
        house.plant_run(number, {"a": "success"})
    house.plant_run(20, {}, state="running")
    assert house.play(dag_of("a", max_active_runs=1), days=5).state == "success"


@pytest.mark.parametrize("bad", ["failed", "upstream_failed"])
@pytest.mark.parametrize("run_state", ["failed", "success"])
def test_rerun_failed_tasks_clears_what_ended_badly_and_leaves_the_rest(house, bad, run_state):
    house.plant_run(1, {"a": "success", "b": bad}, state=run_state)
    report = house.play(dag_of("a", "b < a"), rerun_failed_tasks=True)
    assert (report.state, house.runs()) == ("success", {1: "success"})
    assert house.rows("task_id", "state", "try_number") == [("a", "success", 1), ("b", "success", 2)]


def test_rerun_failed_tasks_gives_the_full_number_of_retries_and_ends(house):
    house.plant_run(1, {"a": "failed"}, state="failed")
    report = house.play(
        dag_of("a", arguments={"a": {"retries": 2}}), outcomes={"a": {"*": "failed"}}, rerun_failed_tasks=True
    )
    assert (report.state, house.rows("state", "try_number")) == ("failed", [("failed", 4)])


def test_rerun_failed_tasks_does_not_touch_a_run_without_failures(house):
    house.plant_run(1, {"a": "success", "b": "skipped"})
    before = house.run_row()
    house.play(dag_of("a", "b < a"), rerun_failed_tasks=True)
    assert house.run_row() == before


def test_fill_in_the_blanks_those_that_may_run_do_and_the_others_stay(house):
    states = [
        "success",
        "skipped",
        "failed",
        "upstream_failed",
        "none",
        "scheduled",
        "up_for_retry",
        "up_for_reschedule",
    ]
    tasks = [f"t_{state}" for state in states]
    house.plant_run(1, dict(zip(tasks, states, strict=True)), state="failed")
    report = house.play(dag_of(*tasks))
    after = {task_id.removesuffix("1"): state for task_id, state in house.states().items()}
    assert after == {
        **dict.fromkeys(tasks, "success"),
        "t_skipped": "skipped",
        "t_failed": "failed",
        "t_upstream_failed": "upstream_failed",
    }
    assert (report.state, report.exit_code, house.runs()) == ("failed", 1, {1: "failed"})
