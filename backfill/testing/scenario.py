"""One scripted scenario, from its dict to what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from backfill.config import Settings, load_settings
from backfill.dag import DAG
from backfill.exceptions import (
    BackfillError,
    DateOwned,
    NothingToDo,
    RefusedError,
    UnknownPool,
    UsageError,
)
from backfill.jobs.report import Report
from backfill.jobs.request import BackfillRequest
from backfill.states import JobState, TaskInstanceState
from backfill.store import pools, scratch
from backfill.store.database import repeat
from backfill.testing.dags import build_dag, date_key, moment_of
from backfill.testing.database import scratch_engine
from backfill.testing.presets import write_presets
from backfill.testing.script import Script, ScriptedExecutor
from backfill.testing.stage import Stage

#: The executor of a scenario, as it stands in the job's parameters.
EXECUTOR = ScriptedExecutor.name


def run_scenario(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """Run `scenario` and return what became of it, in the shape of a scenario's `expect`.

    The keys are `job` (success, failed, deadlocked, cancelled or refused), `error`, `failed`, `task_instances` and `dag_runs`;
    the initial state is None there. What the scenario expects is never read. Raises `UsageError` for a scenario that cannot be
    made a DAG of.
    """
    settings = load_settings()
    engine = scratch_engine(settings)
    dag = build_dag(scenario["dag"])
    script = Script(dag, scenario.get("outcomes", {}))
    repeat(engine, lambda tx: _prepare(tx, dag, scenario, settings))
    ended = _run(Stage(engine=engine, settings=settings), dag, _request(scenario), script)
    return {**ended, **repeat(engine, lambda tx: _rows(tx, dag, script))}


def _prepare(tx: Any, dag: DAG, scenario: Mapping[str, Any], settings: Settings) -> None:
    scratch.empty_database(tx, default_pool_slots=settings.core.default_pool_slots)
    for name, slots in scenario.get("pools", {}).items():
        pools.set_pool(tx, name, slots)
    write_presets(tx, dag, scenario.get("preset", []))


def _request(scenario: Mapping[str, Any]) -> BackfillRequest:
    flags = dict(scenario.get("flags", {}))
    include_upstream = flags.pop("include_upstream", True)
    request = BackfillRequest(
        start_date=moment_of(scenario["start_date"]),
        end_date=moment_of(scenario["end_date"]),
        ignore_first_depends_on_past=flags.pop("ignore_first_depends_on_past", True),
        ignore_dependencies=not include_upstream,
        delay_on_limit_secs=0.01,
        executor=EXECUTOR,
    )
    return replace(request, **flags)


def _run(stage: Stage, dag: DAG, request: BackfillRequest, script: Script) -> dict[str, Any]:
    """Create and drive the job; return how it ended."""
    try:
        ready = stage.put_on(dag, request, ScriptedExecutor(stage.engine, script))
    except BackfillError as refusal:
        return {"job": "refused", "error": _reason_of(refusal)}
    return _said(ready.drive())


def _said(report: Report) -> dict[str, Any]:
    ended: dict[str, Any] = {"job": str(report.state)}
    if report.state is JobState.DEADLOCKED:
        past = any(error.kind == "deadlocked" and error.waits_for_past for error in report.errors)
        ended["error"] = "deadlock_depends_on_past" if past else "deadlock"
    elif report.state is JobState.FAILED:
        ended["error"] = "task_failed"
    for kind, states in (("failed", {"failed", "upstream_failed"}), ("deadlocked", {"deadlocked"})):
        named = [e for e in report.errors if e.kind in states]
        if named:
            ended[kind] = [[e.key.task_id, date_key(e.logical_date), e.key.map_index] for e in named]
    return ended


def _reason_of(refusal: BackfillError) -> str:
    match refusal:
        case DateOwned():
            return "running_run_exists"
        case NothingToDo():
            return "no_run_dates"
        case RefusedError():
            return "backwards_depends_on_past"
        case UnknownPool():
            return "pool_not_found"
        case UsageError() if "task" in str(refusal):
            return "no_matching_tasks"
        case _:
            raise refusal


def _rows(tx: Any, dag: DAG, script: Script) -> dict[str, Any]:
    """Return every task instance and run of the DAG as they are now."""
    found: dict[str, dict[str, Any]] = {}
    for row in scratch.all_task_instances(tx, dag.dag_id):
        date = date_key(row.logical_date)
        seen = {
            "state": None if row.state == TaskInstanceState.NONE else row.state,
            "try_number": row.try_number,
            "executions": script.executions[row.task_id, date, row.map_index],
        }
        by_date = found.setdefault(row.task_id, {})
        task = dag.task_dict.get(row.task_id)
        if row.map_index >= 0 or (task is not None and task.is_mapped):
            by_date.setdefault(date, {"map": {}})["map"][str(row.map_index)] = seen
        else:
            by_date[date] = seen
    return {
        "task_instances": found,
        "dag_runs": {date_key(logical_date): state for logical_date, state in scratch.all_runs(tx, dag.dag_id)},
    }
