"""Runs attempts in processes of this machine, without a broker."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from backfill.executors.base import BaseExecutor, ExecutorContext, QueuedAttempt, Unsent
from backfill.executors.child import Child, ChildGone
from backfill.executors.environment import settings_environment
from backfill.messages import Attempt, Bundle, ExecutorEvent
from backfill.states import IN_FLIGHT, TaskInstanceState

logger = logging.getLogger(__name__)

#: How long a process that was told to stop may take before it is killed (S7.6).
TERMINATE_PATIENCE = timedelta(seconds=60)
#: The same when the executor ends: the operator is waiting.
END_PATIENCE = timedelta(seconds=10)


@dataclass(slots=True, eq=False)
class Lane:
    """A thread, the process that it serves, and the attempt that the process runs."""

    thread: threading.Thread
    child: Child | None = None
    attempt: Attempt | None = None


class LocalExecutor(BaseExecutor):
    """Runs up to `parallelism` attempts at once, each in a process that serves one after the other.

    0 means `worker.concurrency`, which is the number of cores unless set. A process is started when there is work for it, and
    replaced when it dies; the attempt that it ran is then reported as an infrastructure failure (S8.3).
    """

    name = "local"

    def __init__(self, parallelism: int = 0) -> None:
        super().__init__()
        self.parallelism = parallelism
        self._environment: dict[str, str] = {}
        self._lanes: list[Lane] = []
        self._ending = False
        self._waiting: deque[Attempt] = deque()
        #: Guards all of the above; notified when there is work, and at the end.
        self._changed = threading.Condition()

    def start(self, context: ExecutorContext) -> None:
        """Get ready; processes are started when there is work for them."""
        super().start(context)
        self.parallelism = self.parallelism or context.settings.worker.concurrency or os.cpu_count() or 1
        settings = context.settings.override("the local executor", {"database.url": context.database_url})
        self._environment = settings_environment(settings, os.environ)

    def queue_task_instances(self, attempts: Sequence[QueuedAttempt]) -> list[Unsent]:
        """Put `attempts` in line; nothing is ever unsent."""
        with self._changed:
            self._waiting.extend(queued.attempt for queued in attempts)
            idle = sum(lane.attempt is None for lane in self._lanes)
            for _ in range(min(len(self._waiting) - idle, self.parallelism - len(self._lanes))):
                self._open_lane()
            self._changed.notify(len(attempts))
        return []

    def holds(self, attempt_ids: Iterable[str]) -> set[str]:
        """Return those of `attempt_ids` that wait in line or run in one of the processes."""
        with self._changed:
            known = {attempt.attempt_id for attempt in self._waiting}
            known.update(lane.attempt.attempt_id for lane in self._lanes if lane.attempt is not None)
        return known.intersection(attempt_ids)

    def adopt(self, attempts: Sequence[QueuedAttempt]) -> set[str]:
        """Return the ids of those that are held already: processes of another executor ended with it (S8.3)."""
        return self.holds(queued.attempt.attempt_id for queued in attempts)

    def revoke(self, attempt_ids: Iterable[str]) -> None:
        """Take attempts out of the line."""
        unwanted = set(attempt_ids)
        with self._changed:
            self._waiting = deque(attempt for attempt in self._waiting if attempt.attempt_id not in unwanted)

    def terminate(self, attempt_ids: Iterable[str]) -> None:
        """Stop the processes that run these attempts: SIGTERM, SIGKILL 60 s later."""
        unwanted = set(attempt_ids)
        with self._changed:
            for lane in self._lanes:
                if lane.child is not None and lane.attempt is not None and lane.attempt.attempt_id in unwanted:
                    lane.child.stop(TERMINATE_PATIENCE)

    def kill(self) -> None:
        """Kill every process and what it started; without a lock, which the interrupted thread may hold."""
        self._ending = True
        for lane in tuple(self._lanes):
            if lane.child is not None:
                lane.child.kill_at_once()

    def end(self) -> None:
        """Stop every process, at last with SIGKILL, and wait until all are gone."""
        with self._changed:
            self._ending = True  # a process that is just being started is dismissed by its lane
            for lane in self._lanes:
                if lane.child is not None:
                    lane.child.dismiss(END_PATIENCE)
        self._close_lanes()

    def leave(self) -> None:
        """Start nothing more and wait until what runs has ended by itself, however long that takes."""
        with self._changed:
            running = sum(lane.attempt is not None for lane in self._lanes)
        if running:
            logger.warning(
                "%d task processes of this machine are left to end by themselves, which is waited for", running
            )
        self._close_lanes()

    def _close_lanes(self) -> None:
        with self._changed:
            self._ending = True
            self._waiting.clear()
            self._changed.notify_all()
        for lane in self._lanes:
            lane.thread.join()
        self._lanes.clear()

    def _open_lane(self) -> None:
        thread = threading.Thread(target=lambda: self._serve(lane), name=f"backfill-local-{len(self._lanes)}")
        lane = Lane(thread)
        self._lanes.append(lane)
        thread.start()

    def _serve(self, lane: Lane) -> None:
        """Take attempts from the line and run them, until the end."""
        while (attempt := self._next(lane)) is not None:
            self._run(lane, attempt)
        self._renew(lane, None)

    def _next(self, lane: Lane) -> Attempt | None:
        with self._changed:
            while not self._waiting and not self._ending:
                self._changed.wait()
            lane.attempt = None if self._ending else self._waiting.popleft()
            return lane.attempt

    def _run(self, lane: Lane, attempt: Attempt) -> None:
        try:
            for event in self._usable_child(lane).run(self._bundle(attempt)):
                if event.attempt_id == attempt.attempt_id and event.state not in IN_FLIGHT:
                    self._free(lane)  # before the loop hears of it, which may send the next attempt at once
                self.context.mailbox.put(event)
        except (ChildGone, OSError) as error:
            self._renew(lane, None)
            if lane.attempt is not None:
                self.context.mailbox.put(_lost(attempt, error))
        self._free(lane)

    def _usable_child(self, lane: Lane) -> Child:
        if lane.child is None or not lane.child.usable:
            self._renew(lane, Child(self._environment))
        assert lane.child is not None
        return lane.child

    def _renew(self, lane: Lane, child: Child | None) -> None:
        """Give `lane` another process, or none, and let go of the one that it had."""
        with self._changed:
            former, lane.child = lane.child, child
            if self._ending and child is not None:  # it was started while `end` looked at the others
                child.dismiss(END_PATIENCE)
        if former is not None:
            former.close()

    def _free(self, lane: Lane) -> None:
        with self._changed:
            lane.attempt = None

    def _bundle(self, attempt: Attempt) -> Bundle:
        # the pipe takes the events, so no stream is named
        return Bundle(job_id=self.context.job_id, dag=self.context.dag_source, attempts=(attempt,), stream="")


def _lost(attempt: Attempt, error: Exception) -> ExecutorEvent:
    return ExecutorEvent(
        attempt.task_instance_id, attempt.attempt_id, TaskInstanceState.FAILED, str(error), infrastructure=True
    )
