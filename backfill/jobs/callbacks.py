"""Callbacks of DAG runs, and those that no worker is left to call, where they cannot hold up the loop (S2.15, S8.2, S12.6)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import SimpleNamespace
from typing import Any

from backfill.dag import DAG
from backfill.exceptions import BackfillError
from backfill.facts import RunFacts
from backfill.jobs.task_status import TaskInstance
from backfill.states import DagRunState, TaskInstanceState

logger = logging.getLogger(__name__)

Callback = Callable[[dict[str, Any]], object]


class RunCallbacks:
    """Calls callbacks of the DAG and of task instances that the coordinator failed, one after the other in a thread of their own.

    What they raise is logged and changes nothing.
    """

    def __init__(self, dag: DAG) -> None:
        self._dag = dag
        self._dags = {each.dag_id: each for each in (dag, *dag.subdags)}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="run-callbacks")
        self._last: Future[None] | None = None

    def fire(self, run: RunFacts, state: DagRunState, reason: str) -> None:
        """Let the callbacks of a run that ended in `state` be called, with `reason` as S2.15 names it."""
        dag = self._dag_of(run)
        chosen = dag.on_success_callback if state == DagRunState.SUCCESS else dag.on_failure_callback
        self._submit(chosen, {**self._context(run, state), "reason": reason})

    def fire_of_task(self, run: RunFacts, ti: TaskInstance, error: str | None) -> None:
        """Let the callbacks of a task instance be called whose attempt the coordinator failed (S8.2), or that stood for a subdag.

        `error` is why it failed; None: it ended well.
        """
        task = self._dag_of(run).task_dict[ti.key.task_id]
        shown = SimpleNamespace(**ti.facts._asdict() | ti.key._asdict())
        context: dict[str, Any] = {"task": task, "ti": shown, "task_instance": shown}
        if error is None:
            chosen = task.on_success_callback
        else:
            context["exception"] = BackfillError(error)
            retries = ti.facts.state == TaskInstanceState.UP_FOR_RETRY
            chosen = task.on_retry_callback if retries else task.on_failure_callback
        self._submit(chosen, {**self._context(run, DagRunState.RUNNING), **context})

    def _submit(self, callbacks: Callback | Sequence[Callback] | None, context: dict[str, Any]) -> None:
        for callback in _as_list(callbacks):
            self._last = self._thread.submit(_call, callback, context)

    def end(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Wait until every callback that was fired has returned, calling `meanwhile` every second."""
        self._thread.shutdown(wait=False)
        while self._last is not None and wait([self._last], timeout=1).not_done:
            meanwhile()

    def _dag_of(self, run: RunFacts) -> DAG:
        return self._dags.get(run.dag_id, self._dag)

    def _context(self, run: RunFacts, state: DagRunState) -> dict[str, Any]:
        return {
            "dag": self._dag_of(run),
            "dag_run": run._replace(state=str(state)),
            "run_id": run.run_id,
            "logical_date": run.logical_date,
            "execution_date": run.logical_date,
            "data_interval_start": run.data_interval_start,
            "data_interval_end": run.data_interval_end,
            "conf": run.conf,
        }


def _as_list(callbacks: Callback | Sequence[Callback] | None) -> list[Callback]:
    if callbacks is None:
        return []
    return [callbacks] if callable(callbacks) else list(callbacks)


def _call(callback: Callback, context: dict[str, Any]) -> None:
    try:
        callback(context)
    except Exception:
        logger.exception("A callback of run %s failed", context["run_id"])
