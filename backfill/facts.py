"""Rows of the database as plain immutable values, which the store reads and the engine judges.

They stand below both so that neither needs to know the other, and no row is copied from one form to another.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple


class TaskInstanceFacts(NamedTuple):
    """What the coordinator needs to know of one task instance row."""

    id: int
    dag_run_id: int
    task_id: str
    map_index: int
    #: A `TaskInstanceState` word, as plain text from the database.
    state: str
    try_number: int
    max_tries: int
    try_open: bool
    attempt_id: str | None
    #: Retry or reschedule date.
    next_attempt_at: datetime | None
    infrastructure_failures: int
    #: Task ids that this task instance decided to skip (S4.8); None: it decided nothing.
    skips: tuple[str, ...] | None


class RunFacts(NamedTuple):
    """What the coordinator needs to know of one DAG run of its job."""

    id: int
    dag_id: str
    run_id: str
    logical_date: datetime
    data_interval_start: datetime
    data_interval_end: datetime
    state: str
    run_type: str
    conf: dict[str, Any]
    start_date: datetime | None
    #: Place in the job's direction, from 0 (S5.5: "run date in the job's direction").
    ordinal: int


class PreviousRun(NamedTuple):
    """P of S4.9 for one run: the latest earlier date that has a run, or is still to be run by an active job."""

    logical_date: datetime
    #: None: the date has no run yet.
    dag_run_id: int | None
    #: Some active job drives the run, or will.
    driven: bool
    #: State words of all task instances in P, by task id; only of the tasks that were asked for.
    states: dict[str, tuple[str, ...]]
    #: Of the tasks asked for, those that have a task instance in P's date or any earlier run.
    seen_before: frozenset[str]
