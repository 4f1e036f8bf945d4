"""Scenarios with what Apache Airflow really did, on the engine alone, each in several orders of events.

The folder is `../shared/conformance` beside the project, or that of `CONFORMANCE_FOLDER`. What the job around the engine decides
(dates, admission, retries) is the work of `engine_replay`, in a few lines.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from engine_replay import differences, replay

FOLDER = Path(os.environ.get("CONFORMANCE_FOLDER") or Path(__file__).resolve().parents[4] / "shared" / "conformance")
FAMILIES = ("trigger", "skips", "retries", "past", "presets", "subset", "mapped", "limits", "mixed")
ORDERS = range(3)

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"there are no scenarios in {FOLDER}")

#: Scenarios in which a rule of semantics.md deliberately gives something else: the rule, and all that differs.
DELIBERATE: dict[str, tuple[str, list[str]]] = {
    "trigger-0360": (
        "S4.4: a failure beats a skip",
        [
            "t04 of 2024-01-03: state upstream_failed instead of skipped",
            "t06 of 2024-01-03: state upstream_failed instead of skipped",
            "t07 of 2024-01-03: state success instead of skipped",
            "t07 of 2024-01-03: executions 1 instead of 0",
        ],
    ),
    "trigger-0361": (
        "S4.4: a failure beats a skip",
        [
            "t05 of 2024-01-01: state upstream_failed instead of skipped",
            "t10 of 2024-01-01: state upstream_failed instead of skipped",
        ],
    ),
    "trigger-0438": (
        "S4.4: a failure beats a skip",
        [
            "run of 2024-01-02: failed instead of success",
            "t03 of 2024-01-02: state upstream_failed instead of skipped",
        ],
    ),
    "past-0024": (
        "S9.2: a stuck run leaves the window, the next date is admitted",
        ["a of 2024-01-04: None instead of no row", "b of 2024-01-04: None instead of no row"],
    ),
    "past-0045": (
        "S2.12: a removed task instance is ignored, so there is none before",
        [
            "job: success instead of deadlocked",
            "a of 2024-01-01: state success instead of None",
            "a of 2024-01-01: executions 1 instead of 0",
            "a of 2024-01-02: state success instead of None",
            "a of 2024-01-02: executions 1 instead of 0",
            "b of 2024-01-01: state success instead of None",
            "b of 2024-01-01: executions 1 instead of 0",
            "b of 2024-01-02: state success instead of None",
            "b of 2024-01-02: executions 1 instead of 0",
        ],
    ),
    "past-0065": (
        "S4.9: a manual run is never the run before",
        [
            "job: success instead of deadlocked",
            "a of 2024-01-01: state success instead of None",
            "a of 2024-01-01: executions 1 instead of 0",
            "a of 2024-01-02: state success instead of None",
            "a of 2024-01-02: executions 1 instead of 0",
            "b of 2024-01-01: state success instead of None",
            "b of 2024-01-01: executions 1 instead of 0",
            "b of 2024-01-02: state success instead of None",
            "b of 2024-01-02: executions 1 instead of 0",
        ],
    ),
    "presets-0064": ("S2.8: a finished run keeps its state", ["run of 2024-01-01: failed instead of success"]),
    "presets-0086": (
        "S2.9: a cleared task instance has its full number of retries",
        [
            "job: success instead of failed",
            "run of 2024-01-01: success instead of failed",
            "a of 2024-01-01: state success instead of failed",
            "a of 2024-01-01: executions 2 instead of 1",
            "a of 2024-01-01: try_number 4 instead of 3",
            "b of 2024-01-01: state success instead of upstream_failed",
            "b of 2024-01-01: executions 3 instead of 0",
        ],
    ),
    "presets-0087": (
        "S2.9: a cleared task instance has its full number of retries",
        ["a of 2024-01-01: executions 3 instead of 2", "a of 2024-01-01: try_number 4 instead of 3"],
    ),
    "presets-0088": (
        "S2.9: a cleared task instance has its full number of retries",
        ["a of 2024-01-01: executions 3 instead of 1", "a of 2024-01-01: try_number 6 instead of 4"],
    ),
    "presets-0126": ("S2.8: a finished run keeps its state", ["run of 2024-01-02: failed instead of success"]),
    "subset-0026": ("S13.7: judged over the whole DAG", ["run of 2024-01-01: failed instead of success"]),
    "subset-0027": ("S2.8: a finished run keeps its state", ["run of 2024-01-01: failed instead of success"]),
    "mapped-0110": (
        "S4.7: expanded as soon as line 3 passes, which an expanded source does when it is finished",
        [
            "n of 2024-01-01: None instead of upstream_failed",
            "n[0] of 2024-01-01: upstream_failed instead of no row",
            "n[1] of 2024-01-01: upstream_failed instead of no row",
        ],
    ),
    "mapped-0120": (
        "-m: without stored values the row -1 becomes success",
        [
            "job: success instead of failed",
            "run of 2024-01-01: success instead of failed",
            "m of 2024-01-01: state success instead of upstream_failed",
            "z of 2024-01-01: state success instead of upstream_failed",
        ],
    ),
    "mixed-0115": (
        "S9.2: a stuck run leaves the window, the next dates are admitted",
        [
            "t00 of 2024-01-03: failed instead of no row",
            "t01 of 2024-01-03: upstream_failed instead of no row",
            "t01 of 2024-01-04: state upstream_failed instead of None",
            "t02 of 2024-01-03: success instead of no row",
            "t02 of 2024-01-04: state success instead of None",
            "t02 of 2024-01-04: executions 1 instead of 0",
            "t03 of 2024-01-03: success instead of no row",
            "t03 of 2024-01-04: state success instead of None",
            "t03 of 2024-01-04: executions 1 instead of 0",
            "t04 of 2024-01-03: success instead of no row",
            "t04 of 2024-01-04: state failed instead of None",
            "t04 of 2024-01-04: executions 1 instead of 0",
        ],
    ),
    "mixed-0149": ("S2.8: a finished run keeps its state", ["run of 2024-01-01: success instead of failed"]),
    "mixed-0195": ("S2.8: a finished run keeps its state", ["run of 2024-01-02: failed instead of success"]),
}


def scenarios(*families: str) -> list[Any]:
    files = [FOLDER / f"{family}.json" for family in families]
    found = [each for file in files if file.is_file() for each in json.loads(file.read_text())]
    return [pytest.param(each, id=each["id"]) for each in found]


@pytest.mark.parametrize("scenario", scenarios(*FAMILIES))
def test_a_scenario_ends_as_it_did_in_airflow_or_as_the_rule_says_that_differs(scenario: dict[str, Any]) -> None:
    _, expected = DELIBERATE.get(scenario["id"], ("", []))
    for seed in ORDERS:
        assert differences(scenario, replay(scenario, seed), scenario["expect"]) == expected


@pytest.mark.parametrize("scenario", [each for each in scenarios("airflow_defects") if "sane" in each.values[0]])
def test_where_airflow_has_a_defect_the_result_is_the_sane_one(scenario: dict[str, Any]) -> None:
    _, expected = DELIBERATE.get(scenario["id"], ("", []))
    for seed in ORDERS:
        assert differences(scenario, replay(scenario, seed), scenario["sane"]) == expected


@pytest.mark.parametrize("scenario", scenarios("unstable"))
def test_what_depends_on_the_order_of_events_in_airflow_does_not_here(scenario: dict[str, Any]) -> None:
    results = [replay(scenario, seed) for seed in range(8)]
    assert all(result["task_instances"] == results[0]["task_instances"] for result in results)
    assert all(result["dag_runs"] == results[0]["dag_runs"] for result in results)
    assert all(result["job"] == results[0]["job"] for result in results)
