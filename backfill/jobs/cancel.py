"""The end of a job by the operator's word (S11.5).

It works on rows alone, without the job's DAG, so that a command can do it for a job whose holder has died.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from backfill.engine.window import RunOutcome
from backfill.jobs.base_job import Workplace
from backfill.jobs.conclusion import job_report
from backfill.jobs.report import Report
from backfill.jobs.settling import write_outcomes
from backfill.jobs.verdict import OVER
from backfill.states import ACTIVE_JOB, DagRunState, JobState
from backfill.store import clearing, jobs, recovery, runs, task_instances
from backfill.store.database import Tx
from backfill.telemetry import Note

#: Error text of task instances that were stopped.
STOPPED = "the job was cancelled"


class _Round(NamedTuple):
    """What one look at the rows found and did."""

    #: Attempt ids of what was taken back before a worker had claimed it.
    taken_back: list[str]
    #: What is in flight still, as far as is known, by task instance id; one set so by hand has no attempt id.
    running: dict[int, str | None]


class Cancellation:
    """Stops what is in flight of a job and, once all of it is known to be gone, closes its runs and the job.

    The holder of the job's lease calls this when nothing is admitted or dispatched any more. `check` is called whenever
    something has happened, and may raise to break it off; whoever takes the job up later goes on with it.
    """

    def __init__(self, job_id: int, workplace: Workplace, *, check: Callable[[], object] = lambda: None) -> None:
        self._job_id = job_id
        self._workplace = workplace
        self._check = check
        #: Attempts that an executor reported as over.
        self._over: set[str] = set()
        self._told_to_stop: set[str] = set()

    def carry_out(self) -> Report:
        """Do it, and return the job's report; raises `LeaseLost`, `ServiceUnavailable`, and what `check` raises."""
        found = self._look()
        self._tell(len(found.running))
        while found.running:
            self._wait()
            left, found = len(found.running), self._look()
            if 0 < len(found.running) < left:
                self._say(f"Waiting for {_task_instances(len(found.running))} to stop.")
        return self._workplace.write(self._settle)

    def _look(self) -> _Round:
        """Take back what nobody has claimed, stop what runs, and write off what is known to be gone."""
        found = self._workplace.write(self._write_round)
        executors = self._workplace.executors.values()
        unaware = {attempt_id for attempt_id in found.running.values() if attempt_id} - self._told_to_stop
        self._told_to_stop |= unaware
        for executor in executors:
            executor.revoke(found.taken_back)
            executor.terminate(unaware)
        return found

    def _write_round(self, tx: Tx) -> _Round:
        in_flight = {each.facts.id: each.facts.attempt_id for each in recovery.select_in_flight(tx, self._job_id)}
        taken_back = task_instances.take_back_if_queued(tx, in_flight.items())
        silent = recovery.select_zombies(tx, self._job_id, self._workplace.settings.task.heartbeat_timeout)
        gone = [(each.facts.id, each.facts.attempt_id) for each in silent]
        gone += [(ti_id, attempt_id) for ti_id, attempt_id in in_flight.items() if attempt_id in self._over]
        written_off = clearing.cancel_if_current(tx, gone, STOPPED)
        return _Round(
            taken_back=[attempt_id for ti_id in sorted(taken_back) if (attempt_id := in_flight[ti_id])],
            running={ti_id: id_ for ti_id, id_ in in_flight.items() if ti_id not in taken_back | written_off},
        )

    def _wait(self) -> None:
        """Sleep until something is reported, or it is time to look at the rows again."""
        workplace = self._workplace
        workplace.mailbox.wait(workplace.lease.due_in())
        workplace.lease.renew_if_due()
        self._check()
        self._over |= {event.attempt_id for event in workplace.reported_events() if event.state in OVER}

    def _settle(self, tx: Tx) -> Report:
        """Close what is left open: task instances (S3.17, S3.23), runs without callbacks (S2.15), and the job."""
        clearing.cancel_if_current(tx, clearing.select_to_cancel(tx, self._job_id), STOPPED)
        write_outcomes(self._outcomes(tx), tx)
        epoch = self._workplace.lease.epoch
        jobs.set_job_state_if(tx, self._job_id, ACTIVE_JOB, JobState.CANCELLED, epoch=epoch)
        return job_report(tx, self._job_id)

    def _outcomes(self, tx: Tx) -> Sequence[RunOutcome]:
        """Return the ends of the runs in the window: `failed`, but for one that had ended well unnoticed."""
        return [
            RunOutcome(dag_run_id, DagRunState.FAILED if cut_short else DagRunState.SUCCESS, "cancelled")
            for dag_run_id, cut_short in runs.select_cut_short(tx, self._job_id).items()
        ]

    def _tell(self, running: int) -> None:
        verb = "is" if running == 1 else "are"
        stopping = f": {_task_instances(running)} {verb} told to stop" if running else ""
        self._say(f"Job {self._job_id} is being cancelled{stopping}.")

    def _say(self, text: str) -> None:
        self._workplace.telemetry.emit(Note(self._job_id, text))


def _task_instances(running: int) -> str:
    return "1 running task instance" if running == 1 else f"{running} running task instances"
