"""`backfill plan`, and `-n` of `run` and `submit`: what would be done, and none of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click
from sqlalchemy import Connection

from backfill.bootstrap import Runtime, open_runtime
from backfill.cli.command import Command, is_verbose, log_format_option
from backfill.cli.completion import complete_target
from backfill.cli.flags import BackfillFlags, backfill_flags
from backfill.cli.outlook import show_plan
from backfill.cli.output import Format, output_option
from backfill.cli.target import find_target
from backfill.cli.telling import start_logging
from backfill.config import Settings, load_settings
from backfill.dag import DAG
from backfill.exceptions import BackfillError
from backfill.jobs.outlook import Outlook
from backfill.jobs.request import BackfillRequest
from backfill.store.database import read_only, repeat
from workers.masking import Masker, secrets_of
from workers.preview import FirstRun, RenderedTask, rehearse_templates

T = TypeVar("T")

workers_option = click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(min=0),
    help="Processes of the Celery worker that `run` would start: a limit for the estimate.",
)


@click.command(cls=Command, verbose_help="Show tracebacks, and every task instance instead of dates with counts.")
@click.argument("target", metavar="TARGET", shell_complete=complete_target)
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
    """Print what `run` would do with these flags, with `-n` also the first date's template fields, and write nothing.

    Ends the command with exit code 1 if a template cannot be rendered; raises what `run` would raise before it starts.
    """
    flags.check()
    loaded = find_target(target, flags.subdir, settings)
    request = flags.request(verbose=is_verbose(ctx))
    with open_runtime(settings, broker=False) as runtime:
        outlook = runtime.plan(loaded.dag, request, workers=workers)
        shown = outlook.to_json()
        failed = False
        if flags.dry_run:
            rendered = _rendered(runtime, loaded.dag, request, outlook)
            failed = any(task.error is not None for task in rendered)
            shown["templates"] = {
                "logical_date": outlook.first and outlook.first.logical_date,
                "tasks": [task._asdict() for task in rendered],
            }
    show_plan(shown, form, every_task_instance=is_verbose(ctx))
    if failed:
        ctx.exit(BackfillError.exit_code)


def _rendered(runtime: Runtime, dag: DAG, request: BackfillRequest, outlook: Outlook) -> list[RenderedTask]:
    """Return the template fields of the first date that a plan takes on, rendered as workers would; reads only."""
    if outlook.first is None:
        return []
    there = outlook.first_run
    conf = request.conf if request.conf is not None else there.conf if there else {}

    def look(work: Callable[[Connection], T]) -> T:
        def only_look(tx: Connection) -> T:
            read_only(tx)
            return work(tx)

        return repeat(runtime.engine, only_look)

    return rehearse_templates(
        dag,
        FirstRun.of(outlook.first, there and there.run_id, conf),
        outlook.first_task_instances(),
        database=look,
        mask=Masker(secrets_of(runtime.settings)),
    )
