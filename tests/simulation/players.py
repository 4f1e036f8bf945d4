"""Who acts in a simulated world: coordinators, which are the real ones, a model of the broker, and a model of the workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Any, TypeVar

from frozen_time import FrozenMailbox, FrozenTime, Turns
from planned_jobs import PlannedJob
from sqlalchemy.exc import OperationalError

from backfill.coordinator.drive import drive
from backfill.coordinator.lease import HeldLease
from backfill.exceptions import BackfillUnfinished, Interrupted, LeaseLost, ServiceUnavailable
from backfill.executors import BaseExecutor, QueuedAttempt, Unsent
from backfill.jobs import BackfillJob
from backfill.jobs.base_job import Workplace
from backfill.jobs.task_status import DagRunTaskStatus
from backfill.messages import Attempt, ExecutorEvent
from backfill.states import TaskInstanceState
from backfill.store.attempts import (
    Finish,
    finish_if_current,
    give_up_heartbeats,
    hand_back_if_running,
    renew_heartbeats,
    select_cancelled,
    stop_run_after_failure,
)
from backfill.store.claims import Claim, claim_if_queued, unclaim_if_running
from backfill.telemetry import Telemetry

T = TypeVar("T")
_S = TaskInstanceState

#: As the Celery executor has it: so long a message counts as known after it left the queue.
_FRESH = 10.0


@dataclass
class Broker:
    """Messages to workers and events to coordinators, in whatever order somebody delivers them."""

    messages: list[Attempt] = field(default_factory=list)
    events: list[ExecutorEvent] = field(default_factory=list)
    is_away: bool = False

    def flush(self) -> None:
        self.messages.clear()
        self.events.clear()

    def publish(self, event: ExecutorEvent) -> None:
        if not self.is_away:
            self.events.append(event)


class ModelExecutor(BaseExecutor):
    """Sends through the model of the broker, as the Celery executor does through Redis."""

    name = "celery"

    def __init__(self, turns: Turns, broker: Broker, terminate: Callable[[set[str]], None]) -> None:
        super().__init__()
        self._turns = turns
        self._broker = broker
        self._terminate = terminate
        self._sent: dict[str, float] = {}
        self.reported_running: set[str] = set()

    def queue_task_instances(self, attempts: Sequence[QueuedAttempt]) -> list[Unsent]:
        self._turns.turn()
        if self._broker.is_away:
            return [Unsent(each.attempt.attempt_id, "it is away", broker_away=True) for each in attempts]
        for each in attempts:
            self._broker.messages.append(each.attempt)
            self._sent[each.attempt.attempt_id] = self._turns.monotonic()
        return []

    def holds(self, attempt_ids: Iterable[str]) -> set[str]:
        wanted = set(attempt_ids)
        if self._broker.is_away:
            return wanted
        waiting = {message.attempt_id for message in self._broker.messages}
        since = self._turns.monotonic() - _FRESH
        fresh = {attempt_id for attempt_id, sent in self._sent.items() if sent > since}
        return wanted & (waiting | fresh | self.reported_running)

    def adopt(self, attempts: Sequence[QueuedAttempt]) -> set[str]:
        return self.holds(queued.attempt.attempt_id for queued in attempts)

    def revoke(self, attempt_ids: Iterable[str]) -> None:
        self._turns.turn()
        unwanted = set(attempt_ids)
        if not self._broker.is_away:
            self._broker.messages[:] = [each for each in self._broker.messages if each.attempt_id not in unwanted]

    def terminate(self, attempt_ids: Iterable[str]) -> None:
        self._turns.turn()
        if not self._broker.is_away:
            self._terminate(set(attempt_ids))

    def end(self) -> None:
        pass


class Coordinator:
    """A process that takes the job's lease if that is free, and drives the job: all of it the real code."""

    def __init__(self, world: Any, planned: PlannedJob, number: int) -> None:
        self.name = f"coordinator {number}"
        self.planned = planned
        self._world = world
        self.turns = Turns(world.time, self.name, self._act)
        self.engine = world.database.engine(self.name, self.turns.turn)
        self.mailbox = FrozenMailbox(self.turns)
        self.lease: HeldLease | None = None
        self.job: BackfillJob | None = None
        self.executor = ModelExecutor(self.turns, world.broker, world.stop_attempts)
        #: How it ended: a job state, or what stopped it.
        self.end: str | None = None
        #: Anything but the ends that are foreseen.
        self.error: BaseException | None = None
        #: The loop's buckets, while it sleeps and they are complete.
        self.ti_status: DagRunTaskStatus | None = None
        self.is_interrupted = False
        self.rests_in_the_loop = False

    @property
    def epoch(self) -> int | None:
        return None if self.lease is None else self.lease.epoch

    def _act(self) -> None:
        try:
            self.end = self._drive()
        except (LeaseLost, Interrupted, ServiceUnavailable) as stopped:
            self.end = type(stopped).__name__
        except BackfillUnfinished as unfinished:
            self.end = str(unfinished.report.state)
        except Exception as error:  # noqa: BLE001  # whatever it is: a coordinator must not fail so
            self.end, self.error = "internal error", error

    def _drive(self) -> str:
        world = self._world
        self.lease = HeldLease.take_if_free(
            self.engine, self.planned.id, holder=self.name, settings=world.settings, clock=self.turns
        )
        if self.lease is None:
            return "not free"
        self.job = self.planned.read(world.row_of(self.planned))
        self._watch(self.job)
        workplace = Workplace(
            engine=self.engine,
            settings=world.settings,
            telemetry=Telemetry(),
            lease=self.lease,
            executors={self.executor.name: self.executor},
            database_url="",
            broker_url="",
            mailbox=self.mailbox,
            clock=self.turns,
        )
        return str(drive(self.job, workplace, self.lease, resumed=True).state)

    def _watch(self, job: BackfillJob) -> None:
        """Have a look at the loop's buckets whenever it rests."""
        log_progress, wait = job._log_progress, job._wait

        def noting(ti_status: DagRunTaskStatus) -> None:
            self.ti_status = ti_status
            log_progress(ti_status)

        def resting() -> None:
            self.rests_in_the_loop = True
            wait()
            self.rests_in_the_loop = False

        job._log_progress = noting  # type: ignore[method-assign]
        job._wait = resting  # type: ignore[method-assign]

    def hear(self, event: ExecutorEvent) -> None:
        if self.turns.ended or self.lease is None:
            return
        if event.state == _S.RUNNING:
            self.executor.reported_running.add(event.attempt_id)
        else:
            self.executor.reported_running.discard(event.attempt_id)
        self.mailbox.put(event)


class Phase(Enum):
    """Where a worker's process is with the attempt that it has begun."""

    IDLE = "nothing is claimed"
    IN_CODE = "user code runs"
    ENDED = "user code has ended, and the finish is still to be written"


class Death(Enum):
    """How the process of a worker ends before its attempt."""

    UNNOTICED = "with its worker"
    NOTICED = "its main process tells of it"
    ORPHANED = "it has lost its main process, and gives up its heartbeat itself"


class Worker:
    """A worker: one process at a time, which takes messages, claims them together, and runs them one after the other.

    Heartbeats come by themselves as time goes on, unless it is frozen or cut off; a process that could not renew them dies in time.
    """

    def __init__(self, world: Any, number: int) -> None:
        self.name = f"worker {number}"
        self._world = world
        self._time: FrozenTime = world.time
        self.engine = world.database.engine(self.name)
        self.is_frozen = False
        self.is_cut_off = False
        #: Messages that were received and not yet claimed.
        self.received: list[Attempt] = []
        #: Claimed attempts; the first is the one that was begun.
        self.claims: deque[Claim] = deque()
        self.phase = Phase.IDLE
        self._renewed = 0.0
        self._told_to_stop = False
        self._was_renewed = False

    @property
    def begun(self) -> Claim | None:
        return self.claims[0] if self.claims else None

    @property
    def can_go_on(self) -> bool:
        return not self.is_frozen and bool(self.received or self.claims)

    @property
    def deadline(self) -> float:
        """When its process dies if no heartbeat is renewed before (S7.6)."""
        task = self._world.settings.task
        return self._renewed + (task.heartbeat_timeout - 2 * task.heartbeat_interval).total_seconds()

    def step(self) -> None:
        """Do what comes next; each is one transaction, or one span of user code."""
        if self.is_frozen:
            return
        match self.phase:
            case Phase.IDLE if self.received:
                if not self.is_cut_off:
                    self._claim()
            case Phase.IN_CODE:
                self.phase = Phase.ENDED
            case Phase.ENDED:
                if not self.is_cut_off:
                    self._finish()

    def _transact(self, work: Callable[[Any], T]) -> T:
        """Repeat until it is committed and the answer has come, as the workers' ledger does."""
        while True:
            try:
                with self.engine.begin() as tx:
                    return work(tx)
            except OperationalError:
                continue

    def _claim(self) -> None:
        attempts, self.received = self.received, []
        self._renewed, self._was_renewed = self._time.seconds, False

        self.claims.extend(self._transact(lambda tx: claim_if_queued(tx, attempts, hostname=self.name, pid=1)))
        self._begin()

    def _begin(self) -> None:
        """Let the first of the claimed attempts run, if it is still ours to run."""
        self._told_to_stop = False
        self.phase = Phase.IN_CODE if self.claims else Phase.IDLE
        if self.claims:
            self._world.user_code_begins(self, self.claims[0])

    def _finish(self) -> None:
        claim = self.claims[0]
        finish = self._world.finish_of(claim, stopped=self._told_to_stop)
        stops = self._world.stops_run(claim) if finish.state == _S.FAILED else None
        unbegun = [other.attempt_id for other in self.claims if other is not claim] if stops else []

        def work(tx: Any) -> set[str]:
            took_effect = finish_if_current(tx, [finish])
            unclaim_if_running(tx, unbegun)
            if stops and took_effect:
                stop_run_after_failure(tx, claim.dag_run_id, spared_task_ids=stops, error="fail_stop")
            return took_effect

        took_effect = self._transact(work)
        self.claims.popleft()
        if unbegun:
            self.claims.clear()
        if took_effect:
            self._world.note_finish(claim, finish)
            self._world.broker.publish(ExecutorEvent(finish.task_instance_id, finish.attempt_id, finish.state))
        if self.claims and claim.attempt_id not in took_effect:
            self.beat()  # what else was claimed may have been taken from us as well
        self._begin()

    def beat(self) -> None:
        """Renew the heartbeats, and stop what is not ours any more, or is to be cancelled."""
        if self.is_frozen or self.is_cut_off or not self.claims:
            return
        sent = self._time.seconds
        ids = [claim.attempt_id for claim in self.claims]

        def work(tx: Any) -> tuple[set[str], set[str]]:
            current = renew_heartbeats(tx, ids)
            return current, select_cancelled(tx, current)

        current, cancelled = self._transact(work)
        self._renewed = sent
        begun = self.claims[0]
        self.claims = deque(claim for claim in self.claims if claim.attempt_id in current)
        if begun.attempt_id not in current:
            self._begin()
        elif begun.attempt_id in cancelled:
            self.stop()
        elif not self._was_renewed:
            self._was_renewed = True
            self._world.broker.publish(ExecutorEvent(begun.task_instance_id, begun.attempt_id, _S.RUNNING))

    def stop(self) -> None:
        """Be told to stop the attempt that runs: SIGTERM."""
        if self.phase is Phase.IN_CODE and not self.is_frozen:
            self._told_to_stop = True
            self.phase = Phase.ENDED

    def die(self, how: Death) -> None:
        """Lose the process. Where its main process notices, that says so, and gives back what was not begun, at no cost."""
        begun, *others = self.claims or [None]
        self.claims.clear()
        self.received, self.phase = [], Phase.IDLE
        if begun is None or self.is_cut_off or how is Death.UNNOTICED:
            return
        self._transact(lambda tx: hand_back_if_running(tx, [claim.attempt_id for claim in others if claim]))
        if how is Death.ORPHANED:
            self._transact(lambda tx: give_up_heartbeats(tx, [begun.attempt_id]))
        lost = ExecutorEvent(begun.task_instance_id, begun.attempt_id, _S.FAILED, "it died", infrastructure=True)
        self._world.broker.publish(lost)

    def shut_down(self) -> None:
        """Be told to leave: all that it holds is handed back."""
        if self.is_frozen or self.is_cut_off:
            return
        ids = [claim.attempt_id for claim in self.claims]
        self.claims.clear()
        self.received, self.phase = [], Phase.IDLE
        if ids:
            self._transact(lambda tx: hand_back_if_running(tx, ids))


def finish(claim: Claim, outcome: str, *, at: Any, value: Any = None, skips: Sequence[str] | None = None) -> Finish:
    """Return how the attempt of `claim` ends."""
    ended: dict[str, Any] = {"task_instance_id": claim.task_instance_id, "attempt_id": claim.attempt_id}
    match outcome:
        case "success":
            xcoms = {} if value is None else {"return_value": value}
            return Finish(**ended, state=_S.SUCCESS, xcoms=xcoms, skips=skips)
        case "skipped":
            return Finish(**ended, state=_S.SKIPPED)
        case "later":
            return Finish(**ended, state=_S.UP_FOR_RESCHEDULE, reschedule_date=at + timedelta(seconds=3))
        case "failed" if claim.try_number <= claim.max_tries:
            return Finish(**ended, state=_S.UP_FOR_RETRY, error="as written", retry_delay=timedelta(seconds=7))
        case "failed" | "stopped":
            return Finish(**ended, state=_S.FAILED, error="as written")
        case _:
            raise ValueError(outcome)
