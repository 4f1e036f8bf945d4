"""`backfill plan`: what `run` would do, and none of it."""

from __future__ import annotations

import click

from backfill.bootstrap import open_runtime
from backfill.cli.command import Command, is_verbose, log_format_option
from backfill.cli.flags import BackfillFlags, backfill_flags
from backfill.cli.outlook import show_plan
from backfill.cli.output import Format, output_option
from backfill.cli.target import find_target
from backfill.cli.telling import start_logging
from backfill.config import Settings, load_settings

workers_option = click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(min=0),
    help="Processes of the Celery worker that `run` would start: a limit for the estimate.",
)


@click.command(cls=Command, verbose_help="Show tracebacks, and every task instance instead of dates with counts.")
@click.argument("target", metavar="TARGET")
@backfill_flags
@workers_option
@log_format_option
@output_option
@click.pass_context
def plan(
    ctx: click.Context, *, target: str, flags: BackfillFlags, workers: int | None, log_format: str | None, form: Format
) -> None:
    """Show what `run` would do, and do none of it.

    Names the dates and what happens at each; of each task instance whether it runs, is done, is run again or cannot run; the
    limits that will bind; and how long it may take. It is refused what `run` would be refused, with the same exit code, and
    needs neither worker nor broker.
    """
    settings = load_settings()
    if log_format is not None:
        settings = settings.override("--log-format", {"logging.format": log_format})
    start_logging(settings, verbose=is_verbose(ctx))
    plan_only(ctx, target, flags, settings, form, workers=workers)


def plan_only(
    ctx: click.Context,
    target: str,
    flags: BackfillFlags,
    settings: Settings,
    form: Format,
    *,
    workers: int | None = None,
) -> None:
    """Print what `run` would do with these flags, and write nothing.

    Raises what `run` would raise before it starts.
    """
    flags.check()
    loaded = find_target(target, flags.subdir, settings)
    request = flags.request(verbose=is_verbose(ctx))
    with open_runtime(settings, broker=False) as runtime:
        outlook = runtime.plan(loaded.dag, request, workers=workers)
    show_plan(outlook.to_json(), form, every_task_instance=is_verbose(ctx))
