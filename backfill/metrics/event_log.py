"""Every event as a log record: a sentence for people, and the event's fields for those who search logs."""

from __future__ import annotations

import logging
from dataclasses import fields
from datetime import datetime
from functools import singledispatch
from typing import Any

from backfill.keys import TaskInstanceKey
from backfill.states import ENDED_BADLY, JobState, TaskInstanceState
from backfill.telemetry import (
    Dispatched,
    Event,
    JobEnded,
    JobStarted,
    Note,
    Progress,
    RunAdmitted,
    RunSettled,
    TaskInstanceEnded,
)

logger = logging.getLogger("backfill.events")


class EventLog:
    """Subscriber that logs; task instances and dispatches that went well are `debug`, so `info` stays readable."""

    def __call__(self, event: Event) -> None:
        """Log `event`."""
        level = _level(event)
        if logger.isEnabledFor(level):
            logger.log(level, _sentence(event), extra={"event": type(event).__name__, **_facts(event)})


def _level(event: Event) -> int:
    match event:
        case Note():
            return event.level
        case TaskInstanceEnded():
            return logging.WARNING if event.state in ENDED_BADLY | {TaskInstanceState.UP_FOR_RETRY} else logging.DEBUG
        case Dispatched() | RunAdmitted():
            return logging.DEBUG
        case JobEnded():
            return logging.INFO if event.state is JobState.SUCCESS else logging.WARNING
        case _:
            return logging.INFO


def _sentence(event: Event) -> str:
    return f"job {event.job_id}: {_news(event)}"


@singledispatch
def _news(event: Event) -> str:
    return type(event).__name__


@_news.register
def _(event: JobStarted) -> str:
    return f"{'going on with' if event.resumed else 'started,'} {event.total_runs} runs of {event.dag_id}"


@_news.register
def _(event: JobEnded) -> str:
    return f"left in state {event.state}"


@_news.register
def _(event: RunAdmitted) -> str:
    return f"run {event.run_id} admitted"


@_news.register
def _(event: RunSettled) -> str:
    return f"run {event.run_id} is {event.state} ({event.reason})"


@_news.register
def _(event: Dispatched) -> str:
    return f"{len(event.keys)} task instances dispatched"


@_news.register
def _(event: TaskInstanceEnded) -> str:
    because = f": {event.error}" if event.error else ""
    return f"{event.key} is {event.state} after try {event.try_number}{because}"


@_news.register
def _(event: Note) -> str:
    return event.text


@_news.register
def _(event: Progress) -> str:
    return (
        f"{event.runs_finished} of {event.runs_total} runs finished; {event.waiting} task instances waiting, "
        f"{event.running} running, {event.succeeded} succeeded, {event.failed} failed, {event.skipped} skipped, "
        f"{event.deadlocked} deadlocked; {event.rate:.1f}/s"
    )


def _facts(event: Event) -> dict[str, Any]:
    """Return the fields of `event` in JSON-able form; of lists just their length, and of a key its parts."""
    facts: dict[str, Any] = {}
    for name in (f.name for f in fields(event)):
        value = getattr(event, name)
        if isinstance(value, TaskInstanceKey):
            facts.update(value._asdict())
        elif isinstance(value, tuple):
            facts[name] = len(value)
        elif isinstance(value, datetime):
            facts[name] = value.isoformat()
        elif name != "level":  # the record has one
            facts[name] = value
    return facts
