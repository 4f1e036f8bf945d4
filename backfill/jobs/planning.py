"""Which dates a job takes on, and what it does at each (semantics, section 2). Pure: facts in, a plan out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from backfill.clock import as_utc
from backfill.dag import DAG
from backfill.exceptions import DateOwned, NothingToDo, UsageError
from backfill.jobs.request import BackfillRequest
from backfill.states import DagRunState, Reprocess, RunType
from backfill.store.dates import Action, DateFound, PlannedDate
from backfill.timetables import RunDate


@dataclass(frozen=True, slots=True)
class LeftOutDate:
    """A date of the range that the job does not take on."""

    date: RunDate
    #: Why, as a clause.
    reason: str


@dataclass(frozen=True, slots=True)
class DatePlan:
    """The dates of a job in the order of admission, and those that were left out."""

    dates: tuple[PlannedDate, ...]
    left_out: tuple[LeftOutDate, ...] = ()
    #: The same dates for each subdag, by its id: the job owns them too (S13.3).
    subdags: Mapping[str, tuple[PlannedDate, ...]] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """One note for each reason why dates were left out, with their number (S2.4)."""
        return _notes(self.left_out)


def resolve_range(dag: DAG, request: BackfillRequest, now: datetime) -> tuple[datetime, datetime]:
    """Return start and end of the range, both included, in UTC (S2.1); `UsageError` where they do not make one."""
    start = request.start_date or dag.start_date
    if start is None:
        raise UsageError(f"DAG {dag.dag_id!r} has no start_date; give the range a start date.")
    start, end = as_utc(start), as_utc(request.end_date or now)
    if start > end:
        raise UsageError(f"The start date {start.isoformat()} lies after the end date {end.isoformat()}; swap them.")
    return start, end


def run_dates(dag: DAG, request: BackfillRequest, now: datetime) -> tuple[list[RunDate], list[LeftOutDate]]:
    """Return the dates that are due, in the job's direction, and those left out (S2.2, S2.4, S2.5)."""
    start, end = resolve_range(dag, request, now)
    given = list(dag.timetable.run_dates(start, end))
    if not given and request.run_at_least_once:
        if start > now:
            raise NothingToDo(
                f"The start date {start.isoformat()} lies in the future; run_at_least_once (--run-at-least-once) makes a run for a date that has come."
            )
        return [RunDate(start, start, end)], []
    dag_end = as_utc(dag.end_date) if dag.end_date else None
    due: list[RunDate] = []
    late: list[LeftOutDate] = []
    unfinished: list[LeftOutDate] = []
    for date in given:
        if dag_end is not None and date.logical_date > dag_end:
            late.append(LeftOutDate(date, f"after the DAG's end_date {dag_end.isoformat()}"))
        elif date.data_interval_end > now:
            unfinished.append(LeftOutDate(date, "the data interval is not over yet"))
        else:
            due.append(date)
    return (due[::-1] if request.run_backwards else due), late + unfinished


def plan_dates(
    dag: DAG,
    request: BackfillRequest,
    due: Sequence[RunDate],
    left_out: Iterable[LeftOutDate],
    found: Mapping[datetime, DateFound],
    *,
    reset: bool = False,
) -> DatePlan:
    """Return what happens at each due date, given what was `found` there; with `reset` all that is cleared before the job begins.

    Raises `DateOwned` if somebody else owns a date (S2.6), `NothingToDo` if no date is left (S2.5).
    """
    for date in due:
        _refuse_if_owned(dag, found.get(date.logical_date))
    planned: list[PlannedDate] = []
    all_left_out = list(left_out)
    for date in due:
        there = found.get(date.logical_date)
        action = _action(there, request, reset=reset)
        if action is None:
            reason = f"reprocess (--reprocess) {request.reprocess} keeps runs in state {there.state if there else ''}"
            all_left_out.append(LeftOutDate(date, reason))
            continue
        planned.append(
            PlannedDate(
                ordinal=len(planned),
                logical_date=date.logical_date,
                data_interval_start=date.data_interval_start,
                data_interval_end=date.data_interval_end,
                action=action,
                dag_run_id=there.dag_run_id if there else None,
            )
        )
    if not planned:
        raise NothingToDo(_nothing_left(dag, request, _notes(all_left_out)))
    return DatePlan(tuple(planned), tuple(all_left_out))


def plan_subdag(
    subdag: DAG,
    request: BackfillRequest,
    above: Iterable[PlannedDate],
    found: Mapping[datetime, DateFound],
    *,
    reset: bool = False,
) -> tuple[PlannedDate, ...]:
    """Return what happens to a subdag's run at each date of the DAG `above` it, when the task starts that stands for it (S13.5).

    Raises `DateOwned` if somebody else owns a date.
    """
    planned = []
    for date in above:
        there = found.get(date.logical_date)
        _refuse_if_owned(subdag, there)
        run_id = there.dag_run_id if there else None
        action: Action | None = "clear" if run_id is not None and date.action == "clear" else None
        action = action or _action(there, request, reset=reset) or "take"
        if date.action == "done" or action == "done":  # what it finds is not left alone unless all of the run above is
            action = "done" if date.action == "done" else "take"
        planned.append(date._replace(action=action, dag_run_id=run_id, counts_as_running=False))
    return tuple(planned)


def _notes(left_out: Iterable[LeftOutDate]) -> tuple[str, ...]:
    reasons = Counter(date.reason for date in left_out)
    return tuple(f"{_dates(count)} left out: {reason}." for reason, count in reasons.items())


def _nothing_left(dag: DAG, request: BackfillRequest, notes: Sequence[str]) -> str:
    given = [as_utc(date).isoformat() for date in (request.start_date, request.end_date) if date is not None]
    within = f" from {' to '.join(dict.fromkeys(given))}" if given else ""
    if notes:
        because = ", ".join(note.rstrip(".") for note in notes)
        return f"No run date of DAG {dag.dag_id!r}{within} is left to run ({because}); nothing was started."
    return (
        f"DAG {dag.dag_id!r} with schedule {dag.timetable.summary!r} has no run date{within}; "
        "give a range that holds one, or run_at_least_once (--run-at-least-once)."
    )


def _refuse_if_owned(dag: DAG, found: DateFound | None) -> None:
    if found is None:
        return
    if found.owner_job_id is not None:
        raise DateOwned(
            f"Job {found.owner_job_id} owns {found.logical_date.isoformat()} of DAG {dag.dag_id!r}; "
            f"wait for it (`backfill status {found.owner_job_id}`) or leave the date out."
        )
    if found.state == DagRunState.RUNNING and found.run_type != RunType.BACKFILL:
        raise DateOwned(
            f"Run {found.run_id!r} of DAG {dag.dag_id!r} is running at {found.logical_date.isoformat()} and is no backfill; "
            "wait for its end or leave the date out."
        )


def _action(found: DateFound | None, request: BackfillRequest, *, reset: bool) -> Action | None:
    """Return what happens at a date by the run found there (the table of S2.7); None: the date is left out."""
    if found is None or found.state is None:
        return "create"
    if reset:
        return "take"
    run_finished = found.state in {DagRunState.SUCCESS, DagRunState.FAILED}
    match request.reprocess:
        case Reprocess.NONE:
            return None
        case Reprocess.COMPLETED if run_finished:
            return "clear"
        case Reprocess.FAILED if found.state == DagRunState.FAILED:
            return "clear"
    if not run_finished or found.unfinished:
        return "take"
    if request.reprocess == Reprocess.FAILED:
        return None
    failed = found.ended_badly or found.state == DagRunState.FAILED
    return "take" if request.rerun_failed_tasks and failed else "done"


def _dates(count: int) -> str:
    return "1 date" if count == 1 else f"{count} dates"
