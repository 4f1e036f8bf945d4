"""Why one task instance is where it is (S11.6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from backfill.clock import moment_text
from backfill.engine.waiting import AwaitedTask
from backfill.exceptions import RefusedError, UsageError
from backfill.jobs.why.answers import Held, TaskAnswer
from backfill.jobs.why.case import Case, JobTask, Subject
from backfill.jobs.why.dates import not_admitted
from backfill.jobs.why.finished import explain_finished
from backfill.jobs.why.hindrances import hindrances
from backfill.jobs.why.idle import explain_idle
from backfill.jobs.why.in_flight import explain_queued, explain_running, running_since
from backfill.jobs.why.labels import label
from backfill.jobs.why.tasks import find_task, standing_for, tasks_below
from backfill.keys import UNMAPPED
from backfill.states import FINISHED, TaskInstanceState
from backfill.store import inspection
from backfill.store.database import Tx
from backfill.store.inspection import AttemptRow, RunDateRow, TaskInstanceDetail

_DAY = timedelta(days=1)
#: Less than any two dates are apart.
_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Question:
    """Which task instance is asked about; without a map index all of a mapped task."""

    #: As `tasks.find_task` takes it: of a subdag `part.load`.
    task_id: str
    logical_date: datetime
    map_index: int | None = None


@dataclass(frozen=True, slots=True)
class FoundTaskInstance:
    """The one task instance that a question is about, with the history of its attempts."""

    task: JobTask
    logical_date: datetime
    ti: TaskInstanceDetail
    attempts: tuple[AttemptRow, ...]
    #: Names of the tasks of the subdag that it stands for: these have logs, it has none.
    below: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Its name in sentences."""
        return label(self.task.name, self.logical_date, self.ti.map_index)


def find_task_instance(tx: Tx, case: Case, question: Question) -> FoundTaskInstance:
    """Return the task instance that is asked about; `UsageError` if there is none such, or more than one."""
    task = find_task(case, question.task_id)
    date = _date_of(tx, case, task, find_date(tx, case, question.logical_date))
    name = label(task.name, question.logical_date)
    if date is None or date.dag_run_id is None:
        of = "its date" if task.dag_id == case.row.dag_id else "its subdag"
        raise RefusedError(f"{name} has not been started: {of} has no run yet.")
    mine = find_rows(inspection.select_details(tx, date.dag_run_id), task, question)
    if len(mine) > 1:
        raise UsageError(f"{name} has {len(mine)} map indexes; name one with --map-index.")
    attempts = tuple(inspection.select_attempts(tx, mine[0].id))
    below = tuple(each.name for each in tasks_below(case, task))
    return FoundTaskInstance(task, date.logical_date, mine[0], attempts, below)


def explain_task_instance(tx: Tx, case: Case, question: Question) -> TaskAnswer:
    """Return why a task instance of a job is where it is; `UsageError` if the job has none such."""
    task = find_task(case, question.task_id)
    date = find_date(tx, case, question.logical_date)
    if date.progress == "pending" and date.action != "done":
        return _not_admitted(tx, case, task, question, date)
    return explain_admitted(tx, case, task, question, date)


def explain_admitted(tx: Tx, case: Case, task: JobTask, question: Question, top: RunDateRow) -> TaskAnswer:
    """Explain a task instance whose date, `top` for the job's DAG, has its run; that of a subdag may have none yet."""
    date = top
    if task.dag_id != case.row.dag_id:
        of_subdag = _date_of(tx, case, task, top)
        if of_subdag is None or _has_not_begun(of_subdag, top):
            return _not_begun(tx, case, task, question, top)
        date = of_subdag
    run_rows = tuple(inspection.select_details(tx, date.dag_run_id)) if date.dag_run_id is not None else ()
    mine = find_rows(run_rows, task, question)
    if len(mine) > 1:
        return _of_all_indexes(tx, Subject(case=case, task=task, date=date, ti=mine[0], run_rows=run_rows), mine)
    return _explain(tx, Subject(case=case, task=task, date=date, ti=mine[0], run_rows=run_rows))


def _explain(tx: Tx, subject: Subject) -> TaskAnswer:
    state = subject.ti.state
    if state == TaskInstanceState.RUNNING:
        return _of_subdag(tx, subject) if subject.stands_for_subdag else explain_running(subject)
    if state == TaskInstanceState.QUEUED:
        return explain_queued(subject)
    if state in FINISHED:
        return _remarking_done(explain_finished(subject), subject)
    case = subject.case
    if case.job.dag is None:
        return subject.answer(
            Held.UNKNOWN, f"{subject.label} is {state}; what it waits for cannot be told.", case.dag_trouble or ""
        )
    return explain_idle(subject, case.standing(tx))


def _remarking_done(answer: TaskAnswer, subject: Subject) -> TaskAnswer:
    if subject.date.action != "done":
        return answer
    return answer.remarking(f"Its run was there before job {subject.case.row.id}, and counts as done.")


# -- what is asked about ----------------------------------------------------------------------------------------------------


def find_date(tx: Tx, case: Case, logical_date: datetime) -> RunDateRow:
    """Return a date of the job; `UsageError` naming what there is instead."""
    found = inspection.select_run_dates(tx, case.row.id, case.row.dag_id, logical_date, _MOMENT)
    if found:
        return found[0]
    asked = moment_text(logical_date)
    midnight = logical_date.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    that_day = inspection.select_run_dates(tx, case.row.id, case.row.dag_id, midnight, _DAY)
    if that_day:
        first, last = that_day[0].logical_date.isoformat(), that_day[-1].logical_date.isoformat()
        there = first if first == last else f"{len(that_day)} from {first} to {last}"
        raise UsageError(f"Job {case.row.id} has no run date {asked}; on that day it has {there}.")
    bounds = inspection.select_bounds(tx, case.row.id)
    if bounds is None:
        raise UsageError(f"Job {case.row.id} has no run dates.")
    first, last = (moment_text(date) for date in bounds)
    raise UsageError(f"Job {case.row.id} has no run date {asked}; its dates are those from {first} to {last}.")


def _date_of(tx: Tx, case: Case, task: JobTask, top: RunDateRow) -> RunDateRow | None:
    """Return the date of a task's own DAG that goes with one of the job's; None: its subdag has none."""
    if task.dag_id == case.row.dag_id:
        return top
    found = inspection.select_run_dates(tx, case.row.id, task.dag_id, top.logical_date, _MOMENT)
    return found[0] if found else None


def find_rows(run_rows: Sequence[TaskInstanceDetail], task: JobTask, question: Question) -> list[TaskInstanceDetail]:
    """Return the rows that are asked about, without `removed` ones where there are others; `UsageError` if there is none."""
    name = label(task.name, question.logical_date)
    of_task = [row for row in run_rows if row.task_id == task.task_id]
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


def _of_all_indexes(tx: Tx, subject: Subject, rows: Sequence[TaskInstanceDetail]) -> TaskAnswer:
    """Count the indexes of a mapped task by state, and explain the first that is not finished."""
    name = label(subject.task.name, subject.date.logical_date)
    sentence = f"{name} has {len(rows)} map indexes: {states_of(rows)}."
    first = next((row for row in rows if row.state not in FINISHED), rows[0])
    of_one = _explain(tx, replace(subject, ti=first))
    return replace(
        of_one, map_index=None, state=None, answer=sentence, remarks=(of_one.answer, *of_one.remarks)
    ).remarking("--map-index names another one.")


def states_of(rows: Sequence[TaskInstanceDetail]) -> str:
    """Count task instances by state, the most first."""
    return ", ".join(f"{count} {state}" for state, count in Counter(row.state for row in rows).most_common())


def _not_admitted(tx: Tx, case: Case, task: JobTask, question: Question, date: RunDateRow) -> TaskAnswer:
    how, why, before = not_admitted(tx, case, date.logical_date)
    return TaskAnswer(
        job_id=case.row.id,
        dag_id=task.dag_id,
        task_id=task.task_id,
        logical_date=date.logical_date,
        map_index=question.map_index,
        state=None,
        held_by=Held.NOT_ADMITTED,
        answer=f"{label(task.name, date.logical_date)} {how}",
        remarks=why,
        rank=before,
    )


# -- subdags ----------------------------------------------------------------------------------------------------------------


def _has_not_begun(date: RunDateRow, top: RunDateRow) -> bool:
    """Return whether the run of a subdag is yet to begin; one from before the job, which is taken then, may be there (S13.3)."""
    return date.dag_run_id is None or (date.progress == "pending" and top.action != "done")


def _not_begun(tx: Tx, case: Case, task: JobTask, question: Question, top: RunDateRow) -> TaskAnswer:
    """Say that the run of a subdag begins with the task that stands for it, and what holds that."""
    operator = standing_for(case, task)
    of_operator = explain_admitted(tx, case, operator, Question(operator.name, top.logical_date), top)
    name = label(task.name, top.logical_date)
    held_by = of_operator.held_by
    if held_by in {Held.FINISHED, Held.CLOSED}:
        held_by, sentence = Held.CLOSED, f"{name} was never started: the run of its subdag did not begin."
    else:
        held_by = held_by if held_by in {Held.BLOCKED, Held.UNKNOWN} else Held.SUBDAG
        sentence = f"{name} has not begun: the run of its subdag begins with {operator.name}."
    return replace(
        of_operator,
        dag_id=task.dag_id,
        task_id=task.task_id,
        map_index=question.map_index,
        state=None,
        run_id=None,
        try_number=0,
        held_by=held_by,
        answer=sentence,
        remarks=(of_operator.answer, *of_operator.remarks),
    )


def _of_subdag(tx: Tx, subject: Subject) -> TaskAnswer:
    """Say how far the run is that a task instance stands for, and what holds the first of what is left of it."""
    case = subject.case
    below = tasks_below(case, subject.task)
    date = _date_of(tx, case, below[0], subject.date) if below else None
    rows = inspection.select_details(tx, date.dag_run_id) if date is not None and date.dag_run_id is not None else []
    left = [(task, row) for task in below for row in rows if row.task_id == task.task_id and row.state not in FINISHED]
    running = f"is running{running_since(subject)} with the run of subdag {subject.task.subdag!r}"
    if date is None or not left:
        sentence = f"{subject.label} {running}, of which nothing is left, and ends with it."
        return subject.answer(Held.RUNNING, sentence, *hindrances(case.row, case.settings))
    task, row = left[0]
    first = _explain(tx, Subject(case=case, task=task, date=date, ti=row, run_rows=tuple(rows)))
    return replace(
        subject.answer(_held_in(tx, subject), f"{subject.label} {running}: {states_of(rows)}.", first.answer),
        waits_for=tuple(_awaited(task, row, date) for task, row in left),
    ).remarking(*first.remarks)


def _held_in(tx: Tx, subject: Subject) -> Held:
    """Return whether a task instance that stands for a subdag goes on with it, or all that is left of that is blocked."""
    case = subject.case
    if case.job.dag is None:
        return Held.RUNNING
    return Held.BLOCKED if subject.ti.id in case.standing(tx).blocked else Held.RUNNING


def _awaited(task: JobTask, row: TaskInstanceDetail, date: RunDateRow) -> AwaitedTask:
    return AwaitedTask(task.name, date.logical_date, row.map_index, TaskInstanceState(row.state), row.id)
