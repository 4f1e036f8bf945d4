"""Callbacks of DAG runs, called where they cannot hold up the loop (S2.15, S12.6)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from backfill.dag import DAG
from backfill.facts import RunFacts
from backfill.states import DagRunState

logger = logging.getLogger(__name__)

Callback = Callable[[dict[str, Any]], object]


class RunCallbacks:
    """Calls the DAG's `on_success_callback` or `on_failure_callback`, one after the other in a thread of their own.

    What they raise is logged and changes nothing.
    """

    def __init__(self, dag: DAG) -> None:
        self._dag = dag
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="run-callbacks")

    def fire(self, run: RunFacts, state: DagRunState, reason: str) -> None:
        """Let the callbacks of a run that ended in `state` be called, with `reason` as S2.15 names it."""
        chosen = self._dag.on_success_callback if state == DagRunState.SUCCESS else self._dag.on_failure_callback
        for callback in _as_list(chosen):
            self._thread.submit(_call, callback, self._context(run, state, reason))

    def end(self) -> None:
        """Wait until every callback that was fired has returned."""
        self._thread.shutdown(wait=True)

    def _context(self, run: RunFacts, state: DagRunState, reason: str) -> dict[str, Any]:
        return {
            "dag": self._dag,
            "dag_run": run._replace(state=str(state)),
            "run_id": run.run_id,
            "logical_date": run.logical_date,
            "execution_date": run.logical_date,
            "data_interval_start": run.data_interval_start,
            "data_interval_end": run.data_interval_end,
            "conf": run.conf,
            "reason": reason,
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
