"""Why the run of one date is not finished, task by task, or how it ended (S11.6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from backfill.clock import moment_text
from backfill.jobs.why.answers import RunAnswer, TaskAnswer
from backfill.jobs.why.case import Case, JobTask
from backfill.jobs.why.dates import not_admitted
from backfill.jobs.why.hindrances import hindrances
from backfill.jobs.why.labels import counted
from backfill.jobs.why.task_instance import Question, explain_admitted, find_date, states_of
from backfill.jobs.why.tasks import tasks_of
from backfill.states import ENDED_BADLY, FINISHED, DagRunState
from backfill.store import inspection
from backfill.store.database import Tx
from backfill.store.inspection import RunDateRow, TaskInstanceDetail

#: An answer is about so many tasks; the rest is counted.
SHOWN: Final = 20


def explain_run(tx: Tx, case: Case, logical_date: datetime) -> RunAnswer:
    """Return why the run of a date of the job is not finished, or how it ended; `UsageError` if the job has no such date."""
    date = find_date(tx, case, logical_date)
    name = f"The run of {moment_text(date.logical_date)}"
    if date.progress == "pending" and date.action != "done":
        how, why, _ = not_admitted(tx, case, date.logical_date)
        return _answer(case, date, f"{name} {how}", *why)
    rows = inspection.select_details(tx, date.dag_run_id) if date.dag_run_id is not None else []
    told = _worth_telling(date, rows)
    tasks = [task for task in tasks_of(case) if task.dag_id == case.row.dag_id and task.task_id in told]
    answers = [_of_task(tx, case, task, date) for task in tasks[:SHOWN]]
    more = f"{counted(len(tasks) - SHOWN, 'more task')}: `backfill tasks {case.row.id}` shows them all."
    return _answer(
        case,
        date,
        f"{name} {_how(date, rows)}",
        *_remarks(tx, case, date),
        *([more] if len(tasks) > SHOWN else []),
        tasks=answers,
    )


def _of_task(tx: Tx, case: Case, task: JobTask, date: RunDateRow) -> TaskAnswer:
    return explain_admitted(tx, case, task, Question(task.name, date.logical_date), date)


def _answer(case: Case, date: RunDateRow, sentence: str, *remarks: str, tasks: Sequence[TaskAnswer] = ()) -> RunAnswer:
    return RunAnswer(
        job_id=case.row.id,
        dag_id=case.row.dag_id,
        logical_date=date.logical_date,
        run_id=date.run_id,
        state=date.run_state,
        answer=sentence,
        remarks=remarks,
        tasks=tuple(tasks),
    )


def _worth_telling(date: RunDateRow, rows: Sequence[TaskInstanceDetail]) -> set[str]:
    """Return the tasks that are not finished; of a run that has ended also those that ended badly."""
    ended = _has_ended(date)
    return {row.task_id for row in rows if row.state not in FINISHED or (ended and row.state in ENDED_BADLY)}


def _has_ended(date: RunDateRow) -> bool:
    return date.run_state in {DagRunState.SUCCESS, DagRunState.FAILED}


def _how(date: RunDateRow, rows: Sequence[TaskInstanceDetail]) -> str:
    states = f": {states_of(rows)}" if rows else ""
    if _has_ended(date):
        return f"has ended as {date.run_state}{states}."
    finished = sum(row.state in FINISHED for row in rows)
    if rows and finished == len(rows):
        return f"is about to end, all task instances finished{states}."
    return f"is {date.run_state}, {finished} of {counted(len(rows), 'task instance')} finished{states}."


def _remarks(tx: Tx, case: Case, date: RunDateRow) -> Iterator[str]:
    if date.action == "done":
        yield f"It was there before job {case.row.id}, and counts as done."
    elif not _has_ended(date):
        policy = case.standing(tx).course.policy if case.job.dag is not None else None
        yield from hindrances(case.row, case.settings, policy)
