"""What executors reported, carried to the rows that it is about, and what no event announces, found there (section 8)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence, Set as AbstractSet
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from backfill.engine.retries import retry_delay
from backfill.executors import LocalExecutor, Unsent
from backfill.facts import RunFacts, TaskInstanceFacts
from backfill.jobs.base_job import PORTION, Workplace
from backfill.jobs.callbacks import RunCallbacks
from backfill.jobs.course import Course
from backfill.jobs.dispatch import queued_attempt
from backfill.jobs.fail_stop import stop_rest_of_run
from backfill.jobs.task_status import TaskInstance
from backfill.jobs.verdict import (
    Failed,
    Lost,
    Verdict,
    heartbeat_ran_out,
    is_stale,
    judge,
    lost,
    never_claimed,
    orphaned,
)
from backfill.keys import TaskInstanceKey
from backfill.messages import ExecutorEvent
from backfill.states import IN_FLIGHT, TaskInstanceState
from backfill.store import attempts, recovery, task_instances
from backfill.store.attempts import Stopped
from backfill.store.database import Tx
from backfill.store.recovery import Failure, Loss, Swept

logger = logging.getLogger(__name__)

Running = Mapping[TaskInstanceKey, TaskInstance]


class Reconciler:
    """Carries what was reported to the rows that it is about, and what follows into the database."""

    def __init__(self, job_id: int, course: Course, workplace: Workplace, callbacks: RunCallbacks) -> None:
        self._job_id = job_id
        self._course = course
        self._workplace = workplace
        self._callbacks = callbacks
        #: Runs that the present sweep has not come to.
        self._to_sweep: list[int] = []
        #: Processes, by host and process id, that were lost with several attempts in hand.
        self._held_several: set[tuple[str | None, int]] = set()

    # -- events ---------------------------------------------------------------------------------------------------------

    def reconcile(
        self, events: Sequence[ExecutorEvent], running: Running, session: Session | None = None
    ) -> list[TaskInstanceFacts]:
        """Set right what disagrees with `events`, and return the rows that they are about, as they are now (S8.1, S8.2).

        Events about attempts that are not `running` as far as is known are stale, and cost no query.
        """
        current: dict[int, ExecutorEvent] = {}
        for event in events:
            if self._is_current(event, running):
                current[event.task_instance_id] = event
            else:
                _drop(event)
        if not current:
            return []
        self._course.isolate(current.values())
        ids = sorted(current)
        rows, shortest_wait = self._workplace.read(lambda tx: task_instances.select_reported(tx, ids), session)
        self._course.rhythm.workers_kept_waiting(shortest_wait)
        disagreeing = [row for row in rows if row.state in IN_FLIGHT or is_stale(current[row.id], row)]
        hosts = self._hosts_of([row for row in disagreeing if row.state == TaskInstanceState.RUNNING], session)
        verdicts = [
            verdict
            for row in disagreeing
            if (verdict := self._judge(current[row.id], row, hosts.get(row.id))) is not None
        ]
        if not verdicts:
            return rows
        return self._carry_out(verdicts, ids, session)

    def _is_current(self, event: ExecutorEvent, running: Running) -> bool:
        """Return whether `event` is about an attempt that is running as far as is known."""
        if not self._course.window.knows(event.task_instance_id):
            return False
        ti = running.get(self._course.window.key(event.task_instance_id))
        return ti is not None and ti.facts.attempt_id == event.attempt_id

    def begin_sweep(self) -> None:
        """Have all runs of the window looked at, portion by portion."""
        self._to_sweep = self._course.window.run_ids()

    def sweep_on(self, session: Session | None = None) -> list[TaskInstanceFacts]:
        """Look at the next portion of a sweep that has begun, if any is left, and return what `sweep` returns."""
        portion: list[int] = []
        size = 0
        while self._to_sweep and size < PORTION:
            portion.append(self._to_sweep.pop())
            size += self._course.window.size_of(portion[-1])
        if self._to_sweep:
            self._course.rhythm.go_on()
        return self.sweep(portion, session) if portion else []

    def sweep(self, dag_run_ids: Sequence[int], session: Session | None = None) -> list[TaskInstanceFacts]:
        """Look for what no event announces in runs of the window, and return what changed (S0.1, S8.4).

        That is: rows changed by others, zombies, lost messages, and the end of runs outside the window that somebody waits for.
        """
        window, task = self._course.window, self._workplace.settings.task
        held_back = sorted(set(window.held_by_previous()) & set(dag_run_ids))
        seen = self._workplace.read(
            lambda tx: recovery.sweep_runs(
                tx,
                self._job_id,
                dag_run_ids,
                heartbeat_timeout=task.heartbeat_timeout,
                queued_timeout=task.queued_timeout,
            ),
            session,
        )
        previous = self._workplace.read(lambda tx: self._course.previous_of(tx, held_back), session)
        for dag_run_id, found in previous.items():
            window.update_previous(dag_run_id, found)
        events = self._lost_in(seen, session)
        self._course.isolate(events)
        by_id = {row.id: row for row in seen.rows}
        verdicts = [
            verdict
            for event in events
            if (row := by_id.get(event.task_instance_id)) and (verdict := self._judge(event, row)) is not None
        ]
        if not verdicts:
            return seen.rows
        ids = [verdict.task_instance_id for verdict in verdicts]
        unclaimed = {each.facts.id for each in seen.unclaimed}
        return seen.rows + self._carry_out(verdicts, ids, session, unclaimed=unclaimed)

    def _lost_in(self, seen: Swept, session: Session | None) -> list[ExecutorEvent]:
        """Return an infrastructure failure for each zombie and each lost message (S8.4)."""
        task = self._workplace.settings.task
        held = self._held({each.facts.attempt_id for each in seen.unclaimed if each.facts.attempt_id})
        in_company = self._lost_in_company(seen.zombies, session)
        events = [
            lost(zombie.facts, orphaned(zombie.hostname))
            if zombie.given_up
            else lost(
                zombie.facts,
                heartbeat_ran_out(task.heartbeat_timeout, zombie.hostname),
                alone=zombie.facts.id in in_company,
            )
            for zombie in seen.zombies
        ]
        events += [
            lost(each.facts, never_claimed(task.queued_timeout))
            for each in seen.unclaimed
            if each.facts.attempt_id not in held
        ]
        return events

    def _lost_in_company(self, zombies: Sequence[recovery.InFlight], session: Session | None) -> set[int]:
        """Return those of `zombies` whose process held several attempts: it ran one of them, and nobody knows which (S8.3)."""
        ids = [zombie.facts.id for zombie in zombies if not zombie.given_up]
        if not ids:
            return set()
        holders = self._workplace.read(lambda tx: recovery.select_holders(tx, self._job_id, ids), session)
        # remembered: when the last of them is found, the others may have been written off already
        self._held_several |= {(each.hostname, each.pid) for each in holders.values() if each.held > 1}
        return {ti_id for ti_id, each in holders.items() if (each.hostname, each.pid) in self._held_several}

    def look_back(self, session: Session | None = None) -> None:
        """Read again how the runs outside of the window stand that runs in it wait for (S4.9)."""
        window = self._course.window
        waiting = window.awaiting_previous()
        if waiting:
            found = self._workplace.read(lambda tx: self._course.previous_of(tx, waiting), session)
            for dag_run_id in waiting:
                window.update_previous(dag_run_id, found.get(dag_run_id))

    def give_up(self, dates: Collection[datetime], session: Session | None = None) -> set[datetime]:
        """Let nobody wait any longer for what the job was to do at `dates` and will not (S9.3); return those that runs waited for."""
        window = self._course.window
        found = self._workplace.read(lambda tx: self._course.previous_of(tx, window.awaiting_previous()), session)
        forsaken = {run_id: previous for run_id, previous in found.items() if previous.logical_date in dates}
        for run_id, previous in forsaken.items():
            window.update_previous(run_id, previous._replace(driven=False))
        return {previous.logical_date for previous in forsaken.values()}

    def read_again(self, running: Running, session: Session | None = None) -> list[TaskInstanceFacts]:
        """Return the rows of all that is thought to be running."""
        ids = sorted(ti.facts.id for ti in running.values())
        return self._workplace.read(lambda tx: task_instances.select_facts(tx, ids), session)

    def _hosts_of(self, disagreeing: Sequence[TaskInstanceFacts], session: Session | None) -> dict[int, str]:
        """Return where task instances run, by id; what was reported of is mostly not in flight any more, and costs no query."""
        ids = [row.id for row in disagreeing]
        return self._workplace.read(lambda tx: recovery.select_hosts(tx, ids), session) if ids else {}

    def _judge(self, event: ExecutorEvent, row: TaskInstanceFacts, host: str | None = None) -> Verdict | None:
        verdict = judge(
            event,
            row,
            self._course.window.key(row.id),
            budget=self._course.budget,
            retries=self._course.task(row).retries,
            host=host,
        )
        if verdict is not None:
            logger.warning("%s", verdict.error)
        elif is_stale(event, row):
            _drop(event)
        return verdict

    def _carry_out(
        self,
        verdicts: Sequence[Verdict],
        ids: Sequence[int],
        session: Session | None,
        *,
        taken_back: Sequence[tuple[int, str]] = (),
        unclaimed: AbstractSet[int] = frozenset(),
    ) -> list[TaskInstanceFacts]:
        """Write `verdicts`, and what is `taken_back` besides; return the rows of `ids`, and call what failed ones are owed.

        Verdicts about what was `unclaimed` hold only as long as it is.
        """
        without_claim = [(v.task_instance_id, v.attempt_id) for v in verdicts if v.task_instance_id in unclaimed]

        def write(tx: Tx) -> tuple[set[int], list[TaskInstanceFacts], list[str]]:
            task_instances.take_back_if_queued(tx, taken_back)
            claimed = unclaimed - recovery.lock_unclaimed(tx, without_claim)
            due = [verdict for verdict in verdicts if verdict.task_instance_id not in claimed]
            losses = [Loss(v.task_instance_id, v.attempt_id, v.error, v.charged) for v in due if isinstance(v, Lost)]
            recovery.lose_if_current(tx, losses)
            failed = recovery.fail_if_current(tx, [self._failure(v) for v in due if isinstance(v, Failed)])
            rows = task_instances.select_facts(tx, ids)
            ended = [row for row in rows if row.id in failed and row.state == TaskInstanceState.FAILED]
            stopped = [each for row in ended for each in self._stop_rest_of_run(tx, row)]
            rows += task_instances.select_facts(tx, [each.task_instance_id for each in stopped])
            return failed, rows, [each.attempt_id for each in stopped if each.attempt_id]

        failed, rows, stopped = self._workplace.write(write, session)
        self.stop(stopped)
        errors = {verdict.task_instance_id: verdict.error for verdict in verdicts}
        for ti in self._course.task_instances(row for row in rows if row.id in failed):
            self._callbacks.fire_of_task(self._course.window.run(ti.facts.dag_run_id), ti, errors[ti.facts.id])
        return rows

    def _stop_rest_of_run(self, tx: Tx, row: TaskInstanceFacts) -> list[Stopped]:
        key = self._course.window.key(row.id)
        return stop_rest_of_run(tx, self._course.compiled.dags[key.dag_id], row.dag_run_id, key)

    def _failure(self, verdict: Failed) -> Failure:
        delay = self._delay(self._course.window.facts(verdict.task_instance_id)) if verdict.retry else None
        return Failure(verdict.task_instance_id, verdict.attempt_id, verdict.error, delay)

    def _delay(self, row: TaskInstanceFacts) -> timedelta:
        logical_date = self._course.window.run(row.dag_run_id).logical_date
        return retry_delay(self._course.task(row), logical_date, row.try_number)

    # -- who holds what -------------------------------------------------------------------------------------------------

    def take_charge(
        self, dag_runs: Sequence[RunFacts], in_flight: Sequence[TaskInstance], session: Session | None = None
    ) -> list[TaskInstanceFacts]:
        """Adopt what is in flight in runs that others left, and reset what nobody holds (S8.6); return the rows as they are then."""
        self._adopt(in_flight)
        for run in dag_runs:
            self.reset_orphans(run.id, session)
        return self.sweep([run.id for run in dag_runs], session)

    def _adopt(self, found: Sequence[TaskInstance]) -> None:
        """Let the executors take charge of what somebody else handed over and nobody has claimed; what runs is reported all the same."""
        unclaimed = [
            queued_attempt(self._course, ti.facts, self._workplace.settings)
            for ti in found
            if ti.facts.state == TaskInstanceState.QUEUED and ti.facts.attempt_id is not None
        ]
        for executor in self._workplace.executors.values():
            executor.adopt(unclaimed)

    def reset_orphans(self, dag_run_id: int | None, session: Session | None = None) -> int:
        """Set to `none` what nobody holds (S8.5), in one run or (None) in all that are running; return how many."""
        in_flight = self._workplace.read(lambda tx: recovery.select_in_flight(tx, self._job_id), session)
        held = self._held({each.facts.attempt_id for each in in_flight if each.facts.attempt_id})
        timeout = self._workplace.settings.lease_timeout
        return self._workplace.write(
            lambda tx: recovery.reset_orphans(tx, self._job_id, timeout, held=held, dag_run_id=dag_run_id), session
        )

    def _held(self, attempt_ids: set[str]) -> set[str]:
        if not attempt_ids:
            return set()
        return set().union(*(executor.holds(attempt_ids) for executor in self._workplace.executors.values()))

    # -- the operator ---------------------------------------------------------------------------------------------------

    def stop(self, attempt_ids: Sequence[str]) -> None:
        """Stop the processes that run these attempts, whose rows say otherwise by now."""
        if attempt_ids:
            for executor in self._workplace.executors.values():
                executor.terminate(attempt_ids)

    def take_back_unclaimed(self, running: Running, session: Session | None = None) -> list[TaskInstanceFacts]:
        """Take back what no worker has claimed (S3.8), and return the rows of all that was in flight as they are now."""
        attempts = [(ti.facts.id, ti.facts.attempt_id) for ti in running.values() if ti.facts.attempt_id]
        self._workplace.write(lambda tx: task_instances.take_back_if_queued(tx, attempts), session)
        rows = self.read_again(running, session)
        current = {row.attempt_id for row in rows}
        revoked = [attempt_id for _, attempt_id in attempts if attempt_id not in current]  # whoever took them back
        for executor in self._workplace.executors.values():
            executor.revoke(revoked)
        return rows

    def take_back_unsent(
        self, queued: Sequence[TaskInstanceFacts], unsent: Sequence[Unsent], session: Session | None = None
    ) -> list[TaskInstanceFacts]:
        """Take back what was not sent since the broker is away, at no cost; what an executor rejects is lost (S7.3, S8.3).

        Returns the rows of both as they are now.
        """
        by_attempt = {row.attempt_id: row for row in queued}
        away = [(by_attempt[each.attempt_id].id, each.attempt_id) for each in unsent if each.broker_away]
        rejected = [(by_attempt[each.attempt_id], each.reason) for each in unsent if not each.broker_away]
        verdicts = [verdict for row, reason in rejected if (verdict := self._judge(lost(row, reason), row)) is not None]
        ids = [by_attempt[each.attempt_id].id for each in unsent]
        return self._carry_out(verdicts, ids, session, taken_back=away)

    def stop_local_processes(self, running: Running, session: Session | None = None) -> None:
        """End the task processes that this process started, and hand their attempts back at no cost (S11.4, S3.15)."""
        local = self._workplace.executors.get(LocalExecutor.name)
        if local is None:
            return
        held = local.holds(ti.facts.attempt_id for ti in running.values() if ti.facts.attempt_id)
        # the processes end with the executor, just after this; what they still write is fenced out by then
        self._workplace.write(lambda tx: attempts.hand_back_if_running(tx, held), session)


def _drop(event: ExecutorEvent) -> None:
    logger.debug("Stale: attempt %s of task instance %d is %s", event.attempt_id, event.task_instance_id, event.state)
