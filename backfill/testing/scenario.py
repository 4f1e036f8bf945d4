"""One scripted scenario, from its dict to what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from backfill.config import Settings, load_settings
from backfill.dag import DAG
from backfill.exceptions import (
    BackfillError,
    BackwardsRefused,
    DateOwned,
    NoTaskMatches,
    NothingToDo,
    PoolTooSmall,
    UnknownPool,
    UsageError,
)
from backfill.jobs.report import Report
from backfill.jobs.request import BackfillRequest
from backfill.keys import UNMAPPED
from backfill.states import JobState, TaskInstanceState
from backfill.store import pools, scratch
from backfill.store.database import repeat
from backfill.testing.dags import build_dag, date_key, moment_of
from backfill.testing.database import scratch_engine
from backfill.testing.patience import ImpatientMailbox
from backfill.testing.presets import write_presets
from backfill.testing.script import Script, ScriptedExecutor
from backfill.testing.stage import Stage

#: The executor of a scenario, as it stands in the job's parameters.
EXECUTOR = ScriptedExecutor.name


def run_scenario(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """Run `scenario` and return what became of it, in the shape of a scenario's `expect`.

    The keys are `job` (success, failed, deadlocked, cancelled or refused), `error`, `failed`, `task_instances` and `dag_runs`;
    the initial state is None there. A job that would wait for ever, for a closed pool or for runs that nobody drives, is
    cancelled. What the scenario expects is never read. Raises `UsageError` for a scenario that cannot be made a DAG of.
    """
    settings = load_settings()
    engine = scratch_engine(settings)
    dag = build_dag(scenario["dag"])
    script = Script(dag, scenario.get("outcomes", {}))
    repeat(engine, lambda tx: _prepare(tx, dag, scenario, settings))
    stage = Stage(engine=engine, settings=settings, mailbox=partial(ImpatientMailbox, engine))
    ended = _run(stage, dag, _request(scenario), script)
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
    unknown = sorted(flags.keys() - asdict(request).keys())
    if unknown:
        raise UsageError(f"The flag {unknown[0]!r} of the scenario is none that a backfill has.")
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
        case BackwardsRefused():
            return "backwards_depends_on_past"
        case PoolTooSmall():
            return "pool_too_small"
        case UnknownPool():
            return "pool_not_found"
        case NoTaskMatches():
            return "no_matching_tasks"
        case _:
            raise refusal


def _rows(tx: Any, dag: DAG, script: Script) -> dict[str, Any]:
    """Return every task instance and run of the DAG as they are now."""
    seen: dict[str, dict[str, dict[int, Any]]] = {}
    for row in scratch.all_task_instances(tx, dag.dag_id):
        date = date_key(row.logical_date)
        seen.setdefault(row.task_id, {}).setdefault(date, {})[row.map_index] = {
            "state": None if row.state == TaskInstanceState.NONE else row.state,
            "try_number": row.try_number,
            "executions": script.executions[row.task_id, date, row.map_index],
        }
    mapped = {task.task_id for task in dag.task_dict.values() if task.is_mapped}
    return {
        "task_instances": {
            task_id: {date: _by_index(rows, is_mapped=task_id in mapped) for date, rows in by_date.items()}
            for task_id, by_date in seen.items()
        },
        "dag_runs": {date_key(logical_date): state for logical_date, state in scratch.all_runs(tx, dag.dag_id)},
    }


def _by_index(rows: Mapping[int, Any], *, is_mapped: bool) -> Any:
    """Return the task instances of one task and run: one as it is, several by their map indexes."""
    if is_mapped or set(rows) != {UNMAPPED}:
        return {"map": {str(index): row for index, row in rows.items()}}
    return rows[UNMAPPED]
