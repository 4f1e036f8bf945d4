"""The DAG of a scenario, made of real operators whose bodies a script plays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from backfill.clock import as_utc
from backfill.dag import DAG, Operator
from backfill.exceptions import UsageError
from backfill.operators import BranchPythonOperator, EmptyOperator, PythonOperator, ShortCircuitOperator
from backfill.operators.decorators import TaskFunction
from backfill.sensors import PythonSensor

#: First date of a DAG that names none.
FIRST_DATE = "2023-01-01"
#: Arguments that a scenario's task may have under the operators' own names.
_SAME_NAMES = (
    "trigger_rule",
    "retries",
    "depends_on_past",
    "wait_for_downstream",
    "priority_weight",
    "weight_rule",
    "pool",
    "pool_slots",
    "max_active_tis_per_dag",
    "max_active_tis_per_dagrun",
)


def moment_of(key: str) -> datetime:
    """Return the moment that a date key stands for: `2024-01-01` is midnight UTC."""
    return datetime.fromisoformat(key).replace(tzinfo=UTC)


def date_key(moment: datetime) -> str:
    """Return the key of a moment, the inverse of `moment_of`."""
    utc = as_utc(moment)
    return utc.strftime("%Y-%m-%d" if utc.time() == datetime.min.time() else "%Y-%m-%dT%H:%M:%S")


def build_dag(described: Mapping[str, Any]) -> DAG:
    """Return the DAG that a scenario describes."""
    zone = ZoneInfo(described.get("timezone", "UTC"))
    dag = DAG(
        described.get("dag_id", "d"),
        schedule=_schedule(described.get("schedule", "@daily")),
        start_date=moment_of(described.get("start_date", FIRST_DATE)).astimezone(zone),
        end_date=moment_of(described["end_date"]) if described.get("end_date") else None,
        catchup=described.get("catchup", True),
        max_active_runs=described.get("max_active_runs", 16),
        max_active_tasks=described.get("max_active_tasks", 16),
    )
    with dag:
        for task in described["tasks"]:
            _add(dag, task)
    return dag


def _schedule(described: Any) -> Any:
    return timedelta(seconds=described["seconds"]) if isinstance(described, Mapping) else described


def _add(dag: DAG, described: Mapping[str, Any]) -> None:
    operator = _operator(dag, described)
    for parent in described.get("upstream", []):
        dag.task_dict[parent] >> operator
    if described.get("setup"):
        operator.as_setup()
    if described.get("teardown"):
        operator.as_teardown(
            setups=[dag.task_dict[name] for name in described.get("setups", [])],
            on_failure_fail_dagrun=described.get("on_failure_fail_dagrun", False),
        )


def _operator(dag: DAG, described: Mapping[str, Any]) -> Operator:
    arguments: dict[str, Any] = {name: described[name] for name in _SAME_NAMES if name in described}
    if described.get("teardown"):
        arguments.pop("trigger_rule", None)  # `as_teardown` gives it, and refuses any other
    arguments |= {"task_id": described["task_id"], "retry_delay": timedelta()}
    kind = described.get("kind", "python")
    match kind:
        case "python":
            return PythonOperator(python_callable=_body, **arguments)
        case "empty":
            return EmptyOperator(**arguments)
        case "branch":
            return BranchPythonOperator(python_callable=_body, **arguments)
        case "short_circuit":
            ignore = described.get("ignore_downstream_trigger_rules", True)
            return ShortCircuitOperator(python_callable=_body, ignore_downstream_trigger_rules=ignore, **arguments)
        case "sensor_reschedule":
            return PythonSensor(python_callable=_body, mode="reschedule", poke_interval=0, **arguments)
        case "mapped":
            function = TaskFunction(_mapped_body, PythonOperator, arguments)
            return function.expand(**_expansion(dag, described["expand"])).operator
        case _:
            raise UsageError(f"The task {described['task_id']!r} is of kind {kind!r}, which no scenario knows.")


def _expansion(dag: DAG, described: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    arguments = [described] if isinstance(described, Mapping) else described
    return {
        f"v{number}": argument["literal"] if "literal" in argument else dag.task_dict[argument["xcom"]].output
        for number, argument in enumerate(arguments)
    }


def _body() -> None:
    """Stand in for what the script plays."""


def _mapped_body(**values: Any) -> None:
    """Stand in for what the script plays, with any number of arguments to be mapped over."""
