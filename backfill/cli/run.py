"""`backfill run`, `submit` and `resume`: a job is created, or taken up again, and driven in the foreground or left to a coordinator."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import cast

import click

from backfill.bootstrap import Runtime, open_runtime, standby_worker
from backfill.cli.clear import clear_question
from backfill.cli.command import Command, is_verbose, log_format_option
from backfill.cli.completion import complete_target
from backfill.cli.flags import BackfillFlags, backfill_flags
from backfill.cli.output import Format, Show, output_option, show_record, showing_each, showing_now, unread_is_no_error
from backfill.cli.parameters import JOB, PROCESSES
from backfill.cli.plan import plan_only
from backfill.cli.prompt import confirm
from backfill.cli.several import one_after_the_other
from backfill.cli.summary import show_summary
from backfill.cli.target import find_matching, find_target
from backfill.cli.telling import start_logging, telling_notes, telling_progress
from backfill.config import Settings, load_settings
from backfill.coordinator.broker import a_worker_listens
from backfill.dag.loader import LoadedDag
from backfill.exceptions import BackfillUnfinished, JobHeld
from backfill.jobs import BackfillJob
from backfill.jobs.clear import ClearCount, ClearScope
from backfill.jobs.report import Report
from backfill.jobs.request import BackfillRequest
from backfill.telemetry import Note

_VERBOSE_HELP = "Show tracebacks, and each change of the reason why a task instance waits."

workers_option = click.option(
    "--workers",
    metavar="N",
    type=PROCESSES,
    help="Processes of the Celery worker that is started if none listens; 0: start none.  [default: one per core, with "
    "the embedded broker]",
)


@click.command(cls=Command, verbose_help=_VERBOSE_HELP)
@click.argument("target", metavar="TARGET", shell_complete=complete_target)
@backfill_flags
@workers_option
@log_format_option
@output_option
@click.pass_context
def run(
    ctx: click.Context, *, target: str, flags: BackfillFlags, workers: int | None, log_format: str | None, form: Format
) -> None:
    """Backfill a range of dates, here and now.

    Creates a job for the run dates from -s to -e, both included, drives it with live progress until every run is settled, and
    ends with a summary. An interrupt leaves the job resumable; the exit code tells how the job ended. With
    --treat-dag-id-as-regex one job follows the other, and one that does not end well stops the rest, unless
    --continue-on-failures.
    """
    settings = _settings(ctx, log_format)
    if flags.dry_run:
        plan_only(ctx, target, flags, settings, form, workers=workers)
        return
    flags.check()
    request = flags.request(verbose=is_verbose(ctx))

    def work(runtime: Runtime, loaded: LoadedDag, show: Show) -> int:
        job = _create(runtime, loaded, request, flags, submit=False)
        return _show_end(_drive(runtime, job, workers, resume=False), form, show)

    if flags.treat_dag_id_as_regex:
        ctx.exit(_work_on_all_that_match(target, flags, request, settings, form, work))
    loaded = find_target(target, flags.subdir, settings)
    celery = BackfillJob.from_request(loaded.dag, request).uses_celery()
    count = _worker_children(settings, workers) if celery else 0
    with standby_worker(settings, count) as standby, open_runtime(settings, broker=celery) as runtime:
        runtime.standby = standby
        ctx.exit(work(runtime, loaded, showing_now(form)))


@click.command(cls=Command, verbose_help=_VERBOSE_HELP)
@click.argument("target", metavar="TARGET", shell_complete=complete_target)
@backfill_flags
@output_option
@click.pass_context
def submit(ctx: click.Context, target: str, flags: BackfillFlags, form: Format) -> None:
    """Create a job and leave it to a coordinator.

    Takes the flags of `run` and prints the job's id. `backfill status` shows its progress. Jobs made by --treat-dag-id-as-regex do
    not wait for one another.
    """
    settings = _settings(ctx, None)
    if flags.dry_run:
        plan_only(ctx, target, flags, settings, form)
        return
    flags.check()
    request = flags.request(verbose=is_verbose(ctx))

    def work(runtime: Runtime, loaded: LoadedDag, show: Show) -> int:
        job = _create(runtime, loaded, request, flags, submit=True)
        record = {"job_id": job.id, "dag_id": job.dag_id, "state": str(job.state), "total_runs": job.total_runs}
        with unread_is_no_error():
            show(record, lambda: click.echo(job.id))
        if form is Format.TABLE:
            click.echo(f"It waits for a coordinator; `backfill status {job.id}` shows its progress.", err=True)
        return 0

    if flags.treat_dag_id_as_regex:
        ctx.exit(_work_on_all_that_match(target, flags, request, settings, form, work))
    loaded = find_target(target, flags.subdir, settings)
    # nothing is sent yet, but a job that could not be run is refused now (S1.2)
    with open_runtime(settings, broker=BackfillJob.from_request(loaded.dag, request).uses_celery()) as runtime:
        work(runtime, loaded, showing_now(form))


@click.command(cls=Command, verbose_help=_VERBOSE_HELP)
@click.argument("job_id", metavar="JOB", type=JOB)
@workers_option
@log_format_option
@output_option
@click.pass_context
def resume(ctx: click.Context, job_id: int, workers: int | None, log_format: str | None, form: Format) -> None:
    """Go on with a paused job, also after a crash.

    Drives the job in the foreground, with the progress and the exit codes of `run`. What still runs is adopted, what finished
    meanwhile is not run again. If another process held the job and has died, this waits until its lease runs out; if that lives,
    its pause is lifted and it goes on.
    """
    settings = _settings(ctx, log_format)
    with open_runtime(settings, broker=False) as runtime:
        job = runtime.load_job(job_id)
        if job.uses_celery():
            runtime.reach_broker()
        with telling_progress(runtime.telemetry, settings):
            taken = runtime.take_over(job)
        if taken:
            ctx.exit(_show_end(_drive(runtime, job, workers, resume=True), form, showing_now(form)))
        told = f"The pause of job {job_id} is lifted; the process that drives it goes on."
        show_record(runtime.report(job_id).to_json(), form, as_table=lambda: click.echo(told))


def _settings(ctx: click.Context, log_format: str | None) -> Settings:
    settings = load_settings()
    if log_format is not None:
        settings = settings.override("--log-format", {"logging.format": log_format})
    start_logging(settings, verbose=is_verbose(ctx))
    return settings


def _work_on_all_that_match(
    target: str,
    flags: BackfillFlags,
    request: BackfillRequest,
    settings: Settings,
    form: Format,
    work: Callable[[Runtime, LoadedDag, Show], int],
) -> int:
    """Do the work of a command for each DAG whose id matches, and return its exit code (`--treat-dag-id-as-regex`)."""
    dags = find_matching(target, flags.subdir, settings)
    with open_runtime(settings, broker=False) as runtime, showing_each(form) as show:

        def with_its_broker(loaded: LoadedDag) -> int:
            if BackfillJob.from_request(loaded.dag, request).uses_celery():
                runtime.reach_broker()
            return work(runtime, loaded, show)

        return one_after_the_other(dags, with_its_broker, go_on=flags.continue_on_failures)


def _create(
    runtime: Runtime, loaded: LoadedDag, request: BackfillRequest, flags: BackfillFlags, *, submit: bool
) -> BackfillJob:
    """Create a job, with the notes on it on stderr, and ask there before anything is cleared for it."""

    def ask(scope: ClearScope, count: ClearCount) -> None:
        confirm(clear_question(scope, count), yes=flags.yes)

    with telling_notes(runtime.telemetry, runtime.settings):
        return runtime.create_job(loaded, request, submit=submit, confirm_reset=ask if flags.reset_dagruns else None)


def _drive(runtime: Runtime, job: BackfillJob, workers: int | None, *, resume: bool) -> Report:
    """Drive `job` to its end, with a worker of this command's own where none listens, and return its report."""
    with (
        _resumable(job),
        telling_progress(runtime.telemetry, runtime.settings),
        runtime.local_workers(_worker_children(runtime.settings, workers)) as started,
    ):
        if workers and not runtime.broker_url:
            runtime.telemetry.emit(
                Note(job.id, f"--workers {workers} starts nothing: no task of this job goes to Celery.")
            )
        if started is None and runtime.broker_url and not _somebody_listens(runtime):
            runtime.telemetry.emit(Note(job.id, "No worker listens yet; start one with `backfill worker`."))
        try:
            return runtime.drive(job, resume=resume)
        except BackfillUnfinished as unfinished:
            return cast("Report", unfinished.report)


def _worker_children(settings: Settings, workers: int | None) -> int | None:
    """Return how many processes a worker of this command's own has: 0 for none, None for one per core."""
    embedded = not settings.celery.broker_url
    return workers if workers is not None or embedded else 0


def _somebody_listens(runtime: Runtime) -> bool:
    return a_worker_listens(runtime.broker_url, runtime.settings.celery.queue)


@contextmanager
def _resumable(job: BackfillJob) -> Iterator[None]:
    """Say how to go on when something other than the job's own end ends the drive, also where that ends the process at once."""
    how = f"Job {job.id} can be resumed: backfill resume {job.id}"
    job.control.before_leaving_at_once(lambda: _tell_at_once(how))
    try:
        yield
    except JobHeld:
        raise  # somebody else goes on with it
    except BaseException as error:
        error.add_note(how)
        raise


def _tell_at_once(text: str) -> None:
    """Write a line to stderr from a signal handler: it may have interrupted somebody who is writing there, and holds its lock."""
    with suppress(OSError):
        os.write(2, f"\n{text}\n".encode())


def _show_end(report: Report, form: Format, show: Show) -> int:
    """Print the report and return the job's exit code, also if nobody reads the report."""
    data = report.to_json()
    with unread_is_no_error():
        show(data, lambda: show_summary(data))
    if report.exit_code and form is not Format.TABLE:
        click.echo(report.sentence(), err=True)
    return report.exit_code
