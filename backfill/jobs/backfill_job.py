"""The loop that drives a backfill. Read `BackfillJob._execute_for_run_dates` first: each line of it is a method below.

The database is the truth and every message is a hint (S0.1). The engine (`backfill.engine`) decides in memory, the store
(`backfill.store`) writes with guards, executors carry attempts to workers; this class carries facts from one to the other and
knows nothing of how they do it. Cost grows with what changed, never with the range.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session, reconstructor

from backfill.clock import as_utc
from backfill.dag import DAG
from backfill.executors import BaseExecutor
from backfill.facts import RunFacts, TaskInstanceFacts
from backfill.jobs.admission import Admission
from backfill.jobs.base_job import PORTION, BaseJob, Lease, Workplace
from backfill.jobs.bookkeeping import Bookkeeping
from backfill.jobs.callbacks import RunCallbacks
from backfill.jobs.cancel import Cancellation
from backfill.jobs.conclusion import collect_errors, conclude, progress
from backfill.jobs.consequences import Consequences
from backfill.jobs.control import Control
from backfill.jobs.course import Course
from backfill.jobs.dispatch import Dispatcher
from backfill.jobs.parameters import request_of
from backfill.jobs.reconcile import Reconciler
from backfill.jobs.report import Report, ReportedError
from backfill.jobs.request import BackfillRequest
from backfill.jobs.routing import executor_names
from backfill.jobs.task_status import DagRunTaskStatus, TaskInstance
from backfill.jobs.turnover import Turnover
from backfill.jobs.waits import Waits
from backfill.keys import TaskInstanceKey
from backfill.states import JobState, Reprocess, TaskInstanceState
from backfill.store import task_instances
from backfill.store.dates import PlannedDate
from backfill.telemetry import Dispatched, Event, Note
from backfill.timetables import RunDate


class BackfillJob(BaseJob):
    """Runs a DAG over a range of logical dates, whatever fails around it.

    Parameters are Airflow's by name and meaning (semantics, section 10). `start_date` and `end_date` bound the range, both
    included; a missing start is the DAG's, a missing end is now. `executor` runs tasks that name no executor of their own.
    `run()` creates the job and drives it; steps with an underscore are the loop's and expect the job to be at work. Each step
    commits what it writes before it returns, in the `session` where one is given.
    """

    __mapper_args__ = {"polymorphic_identity": "BackfillJob"}  # noqa: RUF012  # SQLAlchemy reads it from the class

    STATES_COUNT_AS_RUNNING = (TaskInstanceState.RUNNING, TaskInstanceState.QUEUED)
    _DagRunTaskStatus = DagRunTaskStatus

    def __init__(
        self,
        dag: DAG,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
        mark_success: bool = False,
        donot_pickle: bool = False,
        ignore_first_depends_on_past: bool = False,
        ignore_task_deps: bool = False,
        pool: str | None = None,
        delay_on_limit_secs: float = 1.0,
        verbose: bool = False,
        conf: dict[str, Any] | None = None,
        rerun_failed_tasks: bool = False,
        run_backwards: bool = False,
        *args: Any,
        executor: BaseExecutor | None = None,
        run_at_least_once: bool = False,
        continue_on_failures: bool = False,
        disable_retry: bool = False,
        max_active_runs: int | None = None,
        reprocess: Reprocess | str | None = None,
        max_failures: int | str | None = None,
        task_regex: str | None = None,
        ignore_dependencies: bool = False,
        **kwargs: Any,
    ) -> None:
        self.request = request_of(locals())
        super().__init__(dag.dag_id, *args, **kwargs)
        self.dag: DAG | None = dag
        self.executor = executor
        self.control = Control()

    @classmethod
    def from_request(cls, dag: DAG, request: BackfillRequest) -> BackfillJob:
        """Return a job that is asked to do `request`; its executor is loaded by name when the job is driven."""
        job = cls(dag)
        job.request = request
        return job

    def uses_celery(self) -> bool:
        """Return whether any chosen task goes to a Celery worker, so that the job needs a broker."""
        if self.dag is None:
            raise ValueError(f"job {self.id} was read from its row; give it its DAG first")
        return "celery" in executor_names(self.dag, self.request)

    @reconstructor
    def _from_row(self) -> None:
        """Know the parameters again after the row was read; the DAG is given by whoever drives the job."""
        self.request = BackfillRequest.from_json(self.params)
        self.dag = None
        self.executor = None
        self.control = Control()

    def run(self) -> Report:
        """Create the job and drive it in this process until it has settled (S1.9).

        Servers are those of the settings, embedded ones where none are configured. Returns the report on success, and an
        empty one if there was nothing to do. Raises `BackfillUnfinished` for every other end, and another `BackfillError`
        if the job was refused.
        """
        from backfill.bootstrap import run_job  # noqa: PLC0415  # the one door from a job up to the composition root

        return run_job(self)

    # -- the drive ------------------------------------------------------------------------------------------------------

    def take_up_work(self, workplace: Workplace) -> None:
        """Get ready to be driven by this process, by the means of `workplace`."""
        if self.dag is None:
            raise ValueError(f"job {self.id} was read from its row; give it its DAG first")
        self.workplace = workplace
        self.course = Course.begin(
            job_id=self.id,
            dag=self.dag,
            request=self.request,
            settings=workplace.settings,
            total_runs=self.total_runs,
            clock=workplace.clock,
        )
        self._dispatcher = Dispatcher(self.id, self.course, workplace)
        self._waits = Waits(self.course.window, workplace.settings.core.parallelism or None)
        self._callbacks = RunCallbacks(self.dag)
        self._reconciler = Reconciler(self.id, self.course, workplace, self._callbacks)
        self._books = Bookkeeping(self, self.course)
        self._turnover = Turnover(
            job=self,
            course=self.course,
            books=self._books,
            reconciler=self._reconciler,
            callbacks=self._callbacks,
            dispatches=lambda: self._dispatches,
        )
        self._consequences = Consequences(
            job=self, course=self.course, books=self._books, reconciler=self._reconciler, turnover=self._turnover
        )
        self.control.wake_by(workplace.mailbox)
        for executor in workplace.executors.values():
            self.control.before_leaving_at_once(executor.kill)

    def _execute(self, session: Session | None = None) -> Report:
        """Drive the job from whatever its rows say to its end, and return the report (S9.4)."""
        with ExitStack() as at_the_end:
            self.at_work().start_executors(self.source_for_workers(), at_the_end)
            at_the_end.callback(self._callbacks.end, meanwhile=self.at_work().lease.renew_if_due)
            ti_status = self._take_over(session)
            executors = self.at_work().executors
            # where every task names its own, the job's may be none of them: whichever stands in gets nothing
            executor = executors.get(self.request.executor) or next(iter(executors.values()))
            self._execute_for_run_dates(
                self.course.admission, ti_status, executor, self.dag_pickle_hash, self.request.start_date, session
            )
            if self._is_cancelled:
                return Cancellation(self.id, self.at_work(), check=self.control.check).carry_out()
            self._turnover.end(self.course.stuck_outcomes(ti_status), ti_status, session)
            self._set_unfinished_dag_runs_to_failed(ti_status.active_runs.values(), session)
            ti_status.rest()
            self.course.pace.end()
            self.course.throttle.open()
            self._log_progress(ti_status)
        return conclude(self, self.course, ti_status, self._collect_errors(ti_status, session))

    def _execute_for_run_dates(
        self,
        run_dates: Admission,
        ti_status: DagRunTaskStatus,
        executor: BaseExecutor,
        pickle_id: str | None,
        start_date: datetime | None,
        session: Session | None = None,
    ) -> None:
        """Admit `run_dates` in order and go round until nothing can go any more (S9.4)."""
        while True:
            self.course.rhythm.begin_round()
            self._admit(run_dates, ti_status, session)
            self._process_backfill_task_instances(ti_status, executor, pickle_id, start_date, session)
            if self._settle_runs(ti_status, session):
                self.at_work().lease.renew_if_due()
                continue  # places in the window are free
            if self._turnover.make_way(ti_status, session):
                continue
            self._log_progress(ti_status)
            if self._is_over(run_dates):
                return
            self._wait()
            self._obey(ti_status, session)
            ti_status.observe(self._manage_executor_state(ti_status.running, session))
            self._update_counters(ti_status, session)

    def _take_over(self, session: Session | None) -> DagRunTaskStatus:
        """Read what an earlier holder left in the rows: adopt what runs, reset what nobody holds (S8.6)."""
        ti_status = DagRunTaskStatus(total_runs=self.total_runs)
        left = self.at_work().read(self.course.read_left, session)
        self.course.count_departed(ti_status, left)
        self._task_instances_for_dag_runs(left.runs, ti_status, session)
        if left.runs:  # they may wait for dates that were cleared, and leave no room to look for these
            self.at_work().read(self.course.admission.read_again, session)
        return ti_status

    def _is_over(self, run_dates: Admission) -> bool:
        """Return whether no further date will be admitted and no task instance can go any more (S9.4)."""
        if self._is_cancelled:
            return True
        return self._dispatches and self.course.nothing_can_go(run_dates)  # a pause ends by the operator's word

    @property
    def _is_cancelled(self) -> bool:
        return self.at_work().lease.control.cancel_requested

    @property
    def _dispatches(self) -> bool:
        return self.control.dispatches(self.at_work().lease.control)

    # -- dates become runs ----------------------------------------------------------------------------------------------

    def _admit(self, run_dates: Admission, ti_status: DagRunTaskStatus, session: Session | None) -> None:
        """Let the dates whose turn it is into the window, as many as there is room for (S2.13)."""
        self._turnover.admit(run_dates, ti_status, session)

    def _get_dag_run(
        self, run_date: PlannedDate | RunDate | datetime, dag: DAG, session: Session | None = None
    ) -> RunFacts | None:
        """Create or take the run of one date of this job (S2.10, S2.11); None while `max_active_runs` has no room."""
        if dag.dag_id != self.dag_id:
            raise ValueError(f"job {self.id} is about DAG {self.dag_id!r}, not {dag.dag_id!r}")
        logical_date = as_utc(run_date if isinstance(run_date, datetime) else run_date.logical_date)
        return self.at_work().write(lambda tx: self.course.admission.admit_if_room(tx, logical_date), session)

    def _task_instances_for_dag_run(
        self, dag_run: RunFacts, session: Session | None = None
    ) -> dict[TaskInstanceKey, TaskInstance]:
        """Bring a run's task instances in line with the DAG, write those that are ready as `scheduled` (S2.12, S3.2).

        Returns those that are still to run, by key.
        """
        ti_status = DagRunTaskStatus()
        self._task_instances_for_dag_runs([dag_run], ti_status, session)
        self._consequences.carry_out_decisions(ti_status, session)
        ready = self.course.window.ready_unplaced()
        self.at_work().write(lambda tx: task_instances.schedule_if_idle(tx, ready), session)
        self._books.observe(ti_status, self.at_work().read(lambda tx: task_instances.select_facts(tx, ready), session))
        return dict(ti_status.to_run)

    def _task_instances_for_dag_runs(
        self, dag_runs: Sequence[RunFacts], ti_status: DagRunTaskStatus, session: Session | None
    ) -> None:
        """Bring the task instances of `dag_runs` in line with the DAG (S2.12) and take them into the window."""
        if dag_runs:
            opened = self.at_work().write(lambda tx: self.course.open_runs(tx, dag_runs), session)
            self._turnover.let_in(opened, ti_status, session)

    # -- ready task instances become attempts ---------------------------------------------------------------------------

    def _process_backfill_task_instances(
        self,
        ti_status: DagRunTaskStatus,
        executor: BaseExecutor,
        pickle_id: str | None,  # noqa: ARG002  # the signature is public; executors learnt it at their start
        start_date: datetime | None = None,  # noqa: ARG002  # as above; the course knows the range
        session: Session | None = None,
    ) -> None:
        """Settle what its dependencies decide, and send what is ready to the executors, within all limits (S4, S5, S7)."""
        self._consequences.carry_out_decisions(ti_status, session)
        if not (self._dispatches and self.course.policy.dispatches):
            return
        self._consequences.start_subdags(ti_status, session)
        if not self._dispatcher.worth_a_look():
            return
        placed = self.at_work().write_under_limits(
            self._dispatcher.place, list(self.course.compiled.dags), self.course.compiled.pools, session
        )
        self._books.observe(ti_status, placed.rows)
        unsent = self._dispatcher.publish(placed.queued, default=executor)
        if unsent:
            self._books.observe(ti_status, self._reconciler.take_back_unsent(placed.queued, unsent, session))
        if placed.queued:
            self._tell(Dispatched(self.id, tuple(self.course.window.key(row.id) for row in placed.queued)))

    # -- what executors reported, and what the rows say -----------------------------------------------------------------

    def _manage_executor_state(
        self, running: Mapping[TaskInstanceKey, TaskInstance], session: Session | None = None
    ) -> list[TaskInstanceFacts]:
        """Hold what the executors reported against the rows, and set right what disagrees (S8.1, S8.2).

        Returns the rows of `running` task instances that something was reported of, as they are now; when the sweep is due, all
        that changed without a word.
        """
        rows = self._reconciler.reconcile(self.at_work().reported_events(), running, session)
        if self.course.rhythm.sweep_due():
            self._reconciler.begin_sweep()
            self.at_work().read(self.course.admission.read_again, session)
        return rows + self._reconciler.sweep_on(session)

    def _update_counters(self, ti_status: DagRunTaskStatus, session: Session | None = None) -> None:
        """Sort task instances by their row's state, whatever was remembered (S8.7).

        These are the ones whose rows were just observed. With none observed every `running` one is read again.
        """
        observed = ti_status.observed()
        if observed is not None:
            self._books.observe(ti_status, observed)
            return
        rows = self._reconciler.read_again(ti_status.running, session)
        self._books.observe(ti_status, rows)
        for ti in self.course.task_instances(row for row in rows if self.course.window.knows(row.id)):
            ti_status.sort(ti)  # also what is no news to the window

    def reset_state_for_orphaned_tasks(
        self, filter_by_dag_run: RunFacts | None = None, session: Session | None = None
    ) -> int:
        """Set to `none` what is `scheduled` or `queued` and held by nobody; return how many (S8.5).

        With a run: in that run; without: in all `running` runs of any type. What runs is never touched.
        """
        self.at_work()
        return self._reconciler.reset_orphans(filter_by_dag_run.id if filter_by_dag_run else None, session)

    # -- the end of runs, and of the job --------------------------------------------------------------------------------

    def _settle_runs(self, ti_status: DagRunTaskStatus, session: Session | None) -> bool:
        """Finish the runs that have nothing unfinished left, and return whether there were any (S2.14).

        Those that succeeded may wait a moment for others while more is ready than has a place: each time takes a transaction.
        """
        outcomes = self._turnover.time_out(ti_status, session)
        overdue = {outcome.dag_run_id for outcome in outcomes}
        outcomes += [outcome for outcome in self.course.window.finished_runs() if outcome.dag_run_id not in overdue]
        if self.course.policy.closes_stuck_runs:
            outcomes += self.course.stuck_outcomes(ti_status)
        if self.course.rhythm.ends_wait(may_wait=self._turnover.ends_may_wait(outcomes)):
            return False
        self._turnover.end(outcomes, ti_status, session)
        return bool(outcomes)

    def _set_unfinished_dag_runs_to_failed(self, dag_runs: Iterable[RunFacts], session: Session | None = None) -> None:
        """Close the runs that nothing can finish any more: by their task instances if all are finished, else `failed` (S9.4)."""
        self._turnover.close(dag_runs, session)

    def _collect_errors(self, ti_status: DagRunTaskStatus, session: Session | None = None) -> list[ReportedError]:
        """Return what ended badly and what is blocked, by run date, topology and map index (S9.7)."""
        return collect_errors(self, self.course, ti_status, session)

    # -- the operator ---------------------------------------------------------------------------------------------------

    def _log_progress(self, ti_status: DagRunTaskStatus) -> None:
        """Tell how far the job is, on change and at most once a second (S9.5)."""
        counts = self.course.numbers(ti_status)
        if self.course.throttle.lets_through(counts):
            self._tell(progress(self, self.course, ti_status))
        if self.request.verbose:
            for line in self._waits.news(self.at_work().lease.now(), self._dispatcher.occupancy):
                self._tell(Note(self.id, line))

    def _obey(self, ti_status: DagRunTaskStatus, session: Session | None) -> None:
        """Keep the lease, and carry out a pause or an interrupt (S1.4, S11). Whoever wakes the loop has written its wish."""
        lease: Lease = self.at_work().lease
        lease.renew_if_due(at_once=self.at_work().mailbox.was_woken())

        def take_back() -> None:
            if lease.control.state == JobState.PAUSED:
                self._tell(Note(self.id, f"Job {self.id} is paused: nothing more is started until it is resumed."))
            self._books.observe(ti_status, self._reconciler.take_back_unclaimed(ti_status.running, session))

        self.control.obey(
            lease.control,
            take_back=take_back,
            stop_here=lambda: self._reconciler.stop_local_processes(ti_status.running, session),
        )

    def _wait(self) -> None:
        """Sleep until something is reported or due (S1.7); where work is queued up before the workers, until more is reported."""
        mailbox, in_flight = self.at_work().mailbox, self.course.window.counts().running
        if mailbox.wait(self.course.due_in(self.at_work().lease)):
            mailbox.gather(self.course.rhythm.linger(), enough=min(in_flight // 2, PORTION))

    def _tell(self, event: Event) -> None:
        self.at_work().telemetry.emit(event)
