"""Scripted scenarios with what Apache Airflow 2.10.5 really did, run through the real loop.

The folder is `../shared/conformance` beside the project, or that of `CONFORMANCE_FOLDER`. Its SCHEMA.md says what a scenario holds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
from comparison import differences
from deliberate import DIFFERENCES, INSTEAD_OF_A_DEFECT, UNLIKE_ANY_OBSERVED

from backfill.dag.subset import chosen_tasks
from backfill.testing import run_scenario
from backfill.testing.dags import build_dag, moment_of

Scenario = Mapping[str, Any]

FOLDER = Path(os.environ.get("CONFORMANCE_FOLDER") or Path(__file__).resolve().parents[3] / "shared" / "conformance")
FAMILIES = ("trigger", "skips", "retries", "past", "presets", "subset", "mapped", "limits", "mixed", "ranges")

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"there are no scenarios in {FOLDER}")


def scenarios(*families: str) -> list[Scenario]:
    files = [FOLDER / f"{family}.json" for family in families]
    return [scenario for file in files if file.is_file() for scenario in json.loads(file.read_text())]


IN_FAMILIES = scenarios(*FAMILIES)
UNSTABLE = scenarios("unstable")
_KNOWN = {scenario["id"] for scenario in IN_FAMILIES}
DEFECTS = [
    scenario
    for scenario in scenarios("airflow_defects")
    if scenario["id"] not in _KNOWN and ("sane" in scenario or scenario["id"] in INSTEAD_OF_A_DEFECT)
]


def id_of(scenario: Scenario) -> str:
    return str(scenario["id"])


@pytest.mark.parametrize("scenario", IN_FAMILIES, ids=id_of)
def test_a_scenario_ends_as_it_did_in_airflow_unless_a_rule_says_otherwise(scenario: Scenario):
    ours = run_scenario(scenario)
    deliberate = DIFFERENCES.get(scenario["id"])
    assert differences(ours, scenario["expect"], scenario.get("disputed", ())) == (
        deliberate.parts if deliberate else {}
    )


GOING_ON = [each for each in IN_FAMILIES if each.get("flags", {}).get("continue_on_failures")]


@pytest.mark.parametrize("scenario", GOING_ON, ids=id_of)
def test_a_job_that_goes_on_after_failures_names_each_of_them_and_has_failed(scenario: Scenario):
    ours = run_scenario(scenario)
    assert named_as_failed(ours) == failed_in_rows(ours, scenario)
    assert ours["job"] != ("success" if named_as_failed(ours) else "failed")


@pytest.mark.parametrize("scenario", UNSTABLE, ids=id_of)
def test_where_airflow_gave_several_results_ours_is_one_of_them_unless_a_rule_says_otherwise(scenario: Scenario):
    ours = run_scenario(scenario)
    found = [differences(ours, seen["expect"], disputed_in(scenario, seen["expect"])) for seen in scenario["observed"]]
    deliberate = UNLIKE_ANY_OBSERVED.get(scenario["id"])
    assert (deliberate.parts if deliberate else {}) in (found[:1] if deliberate else found)


@pytest.mark.parametrize("scenario", DEFECTS, ids=id_of)
def test_where_airflow_has_a_defect_the_rules_hold(scenario: Scenario):
    ours = run_scenario(scenario)
    deliberate = INSTEAD_OF_A_DEFECT.get(scenario["id"])
    assert differences(ours, scenario.get("sane", scenario["airflow"])) == (deliberate.parts if deliberate else {})


def test_every_deliberate_difference_names_a_scenario_that_there_is():
    assert set(DIFFERENCES) <= _KNOWN
    assert set(UNLIKE_ANY_OBSERVED) <= {scenario["id"] for scenario in UNSTABLE}
    assert set(INSTEAD_OF_A_DEFECT) <= {scenario["id"] for scenario in DEFECTS}


def disputed_in(scenario: Scenario, expected: Mapping[str, Any]) -> Collection[str]:
    """Return what is disputed in a result of an unstable scenario, where the file does not say so."""
    goes_on = scenario.get("flags", {}).get("continue_on_failures", False)
    return {"job"} if goes_on and expected["job"] == "success" else set()


def named_as_failed(ours: Mapping[str, Any]) -> set[tuple[str, str, int]]:
    return {(task_id, date, index) for task_id, date, index in ours.get("failed", [])}


def failed_in_rows(ours: Mapping[str, Any], scenario: Scenario) -> set[tuple[str, str, int]]:
    """Return the chosen task instances of the range that ended badly, by their rows."""
    dag, flags = build_dag(scenario["dag"]), scenario.get("flags", {})
    chosen = chosen_tasks(dag, flags.get("task_regex"), not flags.get("include_upstream", True))
    first, last = moment_of(scenario["start_date"]), moment_of(scenario["end_date"])
    return {
        (task_id, date, int(index))
        for task_id in chosen & ours["task_instances"].keys()
        for date, seen in ours["task_instances"][task_id].items()
        if first <= moment_of(date) <= last
        for index, each in seen.get("map", {-1: seen}).items()
        if each["state"] in {"failed", "upstream_failed"}
    }
