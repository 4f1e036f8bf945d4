"""The words of the system: states, rules, and the table of the only transitions that exist.

Names are Airflow's (interface.md, section 3). The transition table is section 3 of the semantics: `docs/state_machine.md`
is drawn from it, and the store checks every statement's guard against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class TaskInstanceState(StrEnum):
    """State of one task instance. The initial state is the word `none`, never NULL."""

    NONE = "none"
    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    UPSTREAM_FAILED = "upstream_failed"
    UP_FOR_RETRY = "up_for_retry"
    UP_FOR_RESCHEDULE = "up_for_reschedule"
    REMOVED = "removed"


class DagRunState(StrEnum):
    """State of one DAG run."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"


class JobState(StrEnum):
    """State of one backfill job."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCESS = "success"
    FAILED = "failed"
    DEADLOCKED = "deadlocked"
    CANCELLED = "cancelled"


class RunType(StrEnum):
    """How a DAG run came to be."""

    BACKFILL = "backfill"
    SCHEDULED = "scheduled"
    MANUAL = "manual"


class TriggerRule(StrEnum):
    """When a task may run, given how its direct upstream task instances ended (S4.3)."""

    ALL_SUCCESS = "all_success"
    ALL_FAILED = "all_failed"
    ALL_DONE = "all_done"
    ALL_SKIPPED = "all_skipped"
    ONE_SUCCESS = "one_success"
    ONE_FAILED = "one_failed"
    ONE_DONE = "one_done"
    NONE_FAILED = "none_failed"
    NONE_FAILED_MIN_ONE_SUCCESS = "none_failed_min_one_success"
    NONE_SKIPPED = "none_skipped"
    ALL_DONE_SETUP_SUCCESS = "all_done_setup_success"
    ALWAYS = "always"


#: Older names that Airflow still accepts for two of the rules (S4.4).
TRIGGER_RULE_ALIASES = {
    "dummy": TriggerRule.ALWAYS,
    "none_failed_or_skipped": TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
}


class WeightRule(StrEnum):
    """How a task's priority adds up over the graph (S5.5)."""

    DOWNSTREAM = "downstream"
    UPSTREAM = "upstream"
    ABSOLUTE = "absolute"


class Reprocess(StrEnum):
    """What to do with dates that already have a run (S2.7). Not given at all is a fourth behaviour."""

    NONE = "none"
    FAILED = "failed"
    COMPLETED = "completed"


_S = TaskInstanceState

#: `queued` or `running`: occupies pools and limits.
IN_FLIGHT = frozenset({_S.QUEUED, _S.RUNNING})
#: Waits for the coordinator's decision.
IDLE = frozenset({_S.NONE, _S.SCHEDULED, _S.UP_FOR_RETRY, _S.UP_FOR_RESCHEDULE})
#: Ended well or badly, or removed; nothing happens to it by itself any more.
FINISHED = frozenset({_S.SUCCESS, _S.SKIPPED, _S.FAILED, _S.UPSTREAM_FAILED, _S.REMOVED})
ENDED_WELL = frozenset({_S.SUCCESS, _S.SKIPPED})
ENDED_BADLY = frozenset({_S.FAILED, _S.UPSTREAM_FAILED})
UNFINISHED = IN_FLIGHT | IDLE

#: Job states that own dates and may be driven on.
ACTIVE_JOB = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.PAUSED})
FINISHED_JOB = frozenset(JobState) - ACTIVE_JOB


@dataclass(frozen=True, slots=True)
class Transition:
    """One row of the transition table: from any of `sources`, `event` leads to one of `targets`."""

    rule: str
    sources: frozenset[TaskInstanceState]
    event: str
    targets: frozenset[TaskInstanceState]
    writer: str


def _row(rule: str, sources: frozenset[_S] | set[_S], event: str, targets: set[_S], writer: str) -> Transition:
    return Transition(rule, frozenset(sources), event, frozenset(targets), writer)


_COORDINATOR, _WORKER, _OPERATOR = "coordinator", "worker", "operator"
_ANY = frozenset(TaskInstanceState)

#: Every transition of a task instance that may be written (semantics, section 3). Creation (S3.1) has no source.
TRANSITIONS: tuple[Transition, ...] = (
    _row("S3.1", set(), "run taken, task added, mapping expanded", {_S.NONE}, _COORDINATOR),
    _row(
        "S3.2",
        {_S.NONE, _S.UP_FOR_RETRY, _S.UP_FOR_RESCHEDULE},
        "dependencies met, no place yet",
        {_S.SCHEDULED},
        _COORDINATOR,
    ),
    _row("S3.3", {_S.SCHEDULED}, "dependencies no longer met", {_S.NONE}, _COORDINATOR),
    _row("S3.4", IDLE, "dispatch", {_S.QUEUED}, _COORDINATOR),
    _row("S3.5", IDLE, "dependencies settle it", {_S.SKIPPED, _S.UPSTREAM_FAILED}, _COORDINATOR),
    _row("S3.6", IDLE, "dependencies met, nothing to execute", {_S.SUCCESS}, _COORDINATOR),
    _row("S3.7", {_S.QUEUED}, "claim", {_S.RUNNING}, _WORKER),
    _row("S3.8", {_S.QUEUED}, "taken back", {_S.NONE}, _COORDINATOR),
    _row("S3.9", {_S.RUNNING}, "task returns", {_S.SUCCESS}, _WORKER),
    _row("S3.10", {_S.RUNNING}, "task asks to be skipped", {_S.SKIPPED}, _WORKER),
    _row("S3.11", {_S.RUNNING}, "task raises, times out or is killed", {_S.UP_FOR_RETRY, _S.FAILED}, _WORKER),
    _row("S3.12", {_S.RUNNING}, "failure that forbids a retry", {_S.FAILED}, _WORKER),
    _row("S3.13", {_S.RUNNING}, "task asks to be looked at later", {_S.UP_FOR_RESCHEDULE}, _WORKER),
    _row(
        "S3.14",
        IN_FLIGHT,
        "executor reports this attempt finished, the row disagrees",
        {_S.UP_FOR_RETRY, _S.FAILED},
        _COORDINATOR,
    ),
    _row("S3.15", IN_FLIGHT, "infrastructure failure within its budget", {_S.NONE}, _COORDINATOR),
    _row("S3.16", IN_FLIGHT, "infrastructure failure beyond its budget", {_S.UP_FOR_RETRY, _S.FAILED}, _COORDINATOR),
    _row("S3.17", {_S.RUNNING, _S.UP_FOR_RETRY}, "cancel", {_S.FAILED}, _COORDINATOR),
    _row("S3.18", UNFINISHED, "dagrun_timeout of its run, or its subdag's task has ended", {_S.SKIPPED}, _COORDINATOR),
    _row(
        "S3.19",
        IDLE | {_S.QUEUED, _S.UPSTREAM_FAILED},
        "fail_stop in its run",
        {_S.SKIPPED},
        "who wrote the failure",
    ),
    _row("S3.19", {_S.RUNNING}, "fail_stop in its run", {_S.FAILED}, "who wrote the failure"),
    _row("S3.20", IDLE | FINISHED, "task gone, index beyond the mapping", {_S.REMOVED}, _COORDINATOR),
    _row("S3.21", {_S.REMOVED}, "task or index is back", {_S.NONE}, _COORDINATOR),
    _row("S3.22", _ANY, "clear, rerun, reprocess", {_S.NONE}, "command, coordinator"),
    _row("S3.23", {_S.SCHEDULED, _S.UP_FOR_RESCHEDULE}, "its run is closed unfinished", {_S.NONE}, _COORDINATOR),
    _row("S3.24", IDLE, "subdag starts", {_S.RUNNING}, _COORDINATOR),
    _row("S3.24", {_S.RUNNING}, "subdag's run finished", {_S.SUCCESS, _S.UP_FOR_RETRY, _S.FAILED}, _COORDINATOR),
    _row("S3.25", _ANY, "set by hand", set(_ANY), _OPERATOR),
)
