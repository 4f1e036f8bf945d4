"""Answers about dates that have no run in the window yet (S2.13, S5)."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from backfill.clock import moment_text
from backfill.jobs.policy import StopPolicy
from backfill.jobs.why.case import Case
from backfill.jobs.why.hindrances import hindrances
from backfill.jobs.why.labels import counted, listed
from backfill.jobs.why.limits import whose_runs
from backfill.states import FINISHED_JOB
from backfill.store import dates, inspection
from backfill.store.database import Tx


class NotAdmitted(NamedTuple):
    """How it is with a date of a job that has no run."""

    #: As the end of a sentence about a task instance, or the run.
    how: str
    why: tuple[str, ...] = ()
    #: How many dates go before it; None: it will not be admitted any more.
    rank: int | None = None


def not_admitted(tx: Tx, case: Case, logical_date: datetime) -> NotAdmitted:
    """Say what place a date has among those that are not admitted, and why the next one is not."""
    if case.row.state in FINISHED_JOB:
        how = f"was never started: job {case.row.id} ended as {case.row.state} before its date was admitted."
        return NotAdmitted(how)
    before = _place_in_line(tx, case, logical_date)
    ahead = f"{counted(before, 'date')} {'goes' if before == 1 else 'go'} before it" if before else "it is the next"
    policy = case.standing(tx).course.policy if case.job.dag is not None else None
    return NotAdmitted(
        how=f"has not begun: its date is not admitted, and {ahead}.",
        why=(why_not_admitted(tx, case, policy),),
        rank=before,
    )


def _place_in_line(tx: Tx, case: Case, logical_date: datetime) -> int:
    """Return how many dates of the job go before one; those that count as done take no place."""
    pending = [date for date in dates.pending_dates(tx, case.row.id, None) if date.action != "done"]
    return next((n for n, date in enumerate(pending) if date.logical_date == logical_date), 0)


def why_not_admitted(tx: Tx, case: Case, policy: StopPolicy | None) -> str:
    """Say why the next date of a job is not admitted."""
    obstacles = hindrances(case.row, case.settings, policy)
    if obstacles:
        return obstacles[0]
    if policy is not None and not policy.admits:
        return "No further date is admitted, for there was a failure; with --continue-on-failures a job goes on."
    return _room(tx, case)


def _room(tx: Tx, case: Case) -> str:
    """Say whose runs take up `max_active_runs`."""
    own = case.job.request.max_active_runs
    limit = own if own is not None else case.job.dag.max_active_runs if case.job.dag is not None else None
    running = inspection.select_running_runs(tx, case.row.dag_id)
    counting = [run for run in running if own is None or run.job_id == case.row.id]
    if limit is None:
        return f"{counted(len(counting), 'run')} of the DAG {'is' if len(counting) == 1 else 'are'} running."
    if len(counting) < limit:
        return f"There is room for it: {len(counting)} of max_active_runs {limit} are running."
    whose = whose_runs([run.job_id for run in counting], case.row.id)
    named = listed([moment_text(run.logical_date) for run in counting])
    return f"max_active_runs of {limit} has no room: the runs of {named} are running ({whose})."
