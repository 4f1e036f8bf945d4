"""Answers about dates that have no run in the window yet (S2.13, S5)."""

from __future__ import annotations

from datetime import datetime

from backfill.clock import moment_text
from backfill.jobs.policy import StopPolicy
from backfill.jobs.why.case import Case
from backfill.jobs.why.hindrances import hindrances
from backfill.jobs.why.labels import counted, listed
from backfill.jobs.why.limits import whose_runs
from backfill.store import dates, inspection
from backfill.store.database import Tx


def place_in_line(tx: Tx, case: Case, logical_date: datetime) -> int:
    """Return how many dates of the job go before one that is not admitted; those that count as done take no place."""
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
