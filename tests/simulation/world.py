"""A simulated world: jobs, their database, their broker, coordinators and workers, under one clock; and what must hold in it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any
from unittest import mock
from uuid import UUID

import model_attempts  # noqa: F401  # registers what answers the statements, with what it imports
import model_stops  # noqa: F401  # so does this
from frozen_time import UNTIL_IDLE, FrozenTime
from invariants import Invariants, teardowns
from model_database import Change, Database, Row
from planned_jobs import PlannedJob
from players import Broker, Coordinator, Death, Phase, Worker, finish
from scripts import DAY, FIRST, POOL, POOL_SLOTS, Script

from backfill.coordinator import orders
from backfill.dag import DAG
from backfill.exceptions import RefusedError
from backfill.states import ACTIVE_JOB, FINISHED, JobState, TaskInstanceState
from backfill.store import clearing, jobs
from backfill.store.attempts import Finish
from backfill.store.claims import Claim

#: Rounds in which a world that nothing disturbs any more must have come to its end.
_ROUNDS = 4000
WORKERS = 3

#: DAG, task, number of the day, map index.
Place = tuple[str, str, int, int]


class World:
    """Everything that acts, and the means to let it act."""

    def __init__(self, *scripts: Script, database: Callable[[FrozenTime], Any] | None = None) -> None:
        self.scripts = scripts
        self.settings = scripts[0].settings
        self.time = FrozenTime()
        self.database = database(self.time) if database else Database(self.time.now)
        self.invariants = Invariants(self)
        self.database.on_commit = self._note_commit
        self.broker = Broker()
        self.workers = [Worker(self, number) for number in range(WORKERS)]
        self.coordinators: list[Coordinator] = []
        self.operator = self.database.engine("operator")
        #: Task instances that somebody changed by hand: how those end is not the script's affair.
        self.touched: set[int] = set()
        #: Jobs that somebody cancelled.
        self.cancelled: set[int] = set()
        self._rescheduled: set[tuple[int, int]] = set()
        self._attempt_numbers = count(1)
        self._names = mock.patch("backfill.jobs.dispatch.new_attempt_ids", self._next_attempt_ids)
        self._names.start()
        self._portion = mock.patch("backfill.jobs.settling.MAPPED_PORTION", 1)  # coordinators die between two of them
        self._portion.start()
        self.database.add_pools({"default_pool": 128, POOL: POOL_SLOTS})
        self.jobs: list[PlannedJob] = []
        for each in scripts:
            self.jobs.append(PlannedJob.create(self.operator, each))

    @property
    def tables(self) -> Any:
        return self.database.tables

    @property
    def job(self) -> Row:
        """The row of the only job, or of the first."""
        return self.row_of(self.jobs[0])

    def row_of(self, job: PlannedJob) -> Row:
        return self.tables.job[job.id]

    def dag(self, dag_id: str) -> DAG:
        return next(job.dag for job in self.jobs if job.dag.dag_id == dag_id)

    def _next_attempt_ids(self, number: int) -> list[str]:
        return [str(UUID(int=next(self._attempt_numbers))) for _ in range(number)]

    def close(self) -> None:
        for coordinator in self.coordinators:
            coordinator.turns.kill()
        self._portion.stop()
        self._names.stop()

    # -- what is committed ----------------------------------------------------------------------------------------------

    def _note_commit(self, writer: str, changes: list[Change]) -> None:
        coordinator = next((each for each in self.coordinators if each.name == writer), None)
        try:
            self.invariants.check_commit(writer, coordinator, changes)
        except AssertionError as violation:  # in the thread of who wrote: told by the one that looks on
            self.invariants.violations.append(violation)

    # -- what workers are told by the script ----------------------------------------------------------------------------

    def day_of(self, ti: Row | Claim) -> int:
        return (self.tables.run[ti.dag_run_id].logical_date - FIRST) // DAY

    def script_of(self, ti: Row | Claim) -> Script:
        """Return what a task instance plays: of several jobs of one DAG that of the job which has its date."""
        day = self.day_of(ti)
        return next(job.script for job in self.jobs if job.dag.dag_id == ti.dag_id and day in job.script.all_days)

    def user_code_begins(self, worker: Worker, claim: Claim) -> None:
        self.invariants.check_begin(worker, claim)

    def finish_of(self, claim: Claim, *, stopped: bool) -> Finish:
        script, task_id, day = self.script_of(claim), claim.task_id, self.day_of(claim)
        outcome = "stopped" if stopped else script.outcome(task_id, day, claim.try_number)
        if outcome == "later" and (claim.task_instance_id, claim.try_number) in self._rescheduled:
            outcome = "success"
        value, skips = script.returned(task_id, day), script.skips(task_id, day)
        return finish(claim, outcome, at=self.time.now(), value=value, skips=skips)

    def stops_run(self, claim: Claim) -> set[str] | None:
        """Return what stays of a run in which this task has failed for good, where the DAG has `fail_stop` (S6.8)."""
        dag = self.dag(claim.dag_id)
        return {claim.task_id, *teardowns(dag)} if dag.fail_stop else None

    def note_finish(self, claim: Claim, finished: Finish) -> None:
        if finished.state == TaskInstanceState.UP_FOR_RESCHEDULE:
            self._rescheduled.add((claim.task_instance_id, claim.try_number))

    def stop_attempts(self, attempt_ids: set[str]) -> None:
        for worker in self.workers:
            if worker.begun is not None and worker.begun.attempt_id in attempt_ids:
                worker.stop()

    def idle_workers(self) -> list[Worker]:
        return [each for each in self.workers if not each.received and not each.claims and not each.is_frozen]

    def busy_workers(self) -> list[Worker]:
        return [each for each in self.workers if each.received or each.claims]

    def go_well(self) -> None:
        """Let everybody who can go on do the next that comes."""
        for coordinator in self.live_coordinators():
            coordinator.turns.go_on()
        for worker in self.idle_workers():
            if self.broker.messages:
                worker.received.append(self.broker.messages.pop(0))
        for worker in self.busy_workers():
            worker.step()
        if self.broker.events:
            self.deliver(0)

    # -- time -----------------------------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Let time go on: heartbeats come when they are due, and processes die that could not renew theirs."""
        end = self.time.seconds + seconds
        interval = self.settings.task.heartbeat_interval.total_seconds()
        while self.time.seconds < end:
            self.time.seconds = min(end, self.time.seconds + interval)
            for worker in self.workers:
                if worker.claims and self.time.seconds >= worker.deadline:
                    worker.die(Death.UNNOTICED)
                worker.beat()

    # -- the operator ---------------------------------------------------------------------------------------------------

    def start_coordinator(self, job: PlannedJob | None = None) -> Coordinator:
        coordinator = Coordinator(self, job or self.jobs[0], len(self.coordinators) + 1)
        self.coordinators.append(coordinator)
        return coordinator

    def live_coordinators(self, job: PlannedJob | None = None) -> list[Coordinator]:
        return [each for each in self.coordinators if not each.turns.ended and (job is None or each.planned is job)]

    def wake(self, job: PlannedJob) -> None:
        """Bring the operator's order to whoever listens at the job's stream."""
        for coordinator in self.live_coordinators():
            if coordinator.lease is not None and coordinator.planned is job:
                coordinator.mailbox.wake()

    def pause(self, job: PlannedJob) -> None:
        with suppress(RefusedError):
            orders.pause_job(self.operator, job.id)

    def resume(self, job: PlannedJob) -> None:
        """Lift a pause, as `backfill resume` does before or after it takes the lease."""
        with self.operator.begin() as tx:
            jobs.set_job_state_if(tx, job.id, {JobState.PAUSED}, JobState.RUNNING)

    def cancel(self, job: PlannedJob) -> None:
        with suppress(RefusedError):
            if orders.request_cancel(self.operator, job.id):
                self.cancelled.add(job.id)

    def clear(self, ti: Row) -> None:
        """Put a task instance back to the initial state, as `backfill clear` does."""
        retries = {ti.task_id: self.dag(ti.dag_id).task_dict[ti.task_id].retries}
        with self.operator.begin() as tx:
            timeout = self.settings.task.heartbeat_timeout
            if clearing.clear_task_instances(tx, [ti.dag_run_id], retries, ti_ids=[ti.id], heartbeat_timeout=timeout):
                self.touched.add(ti.id)

    def set_by_hand(self, ti: Row, state: str) -> None:
        self.touched.add(ti.id)
        self.database.set_state("operator", ti.id, state)

    def is_in_code(self, ti_id: int) -> bool:
        return any(claim.task_instance_id == ti_id for worker in self.workers for claim in worker.claims)

    # -- to the end -----------------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        return not any(self.row_of(job).state in ACTIVE_JOB for job in self.jobs) and not self.live_coordinators()

    def go_to_the_end(self) -> None:
        """Let everything come back and go on undisturbed, until the job has ended and nobody does anything any more."""
        self._heal()
        for _ in range(_ROUNDS):
            if self.is_over:
                break
            if not self._everybody_acts():
                self._sleep_until_something_is_due()
        else:
            raise AssertionError(f"the job does not come to its end: {self.describe()}")
        self._everybody_acts()
        self.invariants.check_all()

    def _heal(self) -> None:
        self.broker.is_away = False
        for worker in self.workers:
            worker.is_frozen = worker.is_cut_off = False
            worker.engine.faults.clear()
            if worker.claims and self.time.seconds >= worker.deadline:
                worker.die(Death.UNNOTICED)
        for coordinator in self.coordinators:
            coordinator.engine.faults.clear()
        self.operator.faults.clear()

    def _everybody_acts(self) -> bool:
        acted = False
        for job in self.jobs:
            if self.row_of(job).state == JobState.PAUSED:
                self.resume(job)
                self.wake(job)
                acted = True
            if self.row_of(job).state in ACTIVE_JOB and not self.live_coordinators(job):
                self.start_coordinator(job)
        for coordinator in self.live_coordinators():
            if coordinator.turns.can_go_on:
                coordinator.turns.go_on(UNTIL_IDLE)
                acted |= coordinator.end != "not free"
        for worker in self.workers:
            if not worker.received and not worker.claims and self.broker.messages:
                worker.received.append(self.broker.messages.pop(0))
            while worker.can_go_on:
                worker.step()
                acted = True
        while self.broker.events:
            self.deliver(0)
            acted = True
        self.invariants.check_all()
        return acted

    def deliver(self, number: int, *, keep: bool = False) -> None:
        event = self.broker.events[number] if keep else self.broker.events.pop(number)
        for coordinator in self.live_coordinators():
            coordinator.hear(event)

    def _sleep_until_something_is_due(self) -> None:
        sleepers = [each.turns.asleep_until for each in self.live_coordinators()]
        due = [moment for moment in sleepers if moment is not None and moment != float("inf")]
        self.advance(max(0.001, min(due, default=self.time.seconds + 5) - self.time.seconds))

    # -- what came of it ------------------------------------------------------------------------------------------------

    def place(self, ti: Row) -> Place:
        return ti.dag_id, ti.task_id, self.day_of(ti), ti.map_index

    def states(self) -> dict[Place, tuple[str, int]]:
        """Return state and number of tries of each task instance."""
        return {self.place(ti): (ti.state, ti.try_number) for ti in self.tables.ti.values() if ti.state != "removed"}

    def ends(self) -> dict[str, Any]:
        """Return all that must not depend on speed, order, workers, window, pauses or restarts (S0.3)."""
        runs = {(run.dag_id, (run.logical_date - FIRST) // DAY): run.state for run in self.tables.run.values()}
        return {"jobs": [self.row_of(job).state for job in self.jobs], "runs": runs, "task instances": self.states()}

    def unfinished(self) -> list[Row]:
        return [ti for ti in self.tables.ti.values() if ti.state not in FINISHED]

    def describe(self) -> str:
        """Return how things stand, for messages."""
        rows = [f"{self.place(ti)} {ti.state} {ti.external_executor_id or ''}" for ti in self.tables.ti.values()]
        who = [f"{each.name}: {each.end or each.turns.asleep_until}" for each in self.coordinators]
        busy = [f"{each.name}: {each.phase.name}" for each in self.workers if each.phase is not Phase.IDLE]
        return "\n  ".join(
            [f"at {self.time.seconds:g} s {[self.row_of(job) for job in self.jobs]}", *rows, *who, *busy]
        )


def faultless(*scripts: Script) -> dict[str, Any]:
    """Return how jobs end that nothing disturbs."""
    world = World(*scripts)
    try:
        world.go_to_the_end()
        return world.ends()
    finally:
        world.close()
