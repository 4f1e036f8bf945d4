"""What is asked about a job from another terminal (S11.6): its rows and its broker are looked at, and nothing is changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime

import redis
from sqlalchemy import Engine

from backfill.config import Settings
from backfill.coordinator.broker import connect, listening_workers
from backfill.coordinator.orders import read_row
from backfill.dag import DAG
from backfill.exceptions import BackfillError, ServiceUnavailable
from backfill.executors import needs_broker, queues
from backfill.jobs import BackfillJob
from backfill.jobs.conclusion import job_report, sort_errors
from backfill.jobs.creation import read_job
from backfill.jobs.report import Report
from backfill.jobs.why import (
    BrokerView,
    FoundTaskInstance,
    JobAnswer,
    Question,
    RunAnswer,
    TaskAnswer,
    blocked_errors,
    explain_job,
    explain_run,
    explain_task_instance,
    find_task_instance,
    past_hint,
    read_standing,
)
from backfill.jobs.why.case import Case
from backfill.jobs.why.tasks import find_task
from backfill.states import ACTIVE_JOB, JobState, TaskInstanceState
from backfill.store import recovery
from backfill.store.database import Tx, mask_url, read_only, repeat


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquirer:
    """Answers questions about jobs, by the means of a process that drives none."""

    engine: Engine
    settings: Settings
    #: Returns the DAG of a job, or raises why it cannot be had.
    load_dag: Callable[[BackfillJob], DAG]
    #: Reaches the broker and returns its URL, or raises `ServiceUnavailable`.
    reach_broker: Callable[[], str]

    def why(self, job_id: int, question: Question | None, task_id: str | None = None) -> TaskAnswer | JobAnswer:
        """Return why a task instance is where it is or, without one, why the job, or one task of it, does not go faster.

        Raises `UsageError` for a job, task, date or map index that is not there.
        """
        case = self._case(job_id)

        def answer(tx: Tx) -> TaskAnswer | JobAnswer:
            read_only(tx)
            if question is not None:
                return explain_task_instance(tx, case, question)
            return explain_job(tx, case, find_task(case, task_id) if task_id is not None else None)

        return repeat(self.engine, answer)

    def why_run(self, job_id: int, logical_date: datetime) -> RunAnswer:
        """Return why the run of a date is not finished; raises `UsageError` for a job or a date that is not there."""
        case = self._case(job_id)

        def answer(tx: Tx) -> RunAnswer:
            read_only(tx)
            return explain_run(tx, case, logical_date)

        return repeat(self.engine, answer)

    def report(self, job_id: int) -> Report:
        """Return a job's report; of a deadlocked one also with what can never run, which no row says (S9.7)."""
        report = repeat(self.engine, lambda tx: job_report(tx, job_id))
        return self._with_blocked(report, job_id) if report.state is JobState.DEADLOCKED else report

    def _with_blocked(self, report: Report, job_id: int) -> Report:
        job = read_job(self.engine, job_id)
        try:
            job.dag = self.load_dag(job)
        except BackfillError as error:
            return replace(report, notes=(*report.notes, f"What is blocked cannot be told: {error}"))
        standing = repeat(self.engine, lambda tx: read_standing(tx, job, self.settings))
        blocked = blocked_errors(standing)
        errors = tuple(sort_errors([*report.errors, *blocked], job.params))
        return replace(report, errors=errors, hint=report.hint or past_hint(standing, blocked))

    def finder(self, job_id: int, question: Question) -> Callable[[], FoundTaskInstance]:
        """Return what finds a task instance of a job by its rows as they are then; that raises as `find_task_instance` says."""
        row, job = read_row(self.engine, job_id), read_job(self.engine, job_id)
        case = Case(row=row, job=job, settings=self.settings)
        return lambda: repeat(self.engine, lambda tx: find_task_instance(tx, case, question))

    def _case(self, job_id: int) -> Case:
        row, job = read_row(self.engine, job_id), read_job(self.engine, job_id)
        trouble = None
        try:
            job.dag = self.load_dag(job)
        except BackfillError as error:
            trouble = str(error)
        broker = self._look_at_broker(job_id) if row.state in ACTIVE_JOB else None
        return Case(row=row, job=job, settings=self.settings, dag_trouble=trouble, broker=broker)

    def _look_at_broker(self, job_id: int) -> BrokerView | None:
        """Return how the broker is; None where nothing of the job goes there."""
        in_flight = repeat(self.engine, lambda tx: recovery.select_in_flight(tx, job_id))
        queued = [
            each for each in in_flight if each.facts.state == TaskInstanceState.QUEUED and needs_broker(each.executor)
        ]
        if not queued and read_job(self.engine, job_id).request.executor != "celery":
            return None
        attempts = {each.facts.attempt_id for each in queued if each.facts.attempt_id}
        try:
            return _view(self.reach_broker(), {each.queue for each in queued}, attempts)
        except ServiceUnavailable as error:
            return BrokerView(trouble=str(error))


def _view(url: str, asked_queues: Collection[str], attempts: set[str]) -> BrokerView:
    try:
        with connect(url) as client:
            waiting = queues.waiting(client, asked_queues, attempts)
        listeners = Counter(queue for worker in listening_workers(url) for queue in set(worker.queues))
    except redis.RedisError as error:
        return BrokerView(trouble=f"The broker at {mask_url(url)} does not answer ({str(error).rstrip('.')}).")
    return BrokerView(listeners=listeners, waiting=frozenset(waiting))
