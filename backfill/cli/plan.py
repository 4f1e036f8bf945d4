"""`backfill plan`, and `-n` of `run` and `submit`: what would be done, and none of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

import click
from sqlalchemy import Connection

from backfill.bootstrap import Runtime, open_runtime
from backfill.cli.command import Command, is_verbose, log_format_option
from backfill.cli.completion import complete_target
from backfill.cli.flags import BackfillFlags, backfill_flags
from backfill.cli.outlook import show_plan
from backfill.cli.output import Format, output_option, showing_each
from backfill.cli.parameters import PROCESSES
from backfill.cli.several import one_after_the_other
from backfill.cli.target import find_matching, find_target
from backfill.cli.telling import start_logging
from backfill.config import Settings, load_settings
from backfill.dag import DAG
from backfill.dag.loader import LoadedDag
from backfill.exceptions import BackfillError
from backfill.jobs.outlook import Outlook
from backfill.jobs.request import BackfillRequest
from backfill.jobs.subdags import conf_of
from backfill.store.database import read_only, repeat
from workers.masking import Masker, secrets_of
from workers.preview import FirstRun, RenderedTask, rehearse_templates
from workers.secret_values import secrets_of_environment

T = TypeVar("T")

workers_option = click.option(
    "--workers",
    metavar="N",
    type=PROCESSES,
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

    With `--treat-dag-id-as-regex` that is one plan after the other, as JSON a list of them. Ends the command with exit code 1 if a
    template cannot be rendered; raises what `run` would raise before it starts.
    """
    flags.check()
    request = flags.request(verbose=is_verbose(ctx))

    def work(runtime: Runtime, loaded: LoadedDag, show: Callable[[dict[str, Any]], None]) -> int:
        outlook = runtime.plan(loaded.dag, request, workers=workers, reset=flags.reset_dagruns)
        shown = outlook.to_json()
        rendered = _rendered(runtime, loaded.dag, request, outlook) if flags.dry_run else []
        if flags.dry_run:
            shown["templates"] = {
                "logical_date": outlook.first and outlook.first.logical_date,
                "tasks": [task._asdict() for task in rendered],
            }
        show(shown)
        return BackfillError.exit_code if any(task.error is not None for task in rendered) else 0

    def show_now(shown: dict[str, Any]) -> None:
        show_plan(shown, form, every_task_instance=is_verbose(ctx))

    if not flags.treat_dag_id_as_regex:
        loaded = find_target(target, flags.subdir, settings)
        with open_runtime(settings, broker=False) as runtime:
            ctx.exit(work(runtime, loaded, show_now))
    dags = find_matching(target, flags.subdir, settings)
    with open_runtime(settings, broker=False) as runtime, showing_each(form) as show_each:

        def show_one(shown: dict[str, Any]) -> None:
            if form in {Format.JSON, Format.YAML}:
                show_each(shown, lambda: None)
            else:
                show_now(shown)

        ctx.exit(
            one_after_the_other(dags, lambda each: work(runtime, each, show_one), go_on=flags.continue_on_failures)
        )


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

    mask = Masker(secrets_of(runtime.settings) | secrets_of_environment(os.environ))
    found: list[RenderedTask] = []
    for dag_id, instances in groupby(outlook.first_task_instances(), key=itemgetter(0)):
        own = dag if dag_id == dag.dag_id else next(each for each in dag.subdags if each.dag_id == dag_id)
        run = FirstRun.of(
            outlook.first_below.get(dag_id, outlook.first), there and there.run_id, conf_of(own, dag, conf)
        )
        found += rehearse_templates(own, run, [ti[1:] for ti in instances], database=look, mask=mask)
    return found
