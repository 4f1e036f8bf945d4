"""`backfill pause` and `cancel`: orders to whoever drives a job, given from another terminal (semantics, section 11)."""

from __future__ import annotations

import click

from backfill.bootstrap import open_runtime
from backfill.cli.command import Command
from backfill.cli.output import Format, output_option, show_record
from backfill.cli.parameters import JOB
from backfill.cli.telling import start_logging, telling_progress
from backfill.config import load_settings


@click.command(cls=Command)
@click.argument("job_id", metavar="JOB", type=JOB)
@output_option
def pause(job_id: int, form: Format) -> None:
    """Start nothing more of a job.

    What waits for a worker is taken back, what runs ends by itself. The process that drives the job keeps it; `backfill resume`
    goes on.
    """
    with open_runtime(load_settings(), broker=False) as runtime:
        how = "is paused" if runtime.pause(job_id) else "is paused already"
        told = f"Job {job_id} {how}: nothing more of it is started. `backfill resume {job_id}` goes on."
        show_record(runtime.report(job_id).to_json(), form, as_table=lambda: click.echo(told))


@click.command(cls=Command)
@click.argument("job_id", metavar="JOB", type=JOB)
@output_option
def cancel(job_id: int, form: Format) -> None:
    """End a job for good, with all that runs of it.

    What waits for a worker is taken back, what runs is told to stop and killed where it does not. Returns when nothing of the
    job runs any more and its runs are closed. If the process that drove the job has died, this waits until its lease runs out
    and does the work itself.
    """
    settings = load_settings()
    start_logging(settings, verbose=False)
    with open_runtime(settings, broker=False) as runtime:
        with telling_progress(runtime.telemetry, settings):
            how = "is cancelled" if runtime.cancel(job_id) else "is cancelled already"
        told = f"Job {job_id} {how}: nothing of it runs any more."
        show_record(runtime.report(job_id).to_json(), form, as_table=lambda: click.echo(told))
