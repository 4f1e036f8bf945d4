"""Answers about task instances that wait for the coordinator: the first line of S4.1 or limit of S5 that holds them."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from backfill.clock import duration_text, moment_text
from backfill.engine.blocked import Blocked
from backfill.engine.graph import TaskSpec
from backfill.engine.window import BlockReason, Reason
from backfill.executors import needs_broker
from backfill.jobs.why.answers import Held, TaskAnswer
from backfill.jobs.why.case import Subject
from backfill.jobs.why.finished import error_line
from backfill.jobs.why.hindrances import broker_sentences, hindrances
from backfill.jobs.why.labels import awaited_label, counted, listed
from backfill.jobs.why.limits import limit_clause, limit_name, occupants_of
from backfill.jobs.why.standing import Standing
from backfill.states import FINISHED_JOB, TaskInstanceState

PAST_LINE: Final = 6
DATE_LINE: Final = 7
_WHY: Final = {
    1: "may still be skipped by what is not finished: {awaited}",
    3: "is mapped over what is not finished: {awaited}",
    4: "waits for its setup: {awaited}",
    5: "waits for {awaited}, by its trigger rule {rule}",
}

_PAST_REMEDY: Final = "Clear or run again what it waits for, or let the first run of a range start without it: --ignore-first-depends-on-past."


def explain_idle(subject: Subject, standing: Standing) -> TaskAnswer:
    """Say what holds an idle task instance."""
    ti_id, row = subject.ti.id, subject.case.row
    if not standing.holds(ti_id):
        return subject.answer(
            Held.CLOSED, f"{subject.label} was not started: its run has ended as {subject.date.run_state} without it."
        )
    if ti_id in standing.blocked:
        return _blocked(subject, standing.blocked[ti_id])
    if row.state in FINISHED_JOB:
        return subject.answer(
            Held.CLOSED, f"{subject.label} was not started: its run was closed when job {row.id} ended as {row.state}."
        )
    if ti_id in standing.to_be_settled or _is_to_be_expanded(subject, standing):
        return _decided(subject, standing)
    return _held(subject, standing, standing.reason(ti_id, ranked=True))


def _is_to_be_expanded(subject: Subject, standing: Standing) -> bool:
    return (subject.ti.dag_run_id, subject.ti.task_id) in standing.to_be_expanded


def _decided(subject: Subject, standing: Standing) -> TaskAnswer:
    """Say what becomes of a task instance as soon as the coordinator looks."""
    state = standing.to_be_settled.get(subject.ti.id)
    what = f"is about to become {state}" if state else "is about to be expanded over the values of its mapping"
    obstacles = hindrances(subject.case.row, subject.case.settings)
    return subject.answer(Held.DECISION, f"{subject.label} {what}.", *obstacles)


def _blocked(subject: Subject, found: Blocked) -> TaskAnswer:
    waits_for = listed([awaited_label(each, subject.date.logical_date) for each in found.waits_for])
    said = subject.answer(Held.BLOCKED, f"{subject.label} can never run: it waits for {waits_for}.", *_ways_out(found))
    return replace(said, waits_for=found.waits_for, line=PAST_LINE if found.reason is BlockReason.PAST else None)


def _ways_out(found: Blocked) -> list[str]:
    match found.reason:
        case BlockReason.PAST:
            return [_PAST_REMEDY]
        case BlockReason.POOL:
            return ["`backfill pools set` makes a pool, or enlarges it."]
        case BlockReason.UPSTREAM:
            return []
        case BlockReason.SUBDAG:
            return []


def _held(subject: Subject, standing: Standing, reason: Reason) -> TaskAnswer:
    spec = standing.spec(subject.ti)
    said = _said(subject, standing, reason, spec)
    found = replace(
        said,
        line=reason.line,
        limits=tuple(limit.value for limit in reason.limits),
        waits_for=reason.waits_for,
        occupied_by=tuple(occupants_of(reason.limits[0], spec, subject.ti.dag_run_id, standing))
        if reason.limits
        else (),
        due=reason.due,
        rank=reason.rank,
    )
    return found.remarking(*_besides(subject, standing))


def _said(subject: Subject, standing: Standing, reason: Reason, spec: TaskSpec) -> TaskAnswer:
    name = subject.label
    awaited = listed([awaited_label(each, subject.date.logical_date) for each in reason.waits_for])
    if reason.line == PAST_LINE:
        flag = "wait_for_downstream" if len(spec.past) > 1 else "depends_on_past"
        return subject.answer(Held.PAST, f"{name} waits for the run before, by {flag}: {awaited}.")
    if reason.line == DATE_LINE and reason.due is not None:
        return _dated(subject, standing, reason)
    if reason.line in _WHY:
        how = _WHY[reason.line].format(awaited=awaited, rule=spec.rule)
        return subject.answer(Held.UPSTREAM, f"{name} {how}.")
    if reason.limits:
        return _limited(subject, standing, reason, spec)
    return subject.answer(Held.TURN, _ready(subject, reason))


def _dated(subject: Subject, standing: Standing, reason: Reason) -> TaskAnswer:
    assert reason.due is not None
    ti = subject.ti
    when = f"{moment_text(reason.due)} UTC, in {duration_text(reason.due - standing.now)}"
    if ti.state == TaskInstanceState.UP_FOR_RESCHEDULE:
        return subject.answer(Held.RESCHEDULE, f"{subject.label} looks again at {when}, as it asked for itself.")
    last = error_line(ti.error)
    return subject.answer(
        Held.RETRY,
        f"{subject.label} failed and is tried again at {when}: {subject.tries} is over.",
        f"The error: {last}" if last else "",
    )


def _limited(subject: Subject, standing: Standing, reason: Reason, spec: TaskSpec) -> TaskAnswer:
    first, *others = reason.limits
    clause = limit_clause(first, spec, subject.ti.dag_run_id, standing)
    besides = listed([limit_name(limit, spec, subject.ti.dag_run_id, standing) for limit in others])
    return subject.answer(
        Held.LIMIT,
        f"{subject.label} waits for {clause}.",
        f"There is no room under {besides} either." if besides else "",
        _before_it(reason) if reason.rank else "",
    )


def _ready(subject: Subject, reason: Reason) -> str:
    if reason.rank:
        return f"{subject.label} is ready. {_before_it(reason)}"
    return f"{subject.label} is ready, and none goes before it."


def _before_it(reason: Reason) -> str:
    number = reason.rank or 0
    verb = "goes" if number == 1 else "go"
    return f"{counted(number, 'ready task instance')} {verb} before it, by priority, date and topology."


def _besides(subject: Subject, standing: Standing) -> list[str]:
    """Say what holds the job as a whole, and whether anybody would take the task instance."""
    case = subject.case
    found = hindrances(case.row, case.settings, standing.course.policy)
    if needs_broker(subject.ti.executor) and subject.ti.operator != "SubDagOperator":
        found += broker_sentences(case.broker, [subject.ti.queue], case.settings.celery.queue)
    return found
