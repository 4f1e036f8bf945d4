"""What a scenario gave, held against what it should have given: part by part, as the folder's SCHEMA.md says.

A part is named by a line of text: `job`, `error`, `failed`, `deadlocked`, `run 2024-01-01`, `load 2024-01-01` or `load[3] 2024-01-01`.
The value of a task instance is (state, try_number, executions).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

#: What a part is worth that one of the two does not have.
ABSENT = "absent"


def differences(ours: Mapping[str, Any], expected: Mapping[str, Any], disputed: Collection[str] = ()) -> dict[str, Any]:
    """Return our values of the parts in which `ours` is not as `expected`; nothing of what is `disputed` is compared.

    Of disputed runs just those count that Airflow left `running`: no run may be that after its job, nor may it be `success`.
    """
    found: dict[str, Any] = {}
    if "job" not in disputed:
        found |= _of_words(ours, expected, ["job"] if "error" in disputed else ["job", "error"])
    for part in ("failed", "deadlocked"):
        told = part in expected or (expected["job"] == "success" and "job" not in disputed)
        if part not in disputed and told:
            found |= _of_names(part, ours, expected)
    if "task_instances" not in disputed:
        found |= _of_task_instances(ours["task_instances"], expected["task_instances"])
    return found | _of_runs(ours["dag_runs"], expected["dag_runs"], disputed="dag_runs" in disputed)


def _of_words(ours: Mapping[str, Any], expected: Mapping[str, Any], parts: list[str]) -> dict[str, Any]:
    return {part: ours.get(part) for part in parts if ours.get(part) != expected.get(part)}


def _of_names(part: str, ours: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """Compare lists of task instances, whatever their order."""
    mine = {_name(*named) for named in ours.get(part, [])}
    return {} if mine == {_name(*named) for named in expected.get(part, [])} else {part: mine}


def _of_runs(ours: Mapping[str, str], expected: Mapping[str, str], *, disputed: bool) -> dict[str, str]:
    dates = {date for date, state in expected.items() if state == "running"} if disputed else ours.keys() | expected
    # closed at the end of its job (S9.4)
    closed = {date for date in dates if (ours.get(date), expected.get(date)) == ("failed", "running")}
    return {f"run {date}": ours.get(date, ABSENT) for date in dates - closed if ours.get(date) != expected.get(date)}


def _of_task_instances(ours: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    mine, theirs = dict(_flat(ours)), dict(_flat(expected))
    found: dict[str, Any] = {}
    for name in mine.keys() | theirs.keys():
        if name not in mine:
            found[name] = ABSENT
        elif name not in theirs or not _agree(mine[name], theirs[name]):
            found[name] = (mine[name]["state"], mine[name]["try_number"], mine[name]["executions"])
    return found


def _agree(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Return whether a task instance is as expected; its try_number says little where it was not executed."""
    compared = ["state"] + ["executions"] * ("executions" in theirs)
    compared += ["try_number"] * ("try_number" in theirs and theirs.get("executions", 0) > 0)
    return all(mine[part] == theirs[part] for part in compared)


def _flat(task_instances: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for task_id, by_date in task_instances.items():
        for date, seen in by_date.items():
            if "map" in seen:
                yield from ((_name(task_id, date, int(index)), each) for index, each in seen["map"].items())
            else:
                yield _name(task_id, date), seen


def _name(task_id: str, date: str, map_index: int = -1) -> str:
    return f"{task_id} {date}" if map_index == -1 else f"{task_id}[{map_index}] {date}"
