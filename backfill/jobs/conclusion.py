"""What is said of a job: progress while it runs, and the report from its rows, also by a process that does not drive it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.orm import Session

from backfill.exceptions import UsageError
from backfill.jobs.base_job import BaseJob
from backfill.jobs.course import Course
from backfill.jobs.report import Report, ReportedError
from backfill.jobs.task_status import DagRunTaskStatus, TaskInstance
from backfill.keys import TaskInstanceKey
from backfill.states import ENDED_WELL, FINISHED_JOB, DagRunState, JobState, TaskInstanceState
from backfill.store import dates, jobs, report
from backfill.store.database import Tx
from backfill.telemetry import Progress, RunningTask, TaskInstanceEnded

#: How many running task instances the progress names.
NAMED = 8


def job_report(tx: Tx, job_id: int, *, notes: tuple[str, ...] = ()) -> Report:
    """Return state, counts and errors of a job as its rows are now; `UsageError` if there is none of that id."""
    job = jobs.select_job(tx, job_id)
    if job is None:
        raise UsageError(f"There is no job {job_id}; `backfill list` shows those that exist.")
    counts = report.job_counts(tx, job_id, task_ids=job.params.get("task_ids"))
    pace = report.finished_since(tx, job_id)
    state = JobState(job.state)
    pending = [date for date in dates.pending_dates(tx, job_id, None) if date.action != "done"]
    tasks = _task_counts(counts, pending=len(pending), rows_per_run=job.params.get("rows_per_run", 0))
    unfinished = tasks["waiting"] + tasks["running"]
    return Report(
        job_id=job_id,
        dag_id=job.dag_id,
        state=state,
        start_date=job.start_date,
        end_date=job.end_date,
        runs={
            "total": counts.runs.total,
            "finished": counts.runs.finished,
            "success": counts.runs.success,
            "failed": counts.runs.failed,
            "running": counts.runs.running,
        },
        tasks=tasks,
        rate=pace.per_second,
        eta_seconds=unfinished / pace.per_second if pace.per_second and state not in FINISHED_JOB else None,
        errors=tuple(ended_badly(tx, job_id, job.params)),
        not_started=tuple(date.logical_date for date in pending) if state in FINISHED_JOB else (),
        notes=notes + ((job.error,) if job.error else ()),
    )


def _task_counts(counts: report.JobCounts, *, pending: int, rows_per_run: int) -> dict[str, int]:
    """Return the six numbers of S9.5 and their total, by the words of interface.md."""
    six = {
        "success": counts.states[TaskInstanceState.SUCCESS],
        "failed": counts.states[TaskInstanceState.FAILED],
        "skipped": counts.states[TaskInstanceState.SKIPPED],
        "upstream_failed": counts.states[TaskInstanceState.UPSTREAM_FAILED],
        "running": counts.running,
        "waiting": counts.waiting + pending * rows_per_run,
    }
    return {"total": sum(six.values()), **six}


def ended_badly(tx: Tx, job_id: int, params: Mapping[str, Any]) -> list[ReportedError]:
    """Return the task instances of a job that ended badly, by run date, topology and map index (S9.7)."""
    order = params.get("task_ids") or []
    return [
        ReportedError(
            kind="failed" if row.state == TaskInstanceState.FAILED else "upstream_failed",
            key=TaskInstanceKey(row.dag_id, row.task_id, row.run_id, row.map_index),
            logical_date=row.logical_date,
            try_number=row.try_number,
            state=row.state,
            error=row.error,
        )
        for row in report.select_errors(tx, job_id, topological_order=order, task_ids=params.get("task_ids"))
    ]


def collect_errors(
    job: BaseJob, course: Course, ti_status: DagRunTaskStatus, session: Session | None
) -> list[ReportedError]:
    """Return what ended badly by the rows, and what the engine found blocked, in the order of S9.7."""
    bad = job.at_work().read(lambda tx: ended_badly(tx, job.id, job.params), session)
    blocked = [
        ReportedError(
            kind="deadlocked",
            key=ti.key,
            logical_date=run.logical_date,
            try_number=ti.facts.try_number,
            state=ti.facts.state,
            error=reason,
            waits_for_past=waits_for_past,
        )
        for ti, run, reason, waits_for_past in ti_status.blocked
    ]
    late = [
        ReportedError(
            kind="run_timed_out",
            key=TaskInstanceKey(run.dag_id, "", run.run_id),
            logical_date=run.logical_date,
            try_number=0,
            state=DagRunState.FAILED.value,
            error=f"dagrun_timeout of {course.dag.dagrun_timeout} is over",
        )
        for run in ti_status.timed_out
    ]
    place = {task_id: n for n, task_id in enumerate(course.graph.task_ids)}
    return sorted(
        bad + blocked + late, key=lambda e: (e.logical_date, place.get(e.key.task_id, len(place)), e.key.map_index)
    )


def conclude(job: BaseJob, course: Course, ti_status: DagRunTaskStatus, errors: list[ReportedError]) -> Report:
    """Settle the job's final state (S1.1) and return its report."""
    workplace = job.at_work()
    if course.deadlocked:
        state = JobState.DEADLOCKED
    elif course.policy.failed:
        state = JobState.FAILED
    else:
        state = JobState.SUCCESS

    def settle(tx: Tx) -> Report:
        # a pause that comes now finds nothing left to pause
        jobs.set_job_state_if(tx, job.id, {JobState.RUNNING, JobState.PAUSED}, state, epoch=workplace.lease.epoch)
        return job_report(tx, job.id)

    settled = workplace.write(settle)
    return replace(settled, errors=tuple(errors), hint=_hint(ti_status, course))


def _hint(ti_status: DagRunTaskStatus, course: Course) -> str | None:
    """Return the hint of S9.7 where a blocked task instance of the first run waits only for a run before the range."""
    for ti, run, _, waits_for_past in ti_status.blocked:
        if waits_for_past and course.is_first(run):
            return (
                f"{ti.key.task_id} of the first run waits only for a run before the range: "
                "ignore_first_depends_on_past (-I) would let it start."
            )
    return None


def progress(job: BaseJob, course: Course, ti_status: DagRunTaskStatus) -> Progress:
    """Return the numbers of S9.5 with rate, time left and what runs now."""
    numbers = course.numbers(ti_status)
    running = job.at_work().read(lambda tx: report.select_running(tx, job.id, limit=NAMED)) if numbers.running else []
    return Progress(
        job_id=job.id,
        runs_total=course.total_runs,
        **numbers._asdict(),
        rate=course.pace.rate(),
        eta_seconds=course.pace.time_left(numbers.waiting + numbers.running),
        running_now=tuple(
            RunningTask(
                TaskInstanceKey(row.dag_id, row.task_id, row.run_id, row.map_index), row.hostname, row.start_date
            )
            for row in running
        ),
    )


def tell_ends(job: BaseJob, ended: Sequence[TaskInstance]) -> None:
    """Tell of task instances that ended, with the error texts of those that failed; to nobody costs nothing."""
    if not job.at_work().telemetry.has_subscribers:
        return
    bad = [ti.facts.id for ti in ended if ti.facts.state not in ENDED_WELL]
    errors = job.at_work().read(lambda tx: report.select_error_texts(tx, bad)) if bad else {}
    for ti in ended:
        job.at_work().telemetry.emit(
            TaskInstanceEnded(
                job.id, ti.key, TaskInstanceState(ti.facts.state), ti.facts.try_number, errors.get(ti.facts.id)
            )
        )
