"""Identity of runs and task instances."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from backfill.clock import as_utc

#: `map_index` of a task instance that is not mapped, or not expanded yet.
UNMAPPED = -1


class TaskInstanceKey(NamedTuple):
    """Names one task instance. The try is no part of it (semantics, "TI, key")."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int = UNMAPPED

    def __str__(self) -> str:
        index = "" if self.map_index == UNMAPPED else f"[{self.map_index}]"
        return f"{self.dag_id}.{self.task_id}{index} {self.run_id}"


def backfill_run_id(logical_date: datetime) -> str:
    """Return the run id of a run that a backfill creates, `backfill__2024-01-01T00:00:00+00:00`."""
    return f"backfill__{as_utc(logical_date).isoformat()}"
