"""What the loop knows of its task instances: seven buckets, and each key in exactly one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, MutableMapping, MutableSet
from datetime import datetime
from typing import NamedTuple, assert_never

from backfill.facts import RunFacts, TaskInstanceFacts
from backfill.keys import TaskInstanceKey
from backfill.states import TaskInstanceState


class TaskInstance(NamedTuple):
    """A task instance in the window: its key and its row as last read."""

    key: TaskInstanceKey
    facts: TaskInstanceFacts


class BlockedTask(NamedTuple):
    """A task instance that can never run (S9.3), and why."""

    ti: TaskInstance
    run: RunFacts
    #: What it waits for, in words.
    reason: str
    #: It waits for the run before its own, and for nothing else.
    waits_for_past: bool


class DagRunTaskStatus:
    """Buckets of task instances, active runs and run counts of one job (`BackfillJob._DagRunTaskStatus`).

    Only runs in the window have keys here; those that left are remembered as numbers in `departed`. Nothing else moves keys:

    * `to_run`: idle, waits for its turn; `running`: in flight (S8.7)
    * `succeeded`, `skipped`, `failed`: finished (`failed` holds `upstream_failed` too)
    * `not_ready`, `deadlocked`: idle when the loop came to rest; `deadlocked` ones can never run (S9.3)
    """

    def __init__(
        self,
        to_run: MutableMapping[TaskInstanceKey, TaskInstance] | None = None,
        running: MutableMapping[TaskInstanceKey, TaskInstance] | None = None,
        skipped: MutableSet[TaskInstanceKey] | None = None,
        succeeded: MutableSet[TaskInstanceKey] | None = None,
        failed: MutableSet[TaskInstanceKey] | None = None,
        not_ready: MutableSet[TaskInstanceKey] | None = None,
        deadlocked: MutableSet[TaskInstanceKey] | None = None,
        active_runs: MutableMapping[int, RunFacts] | None = None,
        executed_dag_run_dates: MutableSet[datetime] | None = None,
        finished_runs: int = 0,
        total_runs: int = 0,
    ) -> None:
        self.to_run = {} if to_run is None else to_run
        self.running = {} if running is None else running
        self.skipped = set() if skipped is None else skipped
        self.succeeded = set() if succeeded is None else succeeded
        self.failed = set() if failed is None else failed
        self.not_ready = set() if not_ready is None else not_ready
        self.deadlocked = set() if deadlocked is None else deadlocked
        #: Runs in the window, by id.
        self.active_runs = {} if active_runs is None else active_runs
        self.executed_dag_run_dates = set() if executed_dag_run_dates is None else executed_dag_run_dates
        self.finished_runs = finished_runs
        self.total_runs = total_runs
        #: Task instances of runs that left the window, by final state.
        self.departed: Counter[TaskInstanceState] = Counter()
        #: What `deadlocked` holds, with the reasons.
        self.blocked: list[BlockedTask] = []
        #: Runs whose `dagrun_timeout` ran out.
        self.timed_out: list[RunFacts] = []
        self._observed: list[TaskInstanceFacts] | None = None
        self._put = {str(state): self._put_into_bucket_of(state) for state in TaskInstanceState}

    def _put_into_bucket_of(self, state: TaskInstanceState) -> Callable[[TaskInstanceKey, TaskInstance], None]:
        """Return what puts a task instance where those in `state` belong; those that are `removed` belong nowhere."""
        match state:
            case TaskInstanceState.SUCCESS:
                return lambda key, _: self.succeeded.add(key)
            case TaskInstanceState.SKIPPED:
                return lambda key, _: self.skipped.add(key)
            case TaskInstanceState.FAILED | TaskInstanceState.UPSTREAM_FAILED:
                return lambda key, _: self.failed.add(key)
            case TaskInstanceState.QUEUED | TaskInstanceState.RUNNING:
                return self.running.__setitem__
            case (
                TaskInstanceState.NONE
                | TaskInstanceState.SCHEDULED
                | TaskInstanceState.UP_FOR_RETRY
                | TaskInstanceState.UP_FOR_RESCHEDULE
            ):
                return self.to_run.__setitem__
            case TaskInstanceState.REMOVED:
                return lambda _, __: None
            case unknown:
                assert_never(unknown)

    def sort(self, ti: TaskInstance) -> None:
        """Put `ti` into the bucket of its row's state, whatever was remembered of it (S8.7)."""
        self.forget(ti.key)
        self._put[ti.facts.state](ti.key, ti)

    def observe(self, rows: Iterable[TaskInstanceFacts]) -> None:
        """Keep rows as just read, until `observed` hands them over to be sorted."""
        self._observed = [*(self._observed or ()), *rows]

    def observed(self) -> list[TaskInstanceFacts] | None:
        """Hand over the rows kept by `observe`; None if it was not called since."""
        rows, self._observed = self._observed, None
        return rows

    def forget(self, key: TaskInstanceKey) -> None:
        """Take `key` out of whichever bucket holds it."""
        self.to_run.pop(key, None)
        self.running.pop(key, None)
        for bucket in (self.succeeded, self.skipped, self.failed, self.not_ready, self.deadlocked):
            bucket.discard(key)

    def block(self, blocked: BlockedTask) -> None:
        """Sort a task instance that can never run."""
        self.forget(blocked.ti.key)
        self.deadlocked.add(blocked.ti.key)
        self.blocked.append(blocked)

    def rest(self) -> None:
        """Sort what is left to run when the loop has come to its end: it was never ready."""
        self.not_ready |= self.to_run.keys()
        self.to_run.clear()

    def give_back(self, run: RunFacts, task_instances: Iterable[TaskInstance]) -> None:
        """Let a run leave the window that will come again: it counts as one of those not admitted."""
        self.active_runs.pop(run.id, None)
        for ti in task_instances:
            self.forget(ti.key)

    def let_go(self, run: RunFacts, task_instances: Iterable[TaskInstance]) -> None:
        """Let a run leave the window: its keys go, their numbers stay."""
        self.active_runs.pop(run.id, None)
        self.finished_runs += 1
        # those that are deadlocked stay named to the end
        gone = {ti.key: ti.facts.state for ti in task_instances if ti.key not in self.deadlocked}
        keys = set(gone)
        self.succeeded -= keys
        self.skipped -= keys
        self.failed -= keys
        self.not_ready -= keys
        for key in gone:
            self.to_run.pop(key, None)
            self.running.pop(key, None)
        for word, count in Counter(gone.values()).items():
            self.departed[TaskInstanceState(word)] += count
