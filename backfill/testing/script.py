"""What the tasks of a scenario do, and the executor that lets them do it at once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import Engine

from backfill.dag import DAG, BaseOperator, Operator
from backfill.exceptions import BackfillError
from backfill.executors import BaseExecutor, QueuedAttempt, Unsent
from backfill.messages import Attempt
from backfill.store.claims import Claim
from backfill.testing.dags import date_key
from workers.conclusion import conclude
from workers.ledger import Entry, Ledger, Writing
from workers.outcome import Failed, Outcome, Rescheduled, Skipped, Succeeded
from workers.results import mapped_keys, xcoms_of

#: XCom key of what a task returned.
RETURN_VALUE = "return_value"
_SUCCESS = "success"


class Script:
    """Plays the n-th element of a task's list at its n-th execution in this job; beyond the list it succeeds."""

    def __init__(self, dag: DAG, outcomes: Mapping[str, Any]) -> None:
        self.dag = dag
        self._outcomes = outcomes
        self._mapped_over = mapped_keys(dag)
        #: How often each (task id, date, map index) was executed.
        self.executions: Counter[tuple[str, str, int]] = Counter()

    def play(self, claim: Claim) -> Outcome:
        """Return how the attempt of `claim` ends."""
        task, date = self.dag.task_dict[claim.task_id], date_key(claim.logical_date)
        if claim.job_params.get("mark_success"):
            return Succeeded()
        played = self.executions[claim.task_id, date, claim.map_index]
        self.executions[claim.task_id, date, claim.map_index] += 1
        return self._outcome(self._element(claim.task_id, date, claim.map_index, played), task)

    def _element(self, task_id: str, date: str, map_index: int, played: int) -> Any:
        by_date = self._outcomes.get(task_id, {})
        element = by_date.get(date, by_date.get("*", _SUCCESS))
        if isinstance(element, Mapping) and "by_index" in element:
            element = element["by_index"].get(str(map_index), element["by_index"].get("*", _SUCCESS))
        if isinstance(element, list):
            return element[played] if played < len(element) else _SUCCESS
        return element

    def _outcome(self, element: Any, task: Operator) -> Outcome:
        match element:
            case "success":
                return self._succeeded(task, None)
            case "failed":
                return Failed(BackfillError("as the script says"))
            case "fail_no_retry":
                return Failed(BackfillError("as the script says, for good"), retryable=False)
            case "skipped":
                return Skipped(BackfillError("as the script says"))
            case "reschedule":
                return Rescheduled(datetime.now(UTC))
            case bool():
                return self._succeeded(task, element)
            case {"follow": followed}:
                return self._succeeded(task, followed)
            case {"return": value}:
                return self._returned(task, value)
            case _:
                raise ValueError(f"the outcome {element!r} of task {task.task_id!r} is unknown")

    def _returned(self, task: Operator, value: Any) -> Outcome:
        try:
            # what is asked of the task here, a mapped one answers as well
            return Succeeded(
                xcoms=xcoms_of(cast("BaseOperator", task), value, self._mapped_over.get(task.task_id, frozenset()))
            )
        except BackfillError as error:
            return Failed(error)

    def _succeeded(self, task: Operator, result: Any) -> Outcome:
        if task.decides_skips == "no" or not isinstance(task, BaseOperator):
            return Succeeded()
        if result is None:  # a branch follows every child, a short circuit goes on
            result = sorted(task.downstream_task_ids) if task.operator_name.startswith("Branch") else True
        return Succeeded(xcoms={RETURN_VALUE: result}, skips=task.decide_skips(result, {}))


class ScriptedExecutor(BaseExecutor):
    """Claims, plays and finishes each attempt as soon as it is queued, by the workers' own statements."""

    name = "scripted"

    def __init__(self, engine: Engine, script: Script) -> None:
        super().__init__()
        self._engine = engine
        self._script = script

    def queue_task_instances(self, attempts: Sequence[QueuedAttempt]) -> list[Unsent]:
        """Play `attempts`, one after the other."""
        mailbox = self.context.mailbox
        ledger = Ledger(
            self._engine,
            hostname="script",
            publish=lambda events: mailbox.put(*events),
            leaving=lambda: True,
            refused=lambda claim, error: conclude(Failed(error), claim, None),
            clock=time.monotonic,
        )
        for queued in attempts:
            for claim in ledger.write(Writing(claim=(queued.attempt,))):
                began = time.monotonic()
                # what is asked of the task here, a mapped one answers as well
                task = cast("BaseOperator", self._script.dag.task_dict[claim.task_id])
                conclusion = conclude(self._script.play(claim), claim, task)
                ledger.write(Writing(ended=(Entry(claim, conclusion, began, time.monotonic()),)))
        return []

    def holds(self, attempt_ids: Iterable[str]) -> set[str]:
        """Return nothing: every attempt has ended when it was handed over."""
        del attempt_ids
        return set()

    def adopt(self, attempts: Sequence[Attempt]) -> set[str]:
        """Return nothing, as `holds` does."""
        del attempts
        return set()

    def revoke(self, attempt_ids: Iterable[str]) -> None:
        """Do nothing: nothing waits."""

    def terminate(self, attempt_ids: Iterable[str]) -> None:
        """Do nothing: nothing runs."""

    def end(self) -> None:
        """Do nothing: there is nothing to let go of."""
