"""`backfill status`, `tasks` and `list`: what the database says of jobs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click
from sqlalchemy import Engine

from backfill.bootstrap import open_runtime
from backfill.cli.command import Command
from backfill.cli.output import Column, Format, output_option, show_record, show_rows
from backfill.cli.parameters import COUNT, JOB, WordParameter
from backfill.cli.progress import ProgressDisplay, progress_display
from backfill.cli.summary import show_summary
from backfill.clock import as_utc, duration_text
from backfill.config import load_settings
from backfill.exceptions import UsageError
from backfill.jobs.conclusion import NAMED, job_report, order_of
from backfill.jobs.report import Report
from backfill.keys import TaskInstanceKey
from backfill.states import FINISHED_JOB, TaskInstanceState
from backfill.store import jobs as job_rows, report as store
from backfill.store.database import Tx, repeat
from backfill.telemetry import JobStarted, Progress, RunningTask

#: Time between two looks of `--watch`.
WATCH_EVERY = timedelta(seconds=1)

_LIST_COLUMNS = (
    Column("job_id", "job", right=True),
    Column("dag_id", "dag"),
    Column("state"),
    Column("runs", right=True),
    Column("runs_finished", "finished", right=True),
    Column("runs_failed", "failed", right=True),
    Column("created_at", "created"),
    Column("start_date", "started"),
    Column("end_date", "ended"),
)
#: What people see of the same, to fit a terminal of 80 columns.
_LIST_TABLE = (
    Column("job_id", "job", right=True, whole=True),
    Column("dag_id", "dag"),
    Column("state", whole=True),
    Column("finished_of", "runs", right=True, whole=True),
    Column("runs_failed", "failed", right=True, whole=True),
    Column("created", whole=True),
    Column("took", right=True, whole=True),
)
_TASK_COLUMNS = (
    Column("dag_id", "dag"),
    Column("task_id", "task"),
    Column("map_index", "map index", right=True),
    Column("logical_date", "date"),
    Column("state"),
    Column("try_number", "try", right=True),
    Column("start_date", "started"),
    Column("duration", "seconds", right=True),
    Column("hostname", "worker"),
)


@click.command(cls=Command)
@click.argument("job_id", metavar="JOB", type=JOB)
@click.option("--watch", is_flag=True, help="Show live progress until the job ends, and exit with its code.")
@output_option
@click.pass_context
def status(ctx: click.Context, job_id: int, watch: bool, form: Format) -> None:
    """Show one job: progress, rate, time left, errors.

    Exits with 0 whatever the job's state is, with --watch as `run` does.
    """
    with open_runtime(load_settings(), broker=False) as runtime:
        if watch:
            _watch(runtime.engine, job_id)
        report = runtime.inquirer().report(job_id)
    data = report.to_json()
    show_record(data, form, as_table=lambda: show_summary(data))
    ctx.exit(report.exit_code if watch else 0)


def _watch(engine: Engine, job_id: int) -> None:
    """Show the progress of a job until it has ended."""
    report = repeat(engine, lambda tx: job_report(tx, job_id))
    pause = threading.Event()
    with progress_display() as display:
        display(JobStarted(job_id, report.dag_id, report.runs.get("total", 0)))
        while report.state not in FINISHED_JOB:
            _show(display, report, repeat(engine, lambda tx: _running(tx, job_id)))
            pause.wait(WATCH_EVERY.total_seconds())
            report = repeat(engine, lambda tx: job_report(tx, job_id))


def _show(display: ProgressDisplay, report: Report, running: tuple[RunningTask, ...]) -> None:
    tasks = report.tasks
    display(
        Progress(
            job_id=report.job_id or 0,
            runs_finished=report.runs.get("finished", 0),
            runs_total=report.runs.get("total", 0),
            waiting=tasks.get("waiting", 0),
            running=tasks.get("running", 0),
            succeeded=tasks.get("success", 0),
            failed=tasks.get("failed", 0) + tasks.get("upstream_failed", 0),
            skipped=tasks.get("skipped", 0),
            deadlocked=0,  # known to the process that drives the job, and to no row
            rate=report.rate,
            eta_seconds=report.eta_seconds,
            running_now=running,
        )
    )


def _running(tx: Tx, job_id: int) -> tuple[RunningTask, ...]:
    return tuple(
        RunningTask(TaskInstanceKey(row.dag_id, row.task_id, row.run_id, row.map_index), row.hostname, row.start_date)
        for row in store.select_running(tx, job_id, limit=NAMED)
    )


@click.command(cls=Command)
@click.argument("job_id", metavar="JOB", type=JOB)
@click.option("--state", type=WordParameter(TaskInstanceState), help="Only task instances in this state.")
@output_option
def tasks(job_id: int, state: TaskInstanceState | None, form: Format) -> None:
    """List the task instances of a job.

    By run date, the tasks of each in the order in which they can run. Dates that have not been admitted have none yet.
    """
    with open_runtime(load_settings(), broker=False) as runtime:
        rows = repeat(runtime.engine, lambda tx: _task_rows(tx, job_id, state))
    columns = [column for column in _TASK_COLUMNS if _says_something(column, rows)]
    show_rows(rows, columns, form, empty=f"Job {job_id} has no task instances{f' in state {state}' if state else ''}.")


def _says_something(column: Column, rows: Sequence[dict[str, Any]]) -> bool:
    """Return whether a column is worth its place: map indexes where there are any, the DAG where there are several."""
    match column.key:
        case "map_index":
            return any(row["map_index"] >= 0 for row in rows)
        case "dag_id":
            return len({row["dag_id"] for row in rows}) > 1
        case _:
            return True


def _task_rows(tx: Tx, job_id: int, state: TaskInstanceState | None) -> list[dict[str, Any]]:
    job = job_rows.select_job(tx, job_id)
    if job is None:
        raise UsageError(f"There is no job {job_id}; `backfill list` shows those that exist.")
    chosen = job.params.get("task_ids")
    rows = store.select_task_instances(tx, job_id, state, topological_order=order_of(job.params), task_ids=chosen)
    return [row._asdict() for row in rows]


@click.command("list", cls=Command)
@click.option("--limit", metavar="N", type=COUNT, help="At most this many.")
@output_option
def list_jobs(limit: int | None, form: Format) -> None:
    """List the jobs, newest first."""
    with open_runtime(load_settings(), broker=False) as runtime:
        found = repeat(runtime.engine, lambda tx: store.list_job_summaries(tx, limit=limit))
    if form is Format.TABLE:
        show_rows([_for_people(job) for job in found], _LIST_TABLE, form, empty="There are no jobs yet.")
    else:
        show_rows([job._asdict() for job in found], _LIST_COLUMNS, form)


def _for_people(job: store.JobSummary) -> dict[str, Any]:
    took = job.end_date - job.start_date if job.start_date and job.end_date else None
    return {
        **job._asdict(),
        "finished_of": f"{job.runs_finished}/{job.runs}",
        "created": as_utc(job.created_at).strftime("%Y-%m-%d %H:%M"),
        "took": took and duration_text(took),
    }
