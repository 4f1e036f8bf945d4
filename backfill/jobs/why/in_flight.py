"""Answers about task instances that a worker has, or is to take."""

from __future__ import annotations

from datetime import timedelta

from backfill.clock import duration_text, moment_text
from backfill.executors import needs_broker
from backfill.jobs.why.answers import Held, TaskAnswer
from backfill.jobs.why.case import Subject
from backfill.jobs.why.hindrances import hindrances, no_worker_sentence
from backfill.jobs.why.labels import counted


def explain_running(subject: Subject) -> TaskAnswer:
    """Say since when a task instance runs, where, and whether its worker lives."""
    ti = subject.ti
    since = running_since(subject)
    where = f" on {ti.hostname}" + (f", process {ti.pid}" if ti.pid else "") if ti.hostname else ""
    sentence = f"{subject.label} is running{since}{where}: {subject.tries}."
    return subject.answer(
        Held.RUNNING, sentence, _sign_of_life(subject), f"`{subject.log_command} --follow` shows its log as it grows."
    )


def running_since(subject: Subject) -> str:
    """Return since when it runs, and how long that is, to stand after a verb."""
    ti = subject.ti
    return f" since {moment_text(ti.start_date)} UTC ({_ago(ti.running_age)})" if ti.start_date else ""


def explain_queued(subject: Subject) -> TaskAnswer:
    """Say since when a task instance waits for a worker, where its message is, and who listens."""
    ti, case = subject.ti, subject.case
    since = f" since {moment_text(ti.queued_at)} UTC ({_ago(ti.queued_age)})" if ti.queued_at else ""
    if not needs_broker(ti.executor):
        sentence = f"{subject.label} is queued{since} and waits for a free process of the {ti.executor} executor."
        return subject.answer(Held.QUEUED, sentence, *hindrances(case.row, case.settings))
    sentence = f"{subject.label} is queued{since} and waits for a worker of queue {ti.queue!r}."
    return subject.answer(Held.QUEUED, sentence, *_message(subject), *hindrances(case.row, case.settings))


def _sign_of_life(subject: Subject) -> str:
    ti, settings = subject.ti, subject.case.settings
    if ti.heartbeat_age is None:
        return ""
    timeout = settings.task.heartbeat_timeout
    heard = f"Its worker was heard of {duration_text(ti.heartbeat_age)} ago"
    if ti.heartbeat_age < timeout:
        return f"{heard}."
    left = settings.task.infrastructure_retries - ti.infrastructure_failures
    then = "it is sent again" if left > 0 else "it counts as failed"
    return (
        f"{heard}, longer than task.heartbeat_timeout of {duration_text(timeout)}: it counts as lost, and {then} as soon as "
        "the process that drives the job looks."
    )


def _message(subject: Subject) -> list[str]:
    """Say where the message of a queued attempt is, and who might take it."""
    ti, broker, settings = subject.ti, subject.case.broker, subject.case.settings
    if broker is None:
        return []
    if broker.trouble:
        return [broker.trouble]
    said = []
    if broker.waiting is not None:
        if ti.attempt_id in broker.waiting:
            said.append("Its message waits in the queue.")
        else:
            again = duration_text(settings.task.queued_timeout)
            said.append(
                "Its message is not in the queue: a worker has taken it and is about to start it, or it was lost and "
                f"is sent again {again} after it was queued (task.queued_timeout)."
            )
    listeners = broker.listeners.get(ti.queue, 0)
    if not listeners:
        return [*said, no_worker_sentence(ti.queue, settings.celery.queue)]
    return [*said, f"{counted(listeners, 'worker')} {'listens' if listeners == 1 else 'listen'} to that queue."]


def _ago(age: timedelta | None) -> str:
    return f"for {duration_text(age)}" if age is not None else "for an unknown time"
