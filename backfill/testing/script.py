"""What the tasks of a scenario do, and the executor that lets them do it at once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import Engine

from backfill.dag import DAG, BaseOperator, Operator
from backfill.exceptions import BackfillError, UsageError
from backfill.executors import BaseExecutor, QueuedAttempt, Unsent
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
    """Plays the n-th element of a task's list at its n-th execution in this job; beyond the list it succeeds.

    A task of a subdag goes by its dag_id and its task_id: `parent.child.task`.
    """

    def __init__(self, dag: DAG, outcomes: Mapping[str, Any]) -> None:
        self.dag = dag
        self._outcomes = outcomes
        self._dags = {each.dag_id: each for each in (dag, *dag.subdags)}
        self._mapped_over = {name: mapped_keys(each) for name, each in self._dags.items()}
        #: How often each (task id, date, map index) was executed.
        self.executions: Counter[tuple[str, str, int]] = Counter()

    def play(self, claim: Claim) -> Outcome:
        """Return how the attempt of `claim` ends."""
        name, date = self._name(claim), date_key(claim.logical_date)
        if claim.job_params.get("mark_success"):
            return Succeeded()
        played = self.executions[name, date, claim.map_index]
        self.executions[name, date, claim.map_index] += 1
        return self._outcome(self._element(name, date, claim.map_index, played), self.task_of(claim))

    def task_of(self, claim: Claim) -> Operator:
        """Return the task of an attempt."""
        return self._dags[claim.dag_id].task_dict[claim.task_id]

    def _name(self, claim: Claim) -> str:
        return claim.task_id if claim.dag_id == self.dag.dag_id else f"{claim.dag_id}.{claim.task_id}"

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
                return self._returned(task, _usual_result(task))
            case "failed":
                return Failed(BackfillError("as the script says"))
            case "fail_no_retry":
                return Failed(BackfillError("as the script says, for good"), retryable=False)
            case "skipped":
                return Skipped(BackfillError("as the script says"))
            case "reschedule":
                return Rescheduled(datetime.now(UTC))
            case (bool() as result) | {"follow": result} | {"return": result}:
                return self._returned(task, result)
            case _:
                raise UsageError(f"The outcome {element!r} of the task {task.task_id!r} is none that a scenario knows.")

    def _returned(self, task: Operator, value: Any) -> Outcome:
        """Return how a body ends that returned `value`: what is wrong with that fails it, as it would on a worker."""
        try:
            # what is asked of the task here, a mapped one answers as well
            operator = cast("BaseOperator", task)
            return Succeeded(
                xcoms=xcoms_of(operator, value, self._mapped_over[task.dag.dag_id].get(task.task_id, frozenset())),
                skips=None if task.decides_skips == "no" else operator.decide_skips(value, {}),
            )
        except BackfillError as error:
            return Failed(error)


def _usual_result(task: Operator) -> Any:
    """Return what a body returns of which nothing is said: a branch follows every child, a short circuit goes on."""
    if task.decides_skips == "no":
        return None
    return sorted(task.downstream_task_ids) if task.operator_name.startswith("Branch") else True


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
            for claim in ledger.write(Writing(claim=(queued.attempt,))).claims:
                began = time.monotonic()
                # what is asked of the task here, a mapped one answers as well
                task = cast("BaseOperator", self._script.task_of(claim))
                conclusion = conclude(self._script.play(claim), claim, task)
                ledger.write(Writing(ended=(Entry(claim, conclusion, began, time.monotonic()),)))
        return []

    def holds(self, attempt_ids: Iterable[str]) -> set[str]:
        """Return nothing: every attempt has ended when it was handed over."""
        del attempt_ids
        return set()

    def adopt(self, attempts: Sequence[QueuedAttempt]) -> set[str]:
        """Return nothing, as `holds` does."""
        del attempts
        return set()

    def revoke(self, attempt_ids: Iterable[str]) -> None:
        """Do nothing: nothing waits."""

    def terminate(self, attempt_ids: Iterable[str]) -> None:
        """Do nothing: nothing runs."""

    def end(self) -> None:
        """Do nothing: there is nothing to let go of."""
