"""What is in the database before a scenario's job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from backfill.dag import DAG, BaseOperator, Operator
from backfill.engine.graph import Graph
from backfill.keys import UNMAPPED
from backfill.states import ENDED_BADLY, RunType, TaskInstanceState
from backfill.store.database import Tx
from backfill.store.scratch import GivenTaskInstance, insert_run, insert_task_instances
from backfill.testing.dags import moment_of
from backfill.testing.script import RETURN_VALUE

_S = TaskInstanceState
#: States whose task instances have not tried anything yet, unless the scenario says otherwise.
_UNTRIED = {_S.NONE, _S.SKIPPED, _S.UPSTREAM_FAILED, _S.REMOVED}
#: States in the midst of a try (S6.1). A `queued` row counts as left by another system, which had used up that try.
_OPEN = {_S.RUNNING, _S.UP_FOR_RESCHEDULE}


def write_presets(tx: Tx, dag: DAG, presets: Sequence[Mapping[str, Any]]) -> None:
    """Write the runs of `presets` with their task instances."""
    graph = Graph.compile(dag)
    runs = [preset for preset in presets if "task_id" not in preset]
    for run in runs:
        if run["run_type"] != RunType.BACKFILL and (dag.start_date and moment_of(run["date"]) < dag.start_date):
            insert_run(tx, _run_values(dag, run))  # its tasks do not exist yet
            continue
        own = [preset for preset in presets if "task_id" in preset and preset["date"] == run["date"]]
        insert_task_instances(tx, _task_instances(dag, graph, run, own, insert_run(tx, _run_values(dag, run))))


def _run_id(preset: Mapping[str, Any]) -> str:
    return f"{preset['run_type']}__{moment_of(preset['date']).isoformat()}"


def _run_values(dag: DAG, preset: Mapping[str, Any]) -> dict[str, Any]:
    date = moment_of(preset["date"])
    interval = next(iter(dag.timetable.run_dates(date, date)), None)
    return {
        "dag_id": dag.dag_id,
        "run_id": _run_id(preset),
        "logical_date": date,
        "data_interval_start": interval.data_interval_start if interval else date,
        "data_interval_end": interval.data_interval_end if interval else date,
        "run_type": preset["run_type"],
        "state": preset["dag_run"],
        "external_trigger": preset["run_type"] == "manual",
        "start_date": date,
    }


def _task_instances(
    dag: DAG, graph: Graph, run: Mapping[str, Any], own: Sequence[Mapping[str, Any]], dag_run_id: int
) -> list[GivenTaskInstance]:
    """Return a row for every task of the DAG, but for those that the scenario gives by themselves or wants absent."""
    given = {(each["task_id"], each.get("map_index", UNMAPPED)): each for each in own}
    mapped_by_hand = {task_id for task_id, index in given if index != UNMAPPED}
    rows: dict[tuple[str, int], Mapping[str, Any]] = {
        (task_id, index): {"task_id": task_id, "map_index": index, "state": run.get("task_instances")}
        for task_id in graph.task_ids
        for index in graph.literal_indexes(task_id)
        if task_id not in mapped_by_hand
    }
    rows.update(given)
    common = {"dag_run_id": dag_run_id, "dag_id": dag.dag_id, "run_id": _run_id(run), "queue": "backfill"}
    return [
        GivenTaskInstance({**common, **_values(dag.task_dict.get(task_id), row, index, task_id)}, _xcoms(row))
        for (task_id, index), row in rows.items()
        if row.get("state") != "absent"
    ]


def _values(task: Operator | None, row: Mapping[str, Any], map_index: int, task_id: str) -> dict[str, Any]:
    state = TaskInstanceState(row.get("state") or _S.NONE)
    past = datetime.now(UTC) - timedelta(minutes=1)
    follow = row.get("follow")
    return {
        "task_id": task_id,
        "map_index": map_index,
        "state": state.value,
        "try_number": row.get("try_number", 0 if state in _UNTRIED else 1),
        "max_tries": task.retries if task else 0,
        "try_open": state in _OPEN,
        "pool": task.pool if task else "default_pool",
        "pool_slots": task.pool_slots if task else 1,
        # whoever ran it is long gone
        "heartbeat_at": datetime.now(UTC) - timedelta(days=1) if state == _S.RUNNING else None,
        "next_attempt_at": past if state in {_S.UP_FOR_RETRY, _S.UP_FOR_RESCHEDULE} else None,
        "skips": list(task.decide_skips(follow, {})) if isinstance(task, BaseOperator) and follow is not None else None,
        "error": "as the scenario says" if state in ENDED_BADLY else None,
    }


def _xcoms(row: Mapping[str, Any]) -> dict[str, Any]:
    return {RETURN_VALUE: row["return"]} if "return" in row else {}
