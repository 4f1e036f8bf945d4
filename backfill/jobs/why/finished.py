"""Answers about task instances that have ended: how, and what brought that about."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import assert_never

from backfill.clock import duration_text, moment_text
from backfill.dag import DAG
from backfill.jobs.why.answers import Held, TaskAnswer
from backfill.jobs.why.case import Subject
from backfill.jobs.why.labels import listed
from backfill.keys import UNMAPPED
from backfill.states import TaskInstanceState
from backfill.store.inspection import TaskInstanceDetail

_S = TaskInstanceState


def explain_finished(subject: Subject) -> TaskAnswer:
    """Say how a task instance ended, and because of what."""
    said = _how(subject)
    return subject.answer(Held.FINISHED, said[0], *said[1:])


def _how(subject: Subject) -> list[str]:
    ti, name = subject.ti, subject.label
    match _S(ti.state):
        case _S.SUCCESS:
            return [f"{name} ended well{_when(ti)}{_where(ti)}: {subject.tries}.", *_log(subject)]
        case _S.FAILED:
            return [f"{name} failed{_when(ti)}{_where(ti)}: {subject.tries}.", *_error(ti), *_log(subject)]
        case _S.SKIPPED:
            return [f"{name} was skipped{_when(ti)}{_skipped_by(subject)}.", *(_log(subject) if ti.hostname else ())]
        case _S.UPSTREAM_FAILED:
            because = _causes(subject, {_S.FAILED, _S.UPSTREAM_FAILED})
            return [f"{name} could not run: {because or 'what it depends on ended badly'}.", *_error(ti)]
        case _S.REMOVED:
            why = "the task is not in the DAG any more"
            if ti.map_index != UNMAPPED:
                why = "what it is mapped over has fewer values now, or the task is not in the DAG any more"
            return [f"{name} was removed: {why}."]
        case _S.NONE | _S.SCHEDULED | _S.QUEUED | _S.RUNNING | _S.UP_FOR_RETRY | _S.UP_FOR_RESCHEDULE:
            raise ValueError(f"{name} has not ended")
        case unknown:
            assert_never(unknown)


def _when(ti: TaskInstanceDetail) -> str:
    if ti.end_date is None:
        return ""
    lasted = f" after {duration_text(ti.end_date - ti.start_date)}" if ti.start_date and ti.hostname else ""
    return f" at {moment_text(ti.end_date)} UTC{lasted}"


def _where(ti: TaskInstanceDetail) -> str:
    return f" on {ti.hostname}" if ti.hostname else ", without a worker"


def _error(ti: TaskInstanceDetail) -> list[str]:
    line = error_line(ti.error)
    return [f"The error: {line}"] if line else []


def error_line(error: str | None) -> str:
    """Return the first line of an error's text that says something."""
    return next((line.strip() for line in (error or "").splitlines() if line.strip()), "")


def _log(subject: Subject) -> list[str]:
    return [f"`{subject.log_command}` shows its log."] if subject.ti.hostname else []


def _skipped_by(subject: Subject) -> str:
    """Say what skipped a task instance: itself, a branch, a timeout, or its trigger rule."""
    ti = subject.ti
    deciders = sorted({row.task_id for row in subject.run_rows if ti.task_id in (row.skips or ())})
    if deciders:
        return f": {listed(deciders)} decided so"
    if ti.error:
        return f": {error_line(ti.error)}"
    if ti.hostname:
        return f" by itself{_where(ti)}"
    because = _causes(subject, {_S.SKIPPED, _S.FAILED, _S.UPSTREAM_FAILED})
    return f": {because}" if because else ""


def _causes(subject: Subject, states: Collection[TaskInstanceState]) -> str:
    """Return the trigger rule, and the first causes upstream that are in one of `states`."""
    dag = subject.case.dag_of(subject.task)
    task = dag.task_dict.get(subject.ti.task_id) if dag is not None else None
    if dag is None or task is None:
        return ""
    causes = _first_causes(dag, subject.ti.task_id, subject.run_rows, states)
    return f"by its trigger rule {task.trigger_rule}, after {listed(causes)}" if causes else ""


def _first_causes(
    dag: DAG, task_id: str, rows: Iterable[TaskInstanceDetail], states: Collection[TaskInstanceState]
) -> list[str]:
    """Follow what ended in `states` upstream to where it began."""
    ended: dict[str, str] = {}
    for row in rows:
        if row.state in states and ended.get(row.task_id) != _S.FAILED:
            ended[row.task_id] = row.state
    seen: set[str] = set()
    causes: list[str] = []
    to_look_at = [task_id]
    while to_look_at:
        upstream = sorted(dag.task_dict[to_look_at.pop()].upstream_task_ids & ended.keys() - seen)
        seen.update(upstream)
        for parent in upstream:
            further = dag.task_dict[parent].upstream_task_ids & ended.keys()
            if ended[parent] == _S.FAILED or not further:
                causes.append(f"{parent} ({ended[parent]})")
            else:
                to_look_at.append(parent)
    return sorted(causes)
