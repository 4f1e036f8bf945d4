"""Why a job, or one task of it, does not go faster: what holds how many of its task instances (S11.6)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from backfill.clock import duration_text, moment_text
from backfill.engine.family import Family
from backfill.engine.window import BlockReason, Reason
from backfill.executors import needs_broker
from backfill.facts import RunFacts, TaskInstanceFacts
from backfill.jobs.why.answers import DatesAnswer, Held, JobAnswer, ReasonCount
from backfill.jobs.why.case import Case, JobTask
from backfill.jobs.why.dates import why_not_admitted
from backfill.jobs.why.hindrances import broker_sentences, policy_sentences, state_sentence
from backfill.jobs.why.idle import DATE_LINE, PAST_LINE
from backfill.jobs.why.labels import awaited_label, counted, label, listed, occupant_label, task_name
from backfill.jobs.why.limits import limit_clause
from backfill.jobs.why.standing import Standing
from backfill.jobs.why.tasks import standing_for, tasks_of
from backfill.states import FINISHED_JOB, IDLE, TaskInstanceState
from backfill.store import dates, inspection, report
from backfill.store.database import Tx
from backfill.store.inspection import Occupant

_BLOCKED = {
    BlockReason.PAST: "blocked for good by the run before",
    BlockReason.UPSTREAM: "blocked for good by others of the same run",
    BlockReason.POOL: "blocked for good by a pool",
    BlockReason.SUBDAG: "blocked for good by what is left of a subdag",
}


class _Group(NamedTuple):
    """What makes reasons the same."""

    held_by: Held
    what: str


def explain_job(tx: Tx, case: Case, task: JobTask | None = None) -> JobAnswer:
    """Return why a job does not go faster; with `task` only this one is counted."""
    standing = case.standing(tx) if case.job.dag is not None else None
    policy = standing.course.policy if standing is not None else None
    sentences = [state_sentence(case.row, case.settings.lease_timeout), *policy_sentences(case.row, policy)]
    in_flight = [each for each in _occupants(tx, case, standing) if _is_asked(task, each.dag_id, each.task_id)]
    sentences += broker_sentences(case.broker, _celery_queues(in_flight), case.settings.celery.queue)
    reasons = list(_in_flight_reasons(in_flight))
    if standing is not None:
        closed = case.row.state in FINISHED_JOB
        reasons += _idle_reasons(standing, task, closed=closed)
        reasons += [] if closed else _not_begun(case, standing, task)
    elif case.dag_trouble:
        sentences.append(f"What its task instances wait for cannot be told: {case.dag_trouble}")
    return JobAnswer(
        job_id=case.row.id,
        dag_id=case.row.dag_id,
        state=case.row.state,
        task_id=task.name if task else None,
        sentences=tuple(sentences),
        reasons=tuple(reasons),
        dates=_dates(tx, case, standing),
        notes=() if reasons or case.row.state in FINISHED_JOB else (_nothing_waits(task),),
    )


def _is_asked(task: JobTask | None, dag_id: str, task_id: str) -> bool:
    return task is None or (task.dag_id, task.task_id) == (dag_id, task_id)


def _nothing_waits(task: JobTask | None) -> str:
    of = f" of {task.name}" if task else ""
    return f"No task instance{of} is unfinished in the runs that are admitted."


def _occupants(tx: Tx, case: Case, standing: Standing | None) -> list[Occupant]:
    dag_ids = {case.row.dag_id, *(task.dag_id for task in tasks_of(case))}
    found = standing.occupants if standing else inspection.select_occupants(tx, dag_ids, [])
    return [each for each in found if each.job_id == case.row.id]


def _celery_queues(in_flight: Iterable[Occupant]) -> list[str]:
    return [each.queue for each in in_flight if each.state == TaskInstanceState.QUEUED and needs_broker(each.executor)]


def _in_flight_reasons(in_flight: Sequence[Occupant]) -> Iterator[ReasonCount]:
    running = [each for each in in_flight if each.state == TaskInstanceState.RUNNING]
    queued = [each for each in in_flight if each.state == TaskInstanceState.QUEUED]
    if running:
        yield ReasonCount(Held.RUNNING, len(running), "running", _since(running[0]))
    if queued:
        yield ReasonCount(Held.QUEUED, len(queued), "queued, waiting for a worker", _since(queued[0]))


def _since(occupant: Occupant) -> str:
    age = f", for {duration_text(occupant.age)}" if occupant.age is not None else ""
    return f"{occupant_label(occupant)}{age}"


# -- what waits for the coordinator -----------------------------------------------------------------------------------------


def _idle_reasons(standing: Standing, task: JobTask | None, *, closed: bool) -> list[ReasonCount]:
    """Count the idle task instances of the window by what holds them, the most first."""
    counts: dict[_Group, int] = {}
    examples: dict[_Group, str] = {}
    for run, row in standing.rows():
        waits = row.state in IDLE or row.id in standing.to_be_settled or row.id in standing.blocked
        if not waits or not _is_asked(task, run.dag_id, row.task_id):
            continue
        group = _group(standing, run, row, closed=closed)
        counts[group] = counts.get(group, 0) + 1
        examples.setdefault(group, _example(standing, run, row))
    return [
        ReasonCount(group.held_by, count, group.what, examples[group])
        for group, count in sorted(counts.items(), key=lambda each: -each[1])
    ]


def _not_begun(case: Case, standing: Standing, task: JobTask | None) -> Iterator[ReasonCount]:
    """Count the task instances of subdags whose runs are yet to begin, subdag by subdag."""
    family = standing.window
    if not isinstance(family, Family):
        return
    for dag_id, graph in standing.course.compiled.graphs.items():
        if dag_id == standing.course.compiled.dag.dag_id or (task and task.dag_id != dag_id):
            continue
        runs = family.not_begun(dag_id)
        tasks = [each for each in tasks_of(case) if each.dag_id == dag_id]
        if runs and tasks:
            operator = standing_for(case, tasks[0])
            number = runs if task else runs * len(graph.task_ids)
            what = f"waiting for {operator.name}, with which the run of their subdag begins"
            yield ReasonCount(Held.SUBDAG, number, what, (task or tasks[0]).name)


def _example(standing: Standing, run: RunFacts, row: TaskInstanceFacts) -> str:
    task_id = task_name(standing.course.compiled.dag.dag_id, run.dag_id, row.task_id)
    name, blocked = label(task_id, run.logical_date, row.map_index), standing.blocked.get(row.id)
    if blocked is None:
        return name
    return f"{name}, which waits for {listed([awaited_label(each, run.logical_date) for each in blocked.waits_for])}"


def _group(standing: Standing, run: RunFacts, row: TaskInstanceFacts, *, closed: bool) -> _Group:
    if row.id in standing.blocked:
        return _Group(Held.BLOCKED, _BLOCKED[standing.blocked[row.id].reason])
    if closed:
        return _Group(Held.CLOSED, "not started before the job ended")
    if row.id in standing.to_be_settled:
        return _Group(Held.DECISION, f"about to become {standing.to_be_settled[row.id]}")
    if (row.dag_run_id, row.task_id) in standing.to_be_expanded:
        return _Group(Held.DECISION, "about to be expanded over the values of a mapping")
    return _of_reason(standing, run, row, standing.reason(row.id, ranked=False))


def _of_reason(standing: Standing, run: RunFacts, row: TaskInstanceFacts, reason: Reason) -> _Group:
    if reason.line == PAST_LINE:
        return _Group(Held.PAST, "waiting for the run before")
    if reason.line == DATE_LINE:
        if row.state == TaskInstanceState.UP_FOR_RESCHEDULE:
            return _Group(Held.RESCHEDULE, "waiting for the date of another look")
        soonest = standing.window.next_due()
        when = f", the first at {moment_text(soonest)} UTC" if soonest else ""
        return _Group(Held.RETRY, f"waiting for a retry{when}")
    if reason.line is not None:
        return _Group(Held.UPSTREAM, "waiting for other task instances of the same run")
    if reason.limits:
        spec = standing.spec(row)
        return _Group(Held.LIMIT, f"waiting for {limit_clause(reason.limits[0], spec, run.id, standing)}")
    return _Group(Held.TURN, "ready")


# -- dates ------------------------------------------------------------------------------------------------------------------


def _dates(tx: Tx, case: Case, standing: Standing | None) -> DatesAnswer:
    counts = report.job_counts(tx, case.row.id, task_ids=case.chosen).runs
    pending = [date for date in dates.pending_dates(tx, case.row.id, None) if date.action != "done"]
    policy = standing.course.policy if standing is not None else None
    why = None
    if pending and case.row.state in FINISHED_JOB:
        why = f"Job {case.row.id} ended before {counted(len(pending), 'date')} could be admitted."
    elif pending:
        why = why_not_admitted(tx, case, policy)
    return DatesAnswer(
        total=counts.total,
        finished=counts.finished,
        in_window=counts.running,
        not_admitted=len(pending),
        why=why,
    )
