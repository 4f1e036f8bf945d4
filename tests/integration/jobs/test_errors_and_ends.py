"""How runs and jobs end: errors in their order, unfinished runs, stop policies, deadlocks (S2.14, S9)."""

import pytest
from playhouse import dag_of, day

from backfill.jobs import BackfillJob
from backfill.states import JobState
from backfill.telemetry import RunSettled

FAILS = {"*": "failed"}


def named(report):
    return [f"{error.key.task_id}{error.logical_date.day} {error.kind}" for error in report.errors]


# -- _collect_errors ----------------------------------------------------------------------------------------------------


def test_errors_come_by_date_then_topology_then_index_whatever_their_names(house):
    dag = dag_of("z", "m < z", "a < m", "y")
    at_work = house.at_work(dag, days=2)
    at_work.admit()
    at_work.process()
    ids = dict(house.rows("id", "task_id"))
    house.set_rows([n for n, task_id in ids.items() if task_id in {"z", "y"}], state="failed", error="broken")
    at_work.job._update_counters(at_work.ti_status)
    at_work.process()
    errors = at_work.job._collect_errors(at_work.ti_status)
    places = [(error.logical_date.day, error.key.task_id, error.kind) for error in errors]
    topological = list(at_work.job.course.compiled.graph.task_ids)
    assert places == sorted(places, key=lambda place: (place[0], topological.index(place[1])))
    assert {place[1:] for place in places} == {
        ("z", "failed"), ("y", "failed"), ("m", "upstream_failed"), ("a", "upstream_failed")
    }  # fmt: skip
    assert {error.error for error in errors if error.kind == "failed"} == {"broken"}


def test_an_error_has_all_that_a_reader_needs(house):
    report = house.play(dag_of("a", arguments={"a": {"retries": 1}}), outcomes={"a": FAILS})
    (error,) = report.errors
    assert error.key == ("d", "a", "backfill__2024-01-01T00:00:00+00:00", -1)
    assert (error.kind, error.logical_date, error.try_number, error.state) == ("failed", day(1), 2, "failed")
    assert "as the script says" in error.error


def test_a_job_that_ended_well_has_no_errors(house):
    report = house.play(dag_of("a"), days=2)
    assert (report.state, report.errors, report.runs["success"]) == (JobState.SUCCESS, (), 2)


# -- _set_unfinished_dag_runs_to_failed ---------------------------------------------------------------------------------


def test_an_unfinished_run_is_closed_as_failed_and_what_waits_in_it_waits_no_more(house):
    at_work = house.at_work(dag_of("a", "b < a"))
    at_work.admit()
    at_work.job._task_instances_for_dag_runs([], at_work.ti_status, None)
    house.set_rows(house.rows("id", task_id="a"), state="scheduled")
    at_work.job._set_unfinished_dag_runs_to_failed(at_work.ti_status.active_runs.values())
    assert house.runs() == {1: "failed"}
    assert house.states() == {"a1": "none", "b1": "none"}
    assert house.run_row().end_date is not None


@pytest.mark.parametrize(("state", "becomes"), [("success", "success"), ("skipped", "success"), ("failed", "failed")])
def test_a_run_that_is_complete_ends_as_its_task_instances_say(house, state, becomes):
    at_work = house.at_work(dag_of("a"))
    at_work.admit()
    at_work.process()
    house.set_rows(at_work.running("a").facts.id, state=state)
    at_work.job._update_counters(at_work.ti_status)
    at_work.job._set_unfinished_dag_runs_to_failed(at_work.ti_status.active_runs.values())
    assert house.runs() == {1: becomes}


def test_no_runs_at_all_are_closed_without_a_word(house):
    at_work = house.at_work(dag_of("a"))
    at_work.job._set_unfinished_dag_runs_to_failed([])
    assert house.events == []


# -- run states ---------------------------------------------------------------------------------------------------------


def test_a_failed_inner_task_under_a_leaf_that_runs_anyway_makes_a_good_run_and_a_failed_job(house):
    dag = dag_of("a", "b < a", arguments={"b": {"trigger_rule": "all_done"}})
    report = house.play(dag, outcomes={"a": FAILS})
    assert (report.state, report.exit_code, house.runs()) == (JobState.FAILED, 1, {1: "success"})


def test_the_callbacks_of_a_run_are_called_once_with_the_reason(house):
    called = []
    dag = dag_of(
        "a",
        on_success_callback=lambda context: called.append(("success", context["run_id"], context["reason"])),
        on_failure_callback=[lambda context: called.append(("failure", context["run_id"], context["reason"]))],
    )
    house.play(dag, days=2, outcomes={"a": {"2024-01-02": "failed"}})
    assert called == [
        ("success", "backfill__2024-01-01T00:00:00+00:00", "success"),
        ("failure", "backfill__2024-01-02T00:00:00+00:00", "task_failure"),
    ]


# -- S9.2 ---------------------------------------------------------------------------------------------------------------


def test_by_default_no_date_is_admitted_after_a_failure(house):
    report = house.play(dag_of("a", max_active_runs=1), days=4, outcomes={"a": {"2024-01-02": "failed"}})
    assert house.runs() == {1: "success", 2: "failed"}
    assert report.not_started == (day(3), day(4))
    assert (report.state, report.exit_code) == (JobState.FAILED, 1)


def test_by_default_runs_in_the_window_go_on_to_their_end(house):
    report = house.play(dag_of("a", "b"), days=3, outcomes={"a": {"2024-01-01": "failed"}})
    assert house.runs() == {1: "failed", 2: "success", 3: "success"}
    assert report.tasks["success"] == 5


def test_with_continue_on_failures_every_date_has_its_turn_and_the_job_has_failed(house):
    dag = dag_of("a", max_active_runs=1)
    report = house.play(dag, days=4, outcomes={"a": {"2024-01-02": "failed"}}, continue_on_failures=True)
    assert house.runs() == {1: "success", 2: "failed", 3: "success", 4: "success"}
    assert (report.state, report.not_started) == (JobState.FAILED, ())


def test_with_continue_on_failures_a_stuck_run_is_closed_and_leaves_the_window(house):
    dag = dag_of("a", "x", max_active_runs=1, arguments={"a": {"depends_on_past": True}})
    report = house.play(dag, days=3, outcomes={"a": {"2024-01-01": "failed"}}, continue_on_failures=True)
    assert house.runs() == {1: "failed", 2: "failed", 3: "failed"}
    assert house.states() == {
        "a1": "failed",
        "x1": "success",
        "a2": "none",
        "x2": "success",
        "a3": "none",
        "x3": "success",
    }
    assert report.state == JobState.DEADLOCKED
    assert named(report) == ["a1 failed", "a2 deadlocked", "a3 deadlocked"]


@pytest.mark.parametrize(("budget", "runs"), [("1", 1), ("2", 2), ("40%", 2), ("41%", 3), ("1%", 1)])
def test_max_failures_stops_after_so_many_failed_task_instances(house, budget, runs):
    report = house.play(dag_of("a", max_active_runs=1), days=5, outcomes={"a": FAILS}, max_failures=budget)
    assert house.runs() == dict.fromkeys(range(1, runs + 1), "failed")
    assert report.state == JobState.FAILED
    assert len(report.not_started) == 5 - runs


def test_once_max_failures_is_reached_nothing_more_is_sent(house):
    dag = dag_of("a", "b", max_active_tasks=1, arguments={"a": {"priority_weight": 9}})
    report = house.play(dag, days=2, outcomes={"a": FAILS}, max_failures="1")
    assert house.states() == {"a1": "failed", "b1": "none", "a2": "none", "b2": "none"}
    assert house.runs() == {1: "failed", 2: "failed"}
    assert named(report) == ["a1 failed"]


# -- S9.3 ---------------------------------------------------------------------------------------------------------------


def past_dag(**given):
    return dag_of("a", "b < a", arguments={"a": {"depends_on_past": True}}, **given)


def test_a_first_run_that_waits_for_a_run_before_the_range_is_deadlocked_with_a_hint(house):
    house.plant_run(1, {"a": "failed", "b": "upstream_failed"}, state="failed")
    report = house.play(past_dag(), days=(2, 3))
    assert (report.state, report.exit_code) == (JobState.DEADLOCKED, 3)
    assert named(report) == ["a2 deadlocked", "b2 deadlocked", "a3 deadlocked", "b3 deadlocked"]
    assert "ignore_first_depends_on_past" in report.hint
    assert house.runs() == {1: "failed", 2: "failed", 3: "failed"}


def test_with_the_flag_of_the_hint_the_job_goes_through(house):
    house.plant_run(1, {"a": "failed", "b": "upstream_failed"}, state="failed")
    report = house.play(past_dag(), days=(2, 3), ignore_first_depends_on_past=True)
    assert (report.state, report.hint) == (JobState.SUCCESS, None)


def test_there_is_no_hint_if_only_a_later_run_is_blocked(house):
    report = house.play(past_dag(), days=2, outcomes={"a": {"2024-01-01": "failed"}})
    assert report.state == JobState.DEADLOCKED
    assert named(report) == ["a1 failed", "b1 upstream_failed", "a2 deadlocked", "b2 deadlocked"]
    assert report.hint is None


def test_a_blocked_one_names_what_it_waits_for(house):
    report = house.play(past_dag(), days=2, outcomes={"a": {"2024-01-01": "failed"}})
    a2, b2 = (error for error in report.errors if error.kind == "deadlocked")
    assert "2024-01-01" in a2.error
    assert "a" in b2.error


def test_a_run_that_is_stuck_fires_its_callback_with_that_reason(house):
    called = []
    dag = past_dag(on_failure_callback=lambda context: called.append(context["reason"]))
    house.play(dag, days=2, outcomes={"a": {"2024-01-01": "failed"}})
    assert called == ["task_failure", "all_tasks_deadlocked"]
    assert [event.reason for event in house.events if isinstance(event, RunSettled)] == called


def test_the_states_of_the_whole_job_are_read_back_from_its_row(house):
    report = house.play(past_dag(), days=2, outcomes={"a": {"2024-01-01": "failed"}})
    with house.engine.connect() as tx:
        (row,) = tx.execute(BackfillJob.__table__.select()).all()
    assert (row.state, row.id) == ("deadlocked", report.job_id)
    assert row.end_date is not None


@pytest.mark.parametrize("request_", [{}, {"max_active_runs": 1}], ids=["of the DAG", "of the job"])
def test_a_stuck_run_that_fills_the_window_ends_the_job_though_dates_are_left(house, request_):
    dag = dag_of("a", max_active_runs=1, arguments={"a": {"depends_on_past": True}})
    house.plant_run(1, {"a": "failed"}, state="failed")
    report = house.play(dag, (2, 4), **request_)
    assert report.state is JobState.DEADLOCKED
    assert named(report) == ["a2 deadlocked"]
    assert report.not_started == (day(3), day(4))
