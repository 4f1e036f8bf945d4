"""What is said of a job: progress while it runs, and the report from its rows, also by a process that does not drive it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.orm import Session

from backfill.exceptions import UsageError
from backfill.facts import RunFacts
from backfill.jobs.base_job import BaseJob
from backfill.jobs.course import Course
from backfill.jobs.report import Report, ReportedError
from backfill.jobs.task_status import DagRunTaskStatus, TaskInstance
from backfill.keys import TaskInstanceKey
from backfill.states import ENDED_WELL, FINISHED_JOB, DagRunState, JobState, TaskInstanceState
from backfill.store import dates, jobs, report, subdags
from backfill.store.clearing import RUN_TIMED_OUT
from backfill.store.database import Tx
from backfill.store.jobs import JobRow
from backfill.telemetry import Progress, RunningTask, TaskInstanceEnded

_FAILED_BEFORE = "All that failed is of runs from before this job, which count as done; rerun_failed_tasks (--rerun-failed-tasks) runs it again."
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
    to_come = len(pending) * job.params.get("rows_per_run", 0) + _to_come_in_subdags(tx, job_id, job.params)
    tasks = _task_counts(counts, to_come)
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
        errors=tuple(sort_errors([*ended_badly(tx, job_id, job.params), *timed_out(tx, job_id)], job.params)),
        not_started=tuple(date.logical_date for date in pending) if state in FINISHED_JOB else (),
        hint=_FAILED_BEFORE if state is JobState.FAILED and _failed_before_only(tx, job) else None,
        notes=notes + ((job.error,) if job.error else ()),
    )


def _failed_before_only(tx: Tx, job: JobRow) -> bool:
    return report.failed_before_only(tx, job.id, task_ids=job.params.get("task_ids"))


def _to_come_in_subdags(tx: Tx, job_id: int, params: Mapping[str, Any]) -> int:
    """Return how many task instances of subdags wait for their run to begin, in runs that have begun (S9.5)."""
    rows: Mapping[str, int] = params.get("subdag_rows") or {}
    counts = subdags.pending_counts(tx, job_id) if rows else {}
    return sum(count * rows.get(dag_id, 0) for dag_id, count in counts.items())


def _task_counts(counts: report.JobCounts, to_come: int) -> dict[str, int]:
    """Return the six numbers of S9.5 and their total, by the words of interface.md."""
    six = {
        "success": counts.states[TaskInstanceState.SUCCESS],
        "failed": counts.states[TaskInstanceState.FAILED],
        "skipped": counts.states[TaskInstanceState.SKIPPED],
        "upstream_failed": counts.states[TaskInstanceState.UPSTREAM_FAILED],
        "running": counts.running,
        "waiting": counts.waiting + to_come,
    }
    return {"total": sum(six.values()), **six}


def order_of(params: Mapping[str, Any]) -> list[report.PlacedTask]:
    """Return the tasks of a job in the order in which reports name them (S9.7)."""
    placed = params.get("order")
    return [(dag_id, task_id) for dag_id, task_id in placed] if placed else list(params.get("task_ids") or ())


def ended_badly(tx: Tx, job_id: int, params: Mapping[str, Any]) -> list[ReportedError]:
    """Return the task instances of a job that ended badly, by run date, topology and map index (S9.7)."""
    return [
        ReportedError(
            kind="failed" if row.state == TaskInstanceState.FAILED else "upstream_failed",
            key=TaskInstanceKey(row.dag_id, row.task_id, row.run_id, row.map_index),
            logical_date=row.logical_date,
            try_number=row.try_number,
            state=row.state,
            error=row.error,
        )
        for row in report.select_errors(tx, job_id, topological_order=order_of(params), task_ids=params.get("task_ids"))
    ]


def collect_errors(
    job: BaseJob, course: Course, ti_status: DagRunTaskStatus, session: Session | None
) -> list[ReportedError]:
    """Return what ended badly by the rows, and what the engine found blocked, in the order of S9.7."""
    bad = job.at_work().read(lambda tx: [*ended_badly(tx, job.id, job.params), *timed_out(tx, job.id)], session)
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
    known = {error.key for error in bad}
    late = [_late(run, f"{RUN_TIMED_OUT}{course.compiled.dag.dagrun_timeout} is over") for run in ti_status.timed_out]
    return sort_errors([*bad, *blocked, *(error for error in late if error.key not in known)], job.params)


def timed_out(tx: Tx, job_id: int) -> list[ReportedError]:
    """Return the runs of a job that timed out, also those that an earlier holder of it saw."""
    return [_late(run, run.error) for run in report.select_timed_out(tx, job_id)]


def _late(run: report.TimedOutRun | RunFacts, error: str) -> ReportedError:
    return ReportedError(
        kind="run_timed_out",
        key=TaskInstanceKey(run.dag_id, "", run.run_id),
        logical_date=run.logical_date,
        try_number=0,
        state=DagRunState.FAILED.value,
        error=error,
    )


def sort_errors(errors: Iterable[ReportedError], params: Mapping[str, Any]) -> list[ReportedError]:
    """Return errors by run date, topological order and map index (S9.7); `params` are those of the job's row."""
    place = {task: n for n, task in enumerate(order_of(params))}
    return sorted(
        errors,
        key=lambda e: (e.logical_date, place.get((e.key.dag_id, e.key.task_id), len(place)), e.key.map_index),
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
    return replace(settled, errors=tuple(errors), hint=_hint(ti_status, course) or settled.hint)


def _hint(ti_status: DagRunTaskStatus, course: Course) -> str | None:
    """Return the hint of S9.7 where a blocked task instance of the first run waits only for a run before the range."""
    for ti, run, _, waits_for_past in ti_status.blocked:
        if waits_for_past and course.is_first(run):
            return hint_for(ti.key.task_id)
    return None


def hint_for(task_id: str) -> str:
    """Say what would let a task of the first run start that waits only for a run before the range."""
    return (
        f"{task_id} of the first run waits only for a run before the range: "
        "ignore_first_depends_on_past (-I) would let it start."
    )


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
