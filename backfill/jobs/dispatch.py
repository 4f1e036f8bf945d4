"""Ready task instances become attempts on their way to a worker (S5, S7.1 to S7.3)."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backfill.config import Settings
from backfill.engine.limits import Occupancy
from backfill.executors import BaseExecutor, QueuedAttempt, Unsent, normal_name
from backfill.facts import TaskInstanceFacts
from backfill.jobs.base_job import PORTION, Workplace
from backfill.jobs.course import Course
from backfill.messages import Attempt
from backfill.states import TaskInstanceState
from backfill.store import task_instances
from backfill.store.database import Tx
from backfill.store.task_instances import QueueRequest
from backfill.telemetry import Note

#: How many of the task instances that have to wait for a place one round writes as `scheduled`.
MARKED_AT_ONCE = 2 * PORTION

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
        return self._course.window.ready_count() > 0 and not (rhythm.dispatch or rhythm.broker) and self._at_once() > 0

    def _at_once(self) -> int:
        """Return how many attempts executors would have now; none until they report something if they have enough to learn from."""
        in_flight = self._course.window.counts().running
        wanted = [executor.appetite(in_flight) for executor in self._workplace.executors.values()]
        limited = [most for most in wanted if most is not None]
        return PORTION if len(limited) < len(wanted) else min([PORTION, *limited])

    def place(self, tx: Tx, pool_sizes: Mapping[str, int]) -> Placed:
        """Check every limit, take the places and write `queued`, all in the transaction `tx`, which has locked the limits (S5.1).

        What is ready and got no place is written as `scheduled` (S3.2).
        """
        window, rhythm, compiled = self._course.window, self._course.rhythm, self._course.compiled
        rows = task_instances.select_occupancy(tx, list(compiled.dags), compiled.pools, apart=compiled.limited_task_ids)
        self.occupancy = occupancy = Occupancy(rows, pool_sizes=pool_sizes)
        counted = sum(occupancy.by_dag[dag_id] for dag_id in compiled.dags)
        at_once = self._at_once()
        picked = window.pick(occupancy, self._workplace.settings.core.parallelism or None, at_once=at_once)
        requests = [self._request(*given) for given in zip(picked, new_attempt_ids(len(picked)), strict=True)]
        self._course.places_counted = counted + len(picked)
        is_portion = len(picked) == PORTION
        unplaced = [] if is_portion else window.ready_unplaced(picked)
        changed = task_instances.queue_if_idle(tx, self._job_id, requests, waiting=unplaced[:MARKED_AT_ONCE])
        queued = {row.id: row for row in changed if row.state == TaskInstanceState.QUEUED}
        scheduled = [row for row in changed if row.id not in queued]
        in_turn = [queued[ti_id] for ti_id in picked if ti_id in queued]  # messages leave in the order of S5.5
        refused = task_instances.select_facts(tx, [ti_id for ti_id in picked if ti_id not in queued])
        if is_portion or len(unplaced) > MARKED_AT_ONCE:
            rhythm.go_on()
        elif len(picked) < window.ready_count():
            rhythm.hold_until_others_move(rhythm.dispatch)
        return Placed(in_turn, in_turn + scheduled + refused)

    def publish(self, rows: Sequence[TaskInstanceFacts], *, default: BaseExecutor) -> list[Unsent]:
        """Hand the attempts of `rows` to their executors; return those that could not be sent.

        `default` takes the task instances whose task names no executor. While the broker is away nothing more is dispatched,
        for growing pauses (S7.3).
        """
        by_executor: dict[str, list[QueuedAttempt]] = defaultdict(list)
        for row in rows:
            own = self._course.task(row).executor
            by_executor[normal_name(own) if own else default.name].append(
                queued_attempt(self._course, row, self._workplace.settings)
            )
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

    def _request(self, ti_id: int, attempt_id: str) -> QueueRequest:
        task, request = self._course.task_of(ti_id), self._course.compiled.request
        return QueueRequest(ti_id, attempt_id, request.pool or task.pool, task.executor or request.executor)


def queued_attempt(course: Course, row: TaskInstanceFacts, settings: Settings) -> QueuedAttempt:
    """Return the attempt of a `queued` task instance for its executor."""
    if row.attempt_id is None:
        raise ValueError(f"task instance {row.id} was queued without an attempt id")
    return QueuedAttempt(
        attempt=Attempt(row.id, course.window.key(row.id), row.attempt_id, row.try_number),
        queue=course.task(row).queue or settings.celery.queue,
        logical_date=course.window.run(row.dag_run_id).logical_date,
        alone=course.travels_alone(row),
    )


def new_attempt_ids(count: int) -> list[str]:
    """Return random UUIDs (version 4); by the thousand `uuid.uuid4` takes several times as long."""
    drawn = os.urandom(16 * count).hex()
    return [
        f"{each[:8]}-{each[8:12]}-4{each[13:16]}-{'89ab'[int(each[16], 16) & 3]}{each[17:20]}-{each[20:]}"
        for each in (drawn[start : start + 32] for start in range(0, 32 * count, 32))
    ]
