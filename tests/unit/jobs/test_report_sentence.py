"""How a job says in one sentence that it ended, and why not well."""

from datetime import UTC, datetime
from typing import Any

import pytest

from backfill.jobs.report import Report, ReportedError
from backfill.keys import TaskInstanceKey
from backfill.states import JobState

LATE = ReportedError(
    kind="run_timed_out",
    key=TaskInstanceKey("d", "", "r"),
    logical_date=datetime(2024, 1, 1, tzinfo=UTC),
    try_number=0,
    state="failed",
    error="dagrun_timeout",
)


def ended(
    state: JobState, tasks: dict[str, int], errors: tuple[ReportedError, ...] = (), failed_runs: int = 1
) -> Report:
    given: dict[str, Any] = {
        "job_id": 7, "dag_id": "d", "state": state, "start_date": None, "end_date": None,
        "runs": {"failed": failed_runs}, "tasks": tasks, "rate": None, "eta_seconds": None, "errors": errors,
    }  # fmt: skip
    return Report(**given)


@pytest.mark.parametrize(
    ("report", "why"),
    [
        (ended(JobState.SUCCESS, {"success": 3}), "ended well: 3 task instances succeeded"),
        (ended(JobState.CANCELLED, {}), "is cancelled"),
        (
            ended(JobState.FAILED, {"failed": 1, "upstream_failed": 2}),
            "failed: 1 task instance failed, 2 could not run because of that",
        ),
        (ended(JobState.FAILED, {}, (LATE,)), "failed: 1 run took longer than dagrun_timeout"),
        (
            ended(JobState.FAILED, {"failed": 2}, (LATE, LATE)),
            "failed: 2 runs took longer than dagrun_timeout, 2 task instances failed, 0 could not run because of that",
        ),
        (ended(JobState.FAILED, {"success": 1}), "failed: 1 run failed, though no task instance did"),
    ],
)
def test_it_names_what_there_is_and_nothing_else(report: Report, why: str) -> None:
    assert report.sentence().rstrip(".").partition(" ")[2].partition(" ")[2] == why
