"""The one Celery task: a bundle of attempts comes in, the runner does the rest."""

from __future__ import annotations

import logging
from typing import Any

from backfill.exceptions import MessageError, ServiceUnavailable
from backfill.messages import TASK_NAME, Bundle
from backfill.states import TaskInstanceState
from workers.app import app, lifecycle
from workers.runner import AttemptEnd

logger = logging.getLogger(__name__)

_FAILURES = frozenset({TaskInstanceState.FAILED, TaskInstanceState.UP_FOR_RETRY})


class TaskInstanceFailed(Exception):
    """Raised after the commit, so that Flower shows a failed task instance in red; nothing depends on it."""


@app.task(name=TASK_NAME, throws=(TaskInstanceFailed,), ignore_result=True, typing=False)  # type: ignore[untyped-decorator]  # Celery has no types
def run(*arguments: Any, **_keywords: Any) -> None:
    """Run the bundle that a message carries; one that is none of ours is dropped."""
    try:
        bundle = Bundle.decode(arguments[0] if arguments else None)
    except MessageError as error:
        logger.warning("%s It is dropped.", error)
        return
    try:
        ends = lifecycle.runner.run_bundle(bundle)
    except ServiceUnavailable as error:
        logger.error("Attempts were left as they are: %s", error)  # noqa: TRY400  # its text says it all
        return
    lifecycle.leave_if_orphaned()
    raise_if_failed(ends)


def raise_if_failed(ends: tuple[AttemptEnd, ...]) -> None:
    """Raise `TaskInstanceFailed` naming the attempts that failed, if any did."""
    failures = [f"{end.key} (try {end.try_number}) {end.state}: {end.error}" for end in ends if end.state in _FAILURES]
    for failure in failures:
        logger.warning("%s", failure)
    if failures:
        raise TaskInstanceFailed("; ".join(failures))
