"""Random scenarios through the real loop and a real database, held against the rules worked out one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from random_scenarios import RandomScenario
from sequential import Sequential

from backfill.testing import run_scenario

SOME = settings(
    deadline=None, database=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
MANY = settings(SOME, max_examples=1500)
SCENARIOS = st.integers(0, 2**32).map(lambda seed: RandomScenario(seed).draw())


#: What waits for a retry may stay so when its run is closed; the others are back in the initial state then (S3.23).
IDLE_AT_THE_END = {"up_for_retry"}
UNFINISHED = {"scheduled", "queued", "running", "up_for_reschedule", *IDLE_AT_THE_END}


def ends_of(result: Mapping[str, Any], scenario: Mapping[str, Any]) -> dict[str, Any]:
    """Return what came of a scenario in the form of the sequential reference: all that is unfinished there is None.

    Rows that the job has nothing to do with may be unfinished in any way, those that it drove may not.
    """
    known = Sequential(scenario)

    def state(task_id: str, date: str, found: str | None) -> str | None:
        is_ours = task_id in known.graph.chosen and date in known.dates
        return None if found in (IDLE_AT_THE_END if is_ours else UNFINISHED) else found

    return {
        "job": result["job"],
        "dag_runs": result["dag_runs"],
        "task_instances": {
            (task_id, date, int(index)): (state(task_id, date, each["state"]), each["executions"])
            for task_id, by_date in result["task_instances"].items()
            for date, seen in by_date.items()
            for index, each in seen.get("map", {-1: seen}).items()
        },
    }


def named(result: Mapping[str, Any], kind: str) -> set[tuple[str, str, int]]:
    return {(task_id, date, index) for task_id, date, index in result.get(kind, [])}


def check(scenario: dict[str, Any]) -> None:
    """Hold one scenario against the reference, and what is reported against the rows."""
    result = run_scenario(deepcopy(scenario))
    expected = Sequential(scenario)
    ends = ends_of(result, scenario)
    assert ends == expected.work_out()
    assert not {"queued", "running"} & {result["dag_runs"][date] for date in expected.dates}
    in_range = {
        key: state
        for key, (state, _) in ends["task_instances"].items()
        if key[1] in expected.dates and key[0] in expected.graph.chosen
    }
    assert named(result, "failed") == {key for key, state in in_range.items() if state in {"failed", "upstream_failed"}}
    assert named(result, "deadlocked") == {key for key, state in in_range.items() if state is None}


@SOME
@given(SCENARIOS)
def test_final_states_equal_a_sequential_reference(scenario: dict[str, Any]) -> None:
    check(scenario)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@MANY
@given(SCENARIOS)
def test_final_states_equal_a_sequential_reference_thousands_of_times(scenario: dict[str, Any]) -> None:
    check(scenario)


@settings(SOME, max_examples=20)
@given(SCENARIOS, st.sampled_from([1, 2, 16]), st.sampled_from([1, 3, 16]), st.randoms(use_true_random=False))
def test_final_states_do_not_depend_on_window_limits_or_priorities(
    scenario: dict[str, Any], runs: int, tasks: int, rng: Any
) -> None:
    before = ends_of(run_scenario(deepcopy(scenario)), scenario)
    scenario["dag"] |= {"max_active_runs": runs, "max_active_tasks": tasks}
    for each in scenario["dag"]["tasks"]:
        each["priority_weight"] = rng.randint(1, 20)
    assert ends_of(run_scenario(scenario), scenario) == before


@settings(SOME, max_examples=20)
@given(SCENARIOS)
def test_runs_that_were_admitted_before_a_failure_end_as_if_there_had_been_none(scenario: dict[str, Any]) -> None:
    scenario["flags"]["continue_on_failures"] = False
    ours, expected = ends_of(run_scenario(deepcopy(scenario)), scenario), Sequential(scenario)
    theirs = expected.work_out()
    before = {each["date"]: each["dag_run"] for each in scenario["preset"] if "dag_run" in each}
    for date in expected.dates:
        if rows_of(ours, date) != rows_of(theirs, date):
            assert ours["job"] != "success"
            assert ours["dag_runs"].get(date) == before.get(date)  # its turn never came
    admitted = {date for date in expected.dates if ours["dag_runs"].get(date) != before.get(date)}
    assert not {"queued", "running"} & {ours["dag_runs"][date] for date in admitted}
    if rows_of(ours) == rows_of(theirs):
        assert ours["job"] == theirs["job"]


def rows_of(ends: Mapping[str, Any], date: str | None = None) -> dict[Any, Any]:
    return {key: value for key, value in ends["task_instances"].items() if date in {None, key[1]}}
