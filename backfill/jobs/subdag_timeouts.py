"""Runs of a job with subdags that take too long, and runs of subdags that nobody waits for any more (S6.6, S13.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from backfill.dag import DAG
from backfill.engine.family import Family
from backfill.engine.window import RunOutcome
from backfill.facts import RunFacts, TaskInstanceFacts
from backfill.jobs.timeouts import RunTimeouts, TimedOut, outcomes_of
from backfill.states import DagRunState
from backfill.store import clearing
from backfill.store.database import Tx

#: Error text of what ran in a subdag when the task instance that stands for it was ended otherwise.
ABANDONED = "the task instance that stands for the subdag has ended"


@dataclass(frozen=True, slots=True)
class _OpenRuns:
    """The runs of one DAG that have not ended."""

    window: Family
    dag_id: str

    def runs(self) -> Sequence[RunFacts]:
        """Return them."""
        return self.window.open_runs(self.dag_id)


class FamilyTimeouts:
    """`RunTimeouts` for a job with subdags: what ends a run ends those of its subdags with it.

    That is its `dagrun_timeout`, and for the run of a subdag also the end of the task instance that stands for it, by
    `fail_stop` or by hand.
    """

    def __init__(self, window: Family, dags: Iterable[DAG], clock: Callable[[], float]) -> None:
        self._window = window
        self._each = [RunTimeouts(_OpenRuns(window, dag.dag_id), dag.dagrun_timeout, clock) for dag in dags]

    def due_in(self, now: datetime) -> float | None:
        """Return the seconds until a run may have to be ended; None if none ever has."""
        if self._window.abandoned():
            return 0.0
        return min((due for each in self._each if (due := each.due_in(now)) is not None), default=None)

    def write(self, tx: Tx) -> TimedOut:
        """Skip what is unfinished in the runs that have to end; the caller writes the outcomes."""
        outcomes: dict[int, RunOutcome] = {}
        rows: list[TaskInstanceFacts] = []
        for each in self._each:
            late = [run_id for top in each.lock(tx) for run_id in self._with_below(top) if run_id not in outcomes]
            outcomes |= {outcome.dag_run_id: outcome for outcome in outcomes_of(late)}
            rows += clearing.skip_if_unfinished(tx, late, each.error)
        left = [
            run_id for top in self._window.abandoned() for run_id in self._with_below(top.id) if run_id not in outcomes
        ]
        outcomes |= {run_id: RunOutcome(run_id, DagRunState.FAILED, "task_failure") for run_id in left}
        return TimedOut(list(outcomes.values()), rows + clearing.skip_if_unfinished(tx, left, ABANDONED))

    def _with_below(self, dag_run_id: int) -> list[int]:
        return [dag_run_id, *(run.id for run in self._window.open_below(dag_run_id))]
