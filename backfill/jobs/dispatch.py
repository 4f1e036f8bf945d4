"""Ready task instances become attempts on their way to a worker (S5, S7.1 to S7.3)."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from backfill.engine.limits import Occupancy
from backfill.executors import BaseExecutor, QueuedAttempt, Unsent, normal_name
from backfill.facts import TaskInstanceFacts
from backfill.jobs.base_job import Workplace
from backfill.jobs.course import Course
from backfill.messages import Attempt
from backfill.store import task_instances
from backfill.store.database import Tx
from backfill.store.task_instances import QueueRequest
from backfill.telemetry import Note

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Placed:
    """What one look at the limits brought: rows that are `queued` now, and all rows that changed."""

    queued: list[TaskInstanceFacts]
    rows: list[TaskInstanceFacts]


class Dispatcher:
    """Gives ready task instances their place under all limits, and hands them to executors."""

    def __init__(self, job_id: int, course: Course, workplace: Workplace) -> None:
        self._job_id = job_id
        self._course = course
        self._workplace = workplace
        #: What occupied the limits at the last look; None before the first.
        self.occupancy: Occupancy | None = None

    def worth_a_look(self) -> bool:
        """Return whether something is ready, and not just held back by limits or a broker that is away."""
        rhythm = self._course.rhythm
        return self._course.window.ready_count() > 0 and not (rhythm.dispatch or rhythm.broker)

    def place(self, tx: Tx) -> Placed:
        """Check every limit, take the places and write `queued`, all in the transaction `tx` (S5.1).

        What is ready and got no place is written as `scheduled` (S3.2).
        """
        window, dag_id, pools = self._course.window, self._course.dag.dag_id, self._course.graph.pools
        sizes = task_instances.lock_limits(tx, [dag_id], pools)
        occupancy = Occupancy(task_instances.select_occupancy(tx, [dag_id], pools), pool_sizes=sizes)
        picked = window.pick(occupancy, self._workplace.settings.core.parallelism or None)
        self.occupancy = occupancy
        requests = [self._request(ti_id) for ti_id in picked]
        turn = {ti_id: number for number, ti_id in enumerate(picked)}
        # messages leave in the order of S5.5
        queued = sorted(task_instances.queue_if_idle(tx, self._job_id, requests), key=lambda row: turn[row.id])
        waiting = sorted(task_instances.schedule_if_idle(tx, window.ready_unplaced(picked)))
        refused = sorted(set(picked) - {row.id for row in queued})
        if len(picked) < window.ready_count():
            self._course.rhythm.hold_until_others_move(self._course.rhythm.dispatch)
        return Placed(queued, queued + task_instances.select_facts(tx, waiting + refused))

    def publish(self, rows: Sequence[TaskInstanceFacts], *, default: BaseExecutor) -> list[Unsent]:
        """Hand the attempts of `rows` to their executors; return those that could not be sent.

        `default` takes the task instances whose task names no executor. While the broker is away nothing more is dispatched,
        for growing pauses (S7.3).
        """
        by_executor: dict[str, list[QueuedAttempt]] = defaultdict(list)
        for row in rows:
            own = self._course.dag.task_dict[row.task_id].executor
            by_executor[normal_name(own) if own else default.name].append(self._attempt(row))
        unsent: list[Unsent] = []
        for name, attempts in by_executor.items():
            unsent += self._workplace.executors[name].queue_task_instances(attempts)
        if any(each.broker_away for each in unsent):
            pause = self._course.rhythm.broker_failed()
            text = f"The broker does not answer ({unsent[0].reason}); dispatch goes on in {pause:g} s."
            self._workplace.telemetry.emit(Note(self._job_id, text, logging.WARNING))
        elif rows:
            self._course.rhythm.broker_answered()
        return unsent

    def _request(self, ti_id: int) -> QueueRequest:
        task = self._course.dag.task_dict[self._course.window.facts(ti_id).task_id]
        return QueueRequest(
            task_instance_id=ti_id,
            attempt_id=str(uuid4()),
            pool=self._course.request.pool or task.pool,
            executor=task.executor or self._course.request.executor,
        )

    def _attempt(self, row: TaskInstanceFacts) -> QueuedAttempt:
        if row.attempt_id is None:
            raise ValueError(f"task instance {row.id} was queued without an attempt id")
        return QueuedAttempt(
            attempt=Attempt(row.id, self._course.window.key(row.id), row.attempt_id, row.try_number),
            queue=self._course.dag.task_dict[row.task_id].queue or self._workplace.settings.celery.queue,
            logical_date=self._course.window.run(row.dag_run_id).logical_date,
            alone=self._course.travels_alone(row),
        )
