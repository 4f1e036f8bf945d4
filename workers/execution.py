"""One claimed attempt, from the import of its DAG to its callbacks. Whatever user code does here, an outcome comes out."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, assert_never

from backfill.dag.context import context_of_task
from backfill.dag.params import resolve_params
from backfill.exceptions import BackfillError, TaskTimeout
from backfill.states import TaskInstanceState
from backfill.store.claims import Claim
from workers.conclusion import will_retry
from workers.context import TaskContext, build_context
from workers.dags import DagCache, WorkerDag
from workers.interruption import Guard
from workers.logs import TaskLog
from workers.outcome import (
    Failed,
    Fenced,
    HandedBack,
    Orphaned,
    Outcome,
    Rescheduled,
    Skipped,
    Succeeded,
    error_text,
)
from workers.results import xcoms_of
from workers.secret_values import secrets_of_environment, secrets_within
from workers.task_instance import Database, TaskInstance

if TYPE_CHECKING:
    from backfill.dag.abstract_operator import AbstractOperator
    from backfill.dag.base_operator import BaseOperator

logger = logging.getLogger(__name__)

_OUR_FOLDER = str(Path(__file__).parent)


class Execution:
    """Runs the task of one claim, once. `guard` is open around `perform`, and learns the task's `on_kill`.

    `tell` sets environment variables, `hide` keeps secrets out of log and error.
    """

    def __init__(
        self,
        claim: Claim,
        *,
        dags: DagCache,
        database: Database,
        guard: Guard,
        log: TaskLog,
        hostname: str,
        tell: Callable[[Mapping[str, str]], None],
        hide: Callable[[Iterable[str]], None],
    ) -> None:
        self._claim = claim
        self._dags = dags
        self._database = database
        self._guard = guard
        self._log = log
        self._hostname = hostname
        self._tell = tell
        self._hide = hide
        #: The operator, once the DAG is loaded.
        self.task: AbstractOperator | None = None
        #: Seconds that it took to load the DAG; next to nothing if the process had it already.
        self.loading = 0.0
        self._context: TaskContext | None = None

    def perform(self) -> Outcome:
        """Load the DAG and run the task; raises what user code raises."""
        self._tell(_variables(self._claim))
        began = time.monotonic()
        loaded = self._dags.get(self._claim, self._database)
        self.loading = time.monotonic() - began
        operator = loaded.dag.task_dict.get(self._claim.task_id)
        if operator is None:
            raise BackfillError(f"The DAG {self._claim.dag_id!r} has no task {self._claim.task_id!r} any more.")
        context = self._make_context(loaded, operator)
        if self._claim.job_params.get("mark_success"):
            return Succeeded()
        return self._execute(self._make_task(operator, context), context, loaded)

    def report(self, outcome: Outcome) -> None:
        """Say in the log how the attempt ended."""
        match outcome:
            case Succeeded():
                self._log.line("INFO", "The task succeeded")
            case Skipped(error=error):
                self._log.line("INFO", f"The task is skipped: {error_text(error)}")
            case Rescheduled(date=date):
                self._log.line("INFO", f"The task will be looked at again at {date.isoformat()}")
            case Failed(error=error):
                self._hide(secrets_of_environment(os.environ))  # an error may quote what the task itself has set
                self._log.exception("The task failed", error.with_traceback(_user_frames(error.__traceback__)))
            case HandedBack():
                self._log.line(
                    "WARNING", "The worker stops: the attempt is handed back, and another worker will take it"
                )
            case Fenced():
                self._log.line("WARNING", "The attempt is not current any more; it was stopped, and changes nothing")
            case Orphaned():
                self._log.line("WARNING", "The process that this one belongs to is gone; the attempt was stopped")
            case _:
                assert_never(outcome)

    def call_back(self, outcome: Outcome) -> None:
        """Call the callbacks that `outcome` owes, before its state is visible (S12.6)."""
        task = self.task
        if task is None:
            return
        match outcome:
            case Succeeded():
                self._call(task.on_success_callback, TaskInstanceState.SUCCESS)
            case Skipped(error=error):
                self._call((*task.on_skipped_callback, *task.on_success_callback), TaskInstanceState.SKIPPED, error)
            case Failed(error=error) if will_retry(outcome, self._claim, task):
                self._call(task.on_retry_callback, TaskInstanceState.UP_FOR_RETRY, error)
            case Failed(error=error):
                self._call(task.on_failure_callback, TaskInstanceState.FAILED, error)
            case Rescheduled() | HandedBack() | Fenced() | Orphaned():
                pass
            case _:
                assert_never(outcome)

    def _make_context(self, loaded: WorkerDag, operator: AbstractOperator) -> TaskContext:
        """Build the context; from here on the task's retries and callbacks are known."""
        claim = self._claim
        self.task = operator
        self._tell({"AIRFLOW_CTX_DAG_OWNER": operator.owner})
        ti = TaskInstance(claim, hostname=self._hostname, task=operator, database=self._database)
        self._context = build_context(ti=ti, claim=claim, dag=loaded.dag, database=self._database)
        params = self._context["params"] = resolve_params(loaded.dag, operator, claim.conf)
        self._hide(secrets_within(params))
        return self._context

    def _make_task(self, operator: AbstractOperator, context: TaskContext) -> BaseOperator:
        """Return the operator of this attempt, which may be changed by rendering."""
        task = operator.unmap(self._claim.map_index, context)
        self.task = context["task"] = context["ti"].task = task
        self._guard.on_kill = task.on_kill
        return task

    def _execute(self, task: BaseOperator, context: TaskContext, loaded: WorkerDag) -> Outcome:
        token = context_of_task.set(context)
        try:
            task.render_template_fields(context)
            self._hide(_secrets_of_command(task))
            _call_all(task.on_execute_callback, context)
            task.pre_execute(context)
            result = self._within_time(task, context)
            task.post_execute(context, result)
            xcoms = xcoms_of(task, result, loaded.mapped_keys.get(task.task_id, frozenset()))
            skips = None if task.decides_skips == "no" else task.decide_skips(result, context)
            return Succeeded(xcoms, skips)
        finally:
            context_of_task.reset(token)

    def _within_time(self, task: BaseOperator, context: TaskContext) -> Any:
        limit = task.execution_timeout
        if limit is None:
            return task.execute(context)
        with self._guard.time_limit(limit):
            result = task.execute(context)
        if self._guard.timed_out:  # the task caught the error and went on: its time is over all the same (S6.5)
            raise TaskTimeout(f"execution_timeout of {limit} is over")
        return result

    def _call(
        self, callbacks: Iterable[Callable[[Any], Any]], state: TaskInstanceState, error: BaseException | None = None
    ) -> None:
        context = self._context
        if context is None:
            return
        context["ti"].state = state
        context["ti"].end_date = datetime.now(UTC)
        if error is not None:
            context["exception"] = error
            context["reason"] = error_text(error)
        token = context_of_task.set(context)
        try:
            _call_all(callbacks, context)
        finally:
            context_of_task.reset(token)


def _variables(claim: Claim) -> dict[str, str]:
    """Return the environment variables that tell a task who it is (S12.3), but for its owner, whom the DAG knows."""
    return {
        "AIRFLOW_CTX_DAG_ID": claim.dag_id,
        "AIRFLOW_CTX_TASK_ID": claim.task_id,
        "AIRFLOW_CTX_EXECUTION_DATE": claim.logical_date.isoformat(),
        "AIRFLOW_CTX_TRY_NUMBER": str(claim.try_number),
        "AIRFLOW_CTX_DAG_RUN_ID": claim.run_id,
    }


def _secrets_of_command(task: BaseOperator) -> set[str]:
    """Return the secrets of the variables that a task sets for its command."""
    env = getattr(task, "env", None)
    texts = env.items() if isinstance(env, Mapping) else ()
    return secrets_of_environment({str(name): text for name, text in texts if isinstance(text, str)})


def _call_all(callbacks: Iterable[Callable[[Any], Any]], context: Mapping[str, Any]) -> None:
    for callback in callbacks:
        try:
            callback(context)
        except (Exception, SystemExit):
            logger.exception("The callback %s failed; that changes nothing", getattr(callback, "__name__", callback))


def _user_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the frame at which our code was left; all of it if it never was."""
    inner = trace
    while inner is not None and inner.tb_frame.f_code.co_filename.startswith(_OUR_FOLDER):
        inner = inner.tb_next
    return inner or trace
