"""What is run in a simulated world: DAGs, and how their tasks end at each try."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from backfill.config import Settings
from backfill.dag import DAG
from backfill.testing.dags import build_dag

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
POOL = "narrow"
POOL_SLOTS = 2

SETTINGS = Settings().override(
    "the simulation",
    {"task.heartbeat_timeout": 30, "task.queued_timeout": 30, "task.infrastructure_retries": 1000},
)

_SHAPES: dict[str, list[dict[str, Any]]] = {
    "diamond": [
        {"task_id": "top", "retries": 1},
        {"task_id": "left", "upstream": ["top"], "retries": 2, "pool": POOL},
        {"task_id": "right", "upstream": ["top"], "pool": POOL, "pool_slots": 2},
        {"task_id": "always", "upstream": ["left", "right"], "trigger_rule": "all_done"},
        {"task_id": "bottom", "upstream": ["left", "right"], "pool": POOL},
        {"task_id": "end", "kind": "empty", "upstream": ["bottom"]},
    ],
    "past": [
        {"task_id": "grow", "depends_on_past": True, "retries": 1},
        {"task_id": "check", "upstream": ["grow"], "wait_for_downstream": True, "max_active_tis_per_dag": 1},
        {"task_id": "tell", "upstream": ["check"], "trigger_rule": "one_failed"},
    ],
    "branch": [
        {"task_id": "choose", "kind": "branch", "retries": 1},
        {"task_id": "one", "upstream": ["choose"], "pool": POOL},
        {"task_id": "two", "upstream": ["choose"], "retries": 1},
        {"task_id": "two_more", "upstream": ["two"]},
        {"task_id": "join", "upstream": ["one", "two_more"], "trigger_rule": "none_failed_min_one_success"},
    ],
    "mapped": [
        {"task_id": "list", "retries": 1},
        {
            "task_id": "each",
            "kind": "mapped",
            "upstream": ["list"],
            "expand": {"xcom": "list"},
            "retries": 1,
            "pool": POOL,
        },
        {"task_id": "sum", "upstream": ["each"], "trigger_rule": "all_done"},
    ],
}
SHAPES = tuple(_SHAPES)
#: With `fail_stop` no task may have a trigger rule of its own.
_SHAPES["plain"] = [
    {"task_id": "first", "retries": 1},
    {"task_id": "second", "upstream": ["first"], "pool": POOL},
    {"task_id": "third", "upstream": ["first"], "retries": 1},
    {"task_id": "alone", "retries": 1},
    {"task_id": "last", "upstream": ["second", "third"]},
    {"task_id": "tidy", "upstream": ["last"], "teardown": True},
]
#: How a try may end; `later` reschedules once and then succeeds.
OUTCOMES = ("success", "failed", "skipped", "later")

Place = tuple[str, int]


@dataclass(frozen=True)
class Script:
    """One DAG over some days, and how each task ends at each of its tries; beyond what is written they succeed."""

    shape: str = "diamond"
    days: int = 2
    #: By task id and number of the day: the outcomes of its tries, in order.
    outcomes: Mapping[Place, tuple[str, ...]] = field(default_factory=dict)
    continue_on_failures: bool = True
    run_backwards: bool = False
    infrastructure_retries: int = 1000
    #: Number of the first day: two jobs may share a DAG, but no date.
    first_day: int = 0
    fail_stop: bool = False
    #: `dagrun_timeout`.
    timeout: timedelta | None = None

    @property
    def all_days(self) -> range:
        return range(self.first_day, self.first_day + self.days)

    @property
    def settings(self) -> Settings:
        return SETTINGS.override("the simulation", {"task.infrastructure_retries": self.infrastructure_retries})

    def dag(self) -> DAG:
        dag = build_dag(
            {"dag_id": self.shape, "max_active_runs": 2, "max_active_tasks": 3, "tasks": _SHAPES[self.shape]}
        )
        dag.fail_stop, dag.dagrun_timeout = self.fail_stop, self.timeout
        for task in dag.task_dict.values():
            task.retry_delay = timedelta(seconds=7)
        return dag

    def task_ids(self) -> list[str]:
        return [task["task_id"] for task in _SHAPES[self.shape]]

    def outcome(self, task_id: str, day: int, try_number: int) -> str:
        planned = self.outcomes.get((task_id, day), ())
        return planned[try_number - 1] if try_number <= len(planned) else "success"

    def returned(self, task_id: str, day: int) -> Any:
        """Return what a task that succeeds leaves as its value."""
        return list(range(day % 3 + 1)) if task_id == "list" else None

    def skips(self, task_id: str, day: int) -> list[str] | None:
        """Return what a branch decides to skip."""
        return [["one"], ["two"]][day % 2] if task_id == "choose" else None

    def with_outcomes(self, outcomes: Mapping[Place, tuple[str, ...]]) -> Script:
        return replace(self, outcomes=outcomes)
