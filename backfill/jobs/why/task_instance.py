"""Why one task instance is where it is (S11.6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches

from backfill.clock import moment_text
from backfill.exceptions import RefusedError, UsageError
from backfill.jobs.why.answers import Held, TaskAnswer
from backfill.jobs.why.case import Case, Subject
from backfill.jobs.why.dates import place_in_line, why_not_admitted
from backfill.jobs.why.finished import explain_finished
from backfill.jobs.why.idle import explain_idle
from backfill.jobs.why.in_flight import explain_queued, explain_running
from backfill.jobs.why.labels import counted, label
from backfill.jobs.why.standing import read_standing
from backfill.keys import UNMAPPED
from backfill.states import FINISHED, FINISHED_JOB, TaskInstanceState
from backfill.store import inspection
from backfill.store.database import Tx
from backfill.store.inspection import AttemptRow, RunDateRow, TaskInstanceDetail

_DAY = timedelta(days=1)
#: Less than any two dates are apart.
_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Question:
    """Which task instance is asked about; without a map index all of a mapped task."""

    task_id: str
    logical_date: datetime
    map_index: int | None = None


@dataclass(frozen=True, slots=True)
class FoundTaskInstance:
    """The one task instance that a question is about, with the history of its attempts."""

    dag_id: str
    logical_date: datetime
    ti: TaskInstanceDetail
    attempts: tuple[AttemptRow, ...]

    @property
    def label(self) -> str:
        """Its name in sentences."""
        return label(self.ti.task_id, self.logical_date, self.ti.map_index)


def find_task_instance(tx: Tx, case: Case, question: Question) -> FoundTaskInstance:
    """Return the task instance that is asked about; `UsageError` if there is none such, or more than one."""
    check_task(case, question.task_id)
    date = find_date(tx, case, question.logical_date)
    name = label(question.task_id, question.logical_date)
    if date.dag_run_id is None:
        raise RefusedError(f"{name} has not been started: its date has no run yet.")
    mine = find_rows(inspection.select_details(tx, date.dag_run_id), question)
    if len(mine) > 1:
        raise UsageError(f"{name} has {len(mine)} map indexes; name one with --map-index.")
    return FoundTaskInstance(
        case.row.dag_id, date.logical_date, mine[0], tuple(inspection.select_attempts(tx, mine[0].id))
    )


def explain_task_instance(tx: Tx, case: Case, question: Question) -> TaskAnswer:
    """Return why a task instance of a job is where it is; `UsageError` if the job has none such."""
    check_task(case, question.task_id)
    date = find_date(tx, case, question.logical_date)
    if date.progress == "pending" and date.action != "done":
        return _not_admitted(tx, case, question, date)
    run_rows = tuple(inspection.select_details(tx, date.dag_run_id)) if date.dag_run_id is not None else ()
    mine = find_rows(run_rows, question)
    if len(mine) > 1:
        return _of_all_indexes(tx, case, question, date, run_rows, mine)
    return _explain(tx, Subject(case=case, date=date, ti=mine[0], run_rows=run_rows))


def _explain(tx: Tx, subject: Subject) -> TaskAnswer:
    state = subject.ti.state
    if state == TaskInstanceState.RUNNING:
        return explain_running(subject)
    if state == TaskInstanceState.QUEUED:
        return explain_queued(subject)
    if state in FINISHED:
        return _remarking_done(explain_finished(subject), subject)
    case = subject.case
    if case.job.dag is None:
        return subject.answer(
            Held.UNKNOWN, f"{subject.label} is {state}; what it waits for cannot be told.", case.dag_trouble or ""
        )
    return explain_idle(subject, read_standing(tx, case.job, case.settings))


def _remarking_done(answer: TaskAnswer, subject: Subject) -> TaskAnswer:
    if subject.date.action != "done":
        return answer
    return answer.remarking(f"Its run was there before job {subject.case.row.id}, and counts as done.")


# -- what is asked about ----------------------------------------------------------------------------------------------------


def check_task(case: Case, task_id: str) -> None:
    """Raise `UsageError` unless the job has chosen the task."""
    chosen = case.chosen
    if task_id in chosen:
        return
    if case.job.dag is not None and task_id in case.job.dag.task_dict:
        raise UsageError(f"Task {task_id!r} is not among those that job {case.row.id} has chosen with --task-regex.")
    close = get_close_matches(task_id, chosen, n=1)
    instead = f"did you mean {close[0]!r}?" if close else f"`backfill tasks {case.row.id}` shows those that it has."
    raise UsageError(f"Job {case.row.id} of {case.row.dag_id} has no task {task_id!r}; {instead}")


def find_date(tx: Tx, case: Case, logical_date: datetime) -> RunDateRow:
    """Return a date of the job; `UsageError` naming what there is instead."""
    found = inspection.select_run_dates(tx, case.row.id, logical_date, _MOMENT)
    if found:
        return found[0]
    asked = moment_text(logical_date)
    midnight = logical_date.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    that_day = inspection.select_run_dates(tx, case.row.id, midnight, _DAY)
    if that_day:
        first, last = that_day[0].logical_date.isoformat(), that_day[-1].logical_date.isoformat()
        there = first if first == last else f"{len(that_day)} from {first} to {last}"
        raise UsageError(f"Job {case.row.id} has no run date {asked}; on that day it has {there}.")
    bounds = inspection.select_bounds(tx, case.row.id)
    if bounds is None:
        raise UsageError(f"Job {case.row.id} has no run dates.")
    first, last = (moment_text(date) for date in bounds)
    raise UsageError(f"Job {case.row.id} has no run date {asked}; its dates are those from {first} to {last}.")


def find_rows(run_rows: Sequence[TaskInstanceDetail], question: Question) -> list[TaskInstanceDetail]:
    """Return the rows that are asked about, without `removed` ones where there are others; `UsageError` if there is none."""
    name = label(question.task_id, question.logical_date)
    of_task = [row for row in run_rows if row.task_id == question.task_id]
    if question.map_index is not None:
        mine = [row for row in of_task if row.map_index == question.map_index]
        if not mine:
            raise UsageError(f"{name} has no map index {question.map_index}; {_indexes(of_task)}.")
        return mine
    if not of_task:
        raise UsageError(f"There is no task instance {name}: its run was there before the task came into the DAG.")
    return [row for row in of_task if row.state != TaskInstanceState.REMOVED] or of_task[:1]


def _indexes(rows: Sequence[TaskInstanceDetail]) -> str:
    indexes = [row.map_index for row in rows if row.map_index != UNMAPPED]
    return f"it has {min(indexes)} to {max(indexes)}" if indexes else "it is not mapped, or not expanded yet"


# -- more or less than one task instance ------------------------------------------------------------------------------------


def _of_all_indexes(
    tx: Tx,
    case: Case,
    question: Question,
    date: RunDateRow,
    run_rows: tuple[TaskInstanceDetail, ...],
    rows: Sequence[TaskInstanceDetail],
) -> TaskAnswer:
    """Count the indexes of a mapped task by state, and explain the first that is not finished."""
    states = Counter(row.state for row in rows)
    counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
    sentence = f"{label(question.task_id, date.logical_date)} has {len(rows)} map indexes: {counts}."
    first = next((row for row in rows if row.state not in FINISHED), rows[0])
    of_one = _explain(tx, Subject(case=case, date=date, ti=first, run_rows=run_rows))
    return replace(
        of_one, map_index=None, state=None, answer=sentence, remarks=(of_one.answer, *of_one.remarks)
    ).remarking("--map-index names another one.")


def _not_admitted(tx: Tx, case: Case, question: Question, date: RunDateRow) -> TaskAnswer:
    before = place_in_line(tx, case, date.logical_date)
    name = label(question.task_id, date.logical_date)
    over = case.row.state in FINISHED_JOB
    if over:
        sentence = (
            f"{name} was never started: job {case.row.id} ended as {case.row.state} before its date was admitted."
        )
        why: list[str] = []
    else:
        ahead = f"{counted(before, 'date')} {'goes' if before == 1 else 'go'} before it" if before else "it is the next"
        sentence = f"{name} has no run yet: its date is not admitted, and {ahead}."
        policy = read_standing(tx, case.job, case.settings).course.policy if case.job.dag is not None else None
        why = [why_not_admitted(tx, case, policy)]
    return TaskAnswer(
        job_id=case.row.id,
        dag_id=case.row.dag_id,
        task_id=question.task_id,
        logical_date=date.logical_date,
        map_index=question.map_index,
        state=None,
        held_by=Held.NOT_ADMITTED,
        answer=sentence,
        remarks=tuple(why),
        rank=None if over else before,
    )
