"""Scenarios of one's own in a few words, and what came of them in a few more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backfill.testing import run_scenario

FIRST = "2024-01-01"
SECOND = "2024-01-02"
THIRD = "2024-01-03"


def task(task_id: str, *upstream: str, **fields: Any) -> dict[str, Any]:
    return {"task_id": task_id, "upstream": list(upstream), **fields}


def mapped(task_id: str, *upstream: str, over: Any, **fields: Any) -> dict[str, Any]:
    """Return a task mapped over a list, over what a task returned (its id), or over several of both (a tuple)."""
    arguments = [{"xcom": each} if isinstance(each, str) else {"literal": each} for each in _several(over)]
    expand = arguments if isinstance(over, tuple) else arguments[0]
    return task(task_id, *upstream, kind="mapped", expand=expand, **fields)


def _several(over: Any) -> tuple[Any, ...]:
    return over if isinstance(over, tuple) else (over,)


def run(date: str = FIRST, state: str = "failed", run_type: str = "scheduled", **fields: Any) -> dict[str, Any]:
    return {"date": date, "dag_run": state, "run_type": run_type, **fields}


def row(task_id: str, state: str | None, date: str = FIRST, **fields: Any) -> dict[str, Any]:
    return {"task_id": task_id, "date": date, "state": state, **fields}


def scenario(*tasks: Mapping[str, Any], dates: tuple[str, str] = (FIRST, FIRST), **fields: Any) -> dict[str, Any]:
    """Return a scenario; fields of the DAG come as `dag`, those of the scenario by their names."""
    dag = {"dag_id": "d", "tasks": list(tasks), **fields.pop("dag", {})}
    return {"id": "own", "title": "", "dag": dag, "start_date": dates[0], "end_date": dates[1], **fields}


def ended(*tasks: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """Run a scenario, and return all that came of it under flat names.

    `job`, `error` and, where there are any, `failed` and `deadlocked` as sets; each run by its date; each task instance by its id, its
    index and, but for the first date, its date, as (state, try_number, executions).
    """
    return flat(run_scenario(scenario(*tasks, **fields)))


def flat(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of a scenario under flat names, see `ended`."""
    found: dict[str, Any] = {"job": result["job"], **result["dag_runs"]}
    found |= {"error": result["error"]} if "error" in result else {}
    for kind in ("failed", "deadlocked"):
        if kind in result:
            found[kind] = {_name(task_id, index, date) for task_id, date, index in result[kind]}
    for task_id, by_date in result["task_instances"].items():
        for date, seen in by_date.items():
            for index, each in seen.get("map", {None: seen}).items():
                found[_name(task_id, index, date)] = (each["state"], each["try_number"], each["executions"])
    return found


def _name(task_id: str, index: Any, date: str) -> str:
    return task_id + ("" if index in {None, -1, "-1"} else f"[{index}]") + ("" if date == FIRST else f" {date}")


def states(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return just the states of the task instances of a result."""
    return {name: value[0] for name, value in found.items() if isinstance(value, tuple)}
