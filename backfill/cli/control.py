"""`backfill pause` and `cancel`: orders to whoever drives a job, given from another terminal (semantics, section 11)."""

from __future__ import annotations

import click

from backfill.bootstrap import open_runtime
from backfill.cli.command import Command
from backfill.cli.output import Format, output_option, show_record
from backfill.cli.parameters import JOB
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
