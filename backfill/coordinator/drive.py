"""One process drives one job: from taking the lease to the state that the job is left in (semantics, section 1)."""

from __future__ import annotations

import gc
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from sqlalchemy import Engine

from backfill.coordinator.lease import HeldLease
from backfill.exceptions import BackfillUnfinished, Interrupted, LeaseLost, ServiceUnavailable
from backfill.jobs import BackfillJob
from backfill.jobs.base_job import ATTEMPTS, Workplace
from backfill.jobs.control import Control
from backfill.jobs.report import Report
from backfill.states import JobState
from backfill.store import jobs
from backfill.store.database import Tx, repeat
from backfill.telemetry import JobEnded, JobStarted

logger = logging.getLogger(__name__)

#: Objects made beyond those let go of, after which the interpreter looks for cycles among the youngest.
GARBAGE_AFTER = 10_000


def drive(
    job: BackfillJob, workplace: Workplace, lease: HeldLease, *, resumed: bool, lifts_pause: bool = False
) -> Report:
    """Drive `job` until it has settled, and leave it in the state that fits how the drive ended.

    With `lifts_pause` the operator has resumed the job (S11.2); else one that was paused before the drive began stays so.
    Returns the report of a job that ended well; raises `BackfillUnfinished` for any other end, `Interrupted` after an
    interrupt (the job is paused), `LeaseLost` when another took over and `ServiceUnavailable` when database or broker stay
    away (nothing is written then), and anything else after pausing the job with the error's text (S1).
    """
    with (
        _interrupts_of_the_terminal(job.control),
        leaving_it_resumable(workplace.engine, lease),
        _garbage_collected_seldom(),
    ):
        state = JobState.RUNNING
        workplace.telemetry.emit(JobStarted(job.id, job.dag_id, job.total_runs, resumed))
        try:
            workplace.write(lambda tx: _begin(tx, lease, lifts_pause=lifts_pause))
            job.take_up_work(workplace)
            report = job._execute()  # noqa: SLF001  # the name is fixed by the interface
            state = report.state
            with suppress(ServiceUnavailable):  # the job has ended all the same
                lease.release(attempts=1)
        except (LeaseLost, ServiceUnavailable):
            raise
        except Exception:
            state = JobState.PAUSED
            raise
        finally:
            workplace.telemetry.emit(JobEnded(job.id, state))
    if report.state is not JobState.SUCCESS:
        raise BackfillUnfinished(report.sentence(), report, report.exit_code)
    return report


def _begin(tx: Tx, lease: HeldLease, *, lifts_pause: bool) -> None:
    begins_from = {JobState.QUEUED, JobState.PAUSED} if lifts_pause else {JobState.QUEUED}
    jobs.set_job_state_if(tx, lease.job_id, begins_from, JobState.RUNNING, epoch=lease.epoch)
    lease.fence(tx)  # so that the holder knows of it now, not with its next write


@contextmanager
def leaving_it_resumable(engine: Engine, lease: HeldLease) -> Iterator[None]:
    """Pause the job and give the lease back when the block is interrupted or fails by an internal error, whose text is kept.

    Whoever lost the lease, or cannot reach database or broker, leaves the job as it is: the lease runs out.
    """
    try:
        yield
    except (LeaseLost, ServiceUnavailable):
        raise
    except (Interrupted, KeyboardInterrupt):
        pause(engine, lease)
        raise
    except Exception as error:
        logger.exception("Job %s stopped on an internal error", lease.job_id)
        pause(engine, lease, error=f"{type(error).__name__}: {error}")
        raise


def pause(engine: Engine, lease: HeldLease, *, error: str | None = None) -> None:
    """Leave the job `paused`, and the lease free for whoever resumes it; raises `LeaseLost` if it is not held any more."""

    def work(tx: Tx) -> None:
        lease.fence(tx)
        active = {JobState.QUEUED, JobState.RUNNING}
        jobs.set_job_state_if(tx, lease.job_id, active, JobState.PAUSED, epoch=lease.epoch, error=error)

    repeat(engine, work, attempts=ATTEMPTS)
    lease.release()


@contextmanager
def _garbage_collected_seldom() -> Iterator[None]:
    """Spare the loop the pauses in which the interpreter goes over all that was imported: half of the time of its longest rounds.

    What is there now is left out until the end; of what comes, task instances are many and cycles are few.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@contextmanager
def _interrupts_of_the_terminal(control: Control) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM ask the loop to stop in order; a second one ends the process at once (S11.4)."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach only the main thread; whoever drives jobs in others stops them itself
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        del frame
        control.interrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
