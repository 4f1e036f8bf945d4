"""Runs come into the window and leave it: dates are admitted, ends are written, a cleared date gets the place of a later run (S2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy.orm import Session

from backfill.engine.window import RunOutcome
from backfill.facts import RunFacts
from backfill.jobs.admission import CROWDED_OUT, GIVEN_BACK, GIVEN_UP, Admission, Admitted, OpenedRuns
from backfill.jobs.base_job import BaseJob, Workplace
from backfill.jobs.bookkeeping import Bookkeeping
from backfill.jobs.callbacks import RunCallbacks
from backfill.jobs.course import Course
from backfill.jobs.reconcile import Reconciler
from backfill.jobs.settling import end_runs, outcomes_at_the_end
from backfill.jobs.task_status import DagRunTaskStatus, TaskInstance
from backfill.jobs.timeouts import attempts_to_stop
from backfill.states import IN_FLIGHT, DagRunState
from backfill.telemetry import Note, RunAdmitted, RunSettled


@dataclass(frozen=True, slots=True, kw_only=True)
class Turnover:
    """Lets runs in and out; each step commits what it writes before the window learns of it."""

    job: BaseJob
    course: Course
    books: Bookkeeping
    reconciler: Reconciler
    callbacks: RunCallbacks
    #: Whether the operator lets the job begin anything.
    dispatches: Callable[[], bool]

    @property
    def _workplace(self) -> Workplace:
        return self.job.at_work()

    # -- in -------------------------------------------------------------------------------------------------------------

    def admit(self, run_dates: Admission, ti_status: DagRunTaskStatus, session: Session | None) -> None:
        """Let the dates whose turn it is into the window, as many as there is room for (S2.13)."""
        if self._may_admit(run_dates, len(ti_status.active_runs)):
            admitted = self._workplace.write_under_limits(
                lambda tx, _: run_dates.admit_next(tx), [self.job.dag_id], [], session
            )
            self._take_in_admitted(run_dates, admitted, ti_status, session)

    def _may_admit(self, run_dates: Admission, active_runs: int) -> bool:
        """Return whether to look for dates whose turn it is, with so many of this job's runs in the window."""
        allowed = self.dispatches() and self.course.policy.admits and not self.course.rhythm.admission
        return allowed and run_dates.worth_a_look(active_runs)

    def _take_in_admitted(
        self, run_dates: Admission, admitted: Admitted, ti_status: DagRunTaskStatus, session: Session | None
    ) -> None:
        run_dates.confirm(admitted)
        if run_dates.has_more:
            self.course.rhythm.go_on_with_runs()
        if run_dates.waits_for_others:
            self.course.rhythm.hold_until_others_move(self.course.rhythm.admission)
        if run_dates.crowded_out(admitted):
            self._workplace.telemetry.emit(Note(self.job.id, CROWDED_OUT.format(self.job.dag_id)))
        self.course.count_as_done(ti_status, admitted.done)
        self.let_in(admitted.opened, ti_status, session)

    def let_in(self, opened: OpenedRuns, ti_status: DagRunTaskStatus, session: Session | None) -> None:
        """Take runs and their task instances into the window."""
        in_flight: list[TaskInstance] = []
        for run in opened.runs:
            if run.dag_id == self.job.dag_id:  # those of subdags do not count (S2.3)
                ti_status.active_runs[run.id] = run
                self._workplace.telemetry.emit(RunAdmitted(self.job.id, run.run_id))
            ti_status.executed_dag_run_dates.add(run.logical_date)
            rows = opened.rows.get(run.id, [])
            self.course.window.admit(run, rows, first=self.course.is_first(run), previous=opened.previous.get(run.id))
            for ti in self.course.task_instances(row for row in rows if self.course.window.knows(row.id)):
                self.books.sort(ti_status, ti)
                if ti.facts.state in IN_FLIGHT:
                    in_flight.append(ti)
        if in_flight:
            self.books.observe(ti_status, self.reconciler.take_charge(opened.runs, in_flight, session))

    # -- one in the place of another ------------------------------------------------------------------------------------

    def make_way(self, ti_status: DagRunTaskStatus, session: Session | None) -> bool:
        """Where the window waits for a date that was cleared, let that have the place of a later run (S2.13); True: go on at once.

        If it will never come, nobody drives it any more, and what waits for it is blocked (S9.3).
        """
        course = self.course
        awaited = course.cleared_dates_awaited(ti_status.active_runs.values()) if self.dispatches() else set()
        if not awaited:
            return False
        if course.policy.admits:
            run = course.run_to_give_back(ti_status.active_runs.values())
            if run is not None:
                return self._give_back(run, ti_status, session)
            if course.admission.may_find_room:
                return False
        given_up = self.reconciler.give_up(awaited, session)
        if given_up:
            self._workplace.telemetry.emit(Note(self.job.id, GIVEN_UP.format(min(given_up).isoformat())))
        return bool(given_up)

    def _give_back(self, run: RunFacts, ti_status: DagRunTaskStatus, session: Session | None) -> bool:
        opened = self._workplace.write_under_limits(
            lambda tx, _: self.course.admission.admit_in_place_of(tx, run), [self.job.dag_id], [], session
        )
        if opened is None:
            return False
        ti_status.give_back(run, self.course.remove(run))
        self._workplace.telemetry.emit(Note(self.job.id, GIVEN_BACK.format(run.run_id)))
        self.let_in(opened, ti_status, session)
        return True

    # -- out ------------------------------------------------------------------------------------------------------------

    def time_out(self, ti_status: DagRunTaskStatus, session: Session | None) -> list[RunOutcome]:
        """Skip what is unfinished in runs whose `dagrun_timeout` is over, stop what runs of it, and return their ends (S6.6)."""
        if self.course.timeouts.due_in(self._workplace.lease.now()) != 0:
            return []
        timed_out = self._workplace.write(self.course.timeouts.write, session)
        self.reconciler.stop(attempts_to_stop(timed_out.rows, self.course.window))
        self.books.observe(ti_status, timed_out.rows)
        ti_status.timed_out.extend(run for run in ti_status.active_runs.values() if timed_out.is_about(run))
        return timed_out.outcomes

    def ends_may_wait(self, outcomes: Sequence[RunOutcome]) -> bool:
        """Return whether nothing depends on when `outcomes` are written: no failure is among them, nothing can time out meanwhile."""
        succeed = all(outcome.state == DagRunState.SUCCESS for outcome in outcomes)
        goes_on = self.dispatches() and self.course.policy.dispatches
        return (
            bool(outcomes) and succeed and goes_on and self.course.timeouts.due_in(self._workplace.lease.now()) is None
        )

    def end(self, outcomes: Sequence[RunOutcome], ti_status: DagRunTaskStatus, session: Session | None) -> None:
        """Write how runs ended, let them leave the window, and tell of it."""
        if not outcomes:
            return
        ended, admitted = self._write_ends(outcomes, ti_status, session)
        for outcome in ended:
            run = ti_status.active_runs.get(outcome.dag_run_id)
            if run is not None:  # that of a subdag stays until the run leaves that it belongs to
                ti_status.let_go(run, self.course.remove(run))
        self.reconciler.look_back(session)
        if admitted is not None:
            self._take_in_admitted(self.course.admission, admitted, ti_status, session)

    def close(self, dag_runs: Iterable[RunFacts], session: Session | None) -> None:
        """Write the ends of runs that nothing can finish any more, at the end of the job (S9.4)."""
        if outcomes := outcomes_at_the_end(self.course, dag_runs):
            self._write_ends(outcomes, DagRunTaskStatus(), session, at_the_end=True)

    def _write_ends(
        self,
        outcomes: Sequence[RunOutcome],
        ti_status: DagRunTaskStatus,
        session: Session | None,
        *,
        at_the_end: bool = False,
    ) -> tuple[Sequence[RunOutcome], Admitted | None]:
        """Write how runs ended, and with those of subdags the task instances that stand for them (S13.4); return what held.

        Where the dates of the job go on in any case, those whose turn it is are admitted in the same transaction.
        """
        end = partial(end_runs, self.course, outcomes, at_the_end=at_the_end)
        if not at_the_end and self._admits_after(outcomes, ti_status):
            ended, admitted = self._workplace.write_under_limits(
                lambda tx, _: (end(tx), self.course.admission.admit_next(tx)), [self.job.dag_id], [], session
            )
        else:
            ended, admitted = self._workplace.write(end, session), None
        mirrored = ended.mirrored
        self.reconciler.stop(mirrored.attempts)
        for outcome in ended.outcomes:
            run = self.course.window.run(outcome.dag_run_id)
            self.course.count_end(outcome)
            self.callbacks.fire(run, outcome.state, outcome.reason)
            if run.dag_id == self.job.dag_id:
                self._workplace.telemetry.emit(RunSettled(self.job.id, run.run_id, outcome.state, outcome.reason))
        self.books.observe(ti_status, (*ended.changed, *mirrored.ended, *mirrored.stopped))
        self.course.note_ends_of_subdags(ended.outcomes)
        for ti in self.course.task_instances(mirrored.ended):
            self.callbacks.fire_of_task(self.course.window.run(ti.facts.dag_run_id), ti, mirrored.errors[ti.facts.id])
        return ended.outcomes, admitted

    def _admits_after(self, outcomes: Sequence[RunOutcome], ti_status: DagRunTaskStatus) -> bool:
        """Return whether dates may be admitted once `outcomes` are written: a failed run may be what stops the job (S9.1)."""
        leave = sum(outcome.dag_run_id in ti_status.active_runs for outcome in outcomes)
        succeed = all(outcome.state == DagRunState.SUCCESS for outcome in outcomes)
        return succeed and self._may_admit(self.course.admission, len(ti_status.active_runs) - leave)
