"""What is said of a job: its counts, its errors, what is blocked and why (S9.5 to S9.7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from backfill.keys import TaskInstanceKey
from backfill.states import JobState


@dataclass(frozen=True, slots=True)
class ReportedError:
    """One thing that went wrong: a task instance, or a run that timed out."""

    kind: Literal["failed", "upstream_failed", "deadlocked", "run_timed_out"]
    key: TaskInstanceKey
    logical_date: datetime
    try_number: int
    state: str
    #: Text of the last error, or for `deadlocked` what it waits for.
    error: str | None
    #: Of a `deadlocked` one: it waits for the run before its own, and for nothing else.
    waits_for_past: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the form that `errors` of the JSON report holds."""
        return {
            "kind": self.kind,
            **self.key._asdict(),
            "logical_date": self.logical_date.isoformat(),
            "try_number": self.try_number,
            "state": self.state,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """State, counts and errors of one job at one moment."""

    job_id: int | None
    dag_id: str
    state: JobState
    #: When the job began and ended.
    start_date: datetime | None = None
    end_date: datetime | None = None
    #: total, finished, success, failed, running
    runs: Mapping[str, int] = field(default_factory=dict)
    #: total and the six numbers that it is the sum of: success, failed, skipped, upstream_failed, running, waiting
    tasks: Mapping[str, int] = field(default_factory=dict)
    #: Task instances finished per second.
    rate: float = 0.0
    eta_seconds: float | None = None
    #: In the order of run date, topology, map index.
    errors: tuple[ReportedError, ...] = ()
    #: Dates never admitted.
    not_started: tuple[datetime, ...] = ()
    #: What would help, where the report can tell.
    hint: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """What the command line exits with (S9.8)."""
        codes = {JobState.SUCCESS: 0, JobState.DEADLOCKED: 3, JobState.CANCELLED: 4}
        return codes.get(self.state, 1)

    @property
    def duration(self) -> float | None:
        """Seconds from the job's beginning to its end."""
        return (self.end_date - self.start_date).total_seconds() if self.start_date and self.end_date else None

    def to_json(self) -> dict[str, Any]:
        """Return the report in the shape of interface.md, section 3."""
        return {
            "job_id": self.job_id,
            "dag_id": self.dag_id,
            "state": str(self.state),
            "start_date": self.start_date.isoformat() if self.start_date else None,
            "end_date": self.end_date.isoformat() if self.end_date else None,
            "runs": dict(self.runs),
            "tasks": dict(self.tasks),
            "rate": round(self.rate, 1),
            "eta_seconds": None if self.eta_seconds is None else round(self.eta_seconds, 1),
            "errors": [error.to_json() for error in self.errors],
            "not_started": [date.isoformat() for date in self.not_started],
            "hint": self.hint,
            "notes": list(self.notes),
        }

    def sentence(self) -> str:
        """Return the end of the job in one sentence."""
        failed, stuck = self.tasks.get("failed", 0), sum(e.kind == "deadlocked" for e in self.errors)
        match self.state:
            case JobState.SUCCESS:
                return f"Job {self.job_id} ended well: {_task_instances(self.tasks.get('success', 0))} succeeded."
            case JobState.DEADLOCKED:
                return f"Job {self.job_id} is deadlocked: {_task_instances(stuck)} can never run."
            case JobState.FAILED:
                return f"Job {self.job_id} failed: {', '.join(self._failures(failed))}."
            case _:
                return f"Job {self.job_id} is {self.state}."

    def _failures(self, failed: int) -> list[str]:
        """Return what failed, in a few words; a run may have been found failed though nothing in it is (S2.7)."""
        late, held = sum(e.kind == "run_timed_out" for e in self.errors), self.tasks.get("upstream_failed", 0)
        if not (failed or held or late):
            return [f"{_runs(self.runs.get('failed', 0))} failed, though no task instance did"]
        found = [f"{_runs(late)} took longer than dagrun_timeout"] if late else []
        return found + (
            [f"{_task_instances(failed)} failed", f"{held} could not run because of that"] if failed or held else []
        )


def _task_instances(count: int) -> str:
    return "1 task instance" if count == 1 else f"{count} task instances"


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
