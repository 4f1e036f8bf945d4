"""`backfill worker`: a Celery worker with the project's settings, in this process."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

import click
from celery import signals
from celery.exceptions import SecurityWarning

from backfill.bootstrap import open_runtime
from backfill.cli.command import Command, is_verbose, log_format_option
from backfill.cli.parameters import COUNT
from backfill.cli.parent import stop_with_parent, wait_for_environment
from backfill.cli.telling import start_logging
from backfill.config import Settings, load_settings
from backfill.exceptions import UsageError
from backfill.executors.environment import settings_environment
from workers.app import app

logger = logging.getLogger(__name__)


@click.command(cls=Command)
@click.option("-c", "--concurrency", metavar="N", type=COUNT, help="Child processes.  [default: worker.concurrency]")
@click.option(
    "-q", "--queues", metavar="QUEUES", help="Queues to listen to, separated by commas.  [default: celery.queue]"
)
@log_format_option
@click.pass_context
def worker(ctx: click.Context, concurrency: int | None, queues: str | None, log_format: str | None) -> None:
    """Run a Celery worker, until stopped.

    The same as `celery -A workers worker` with the project's settings. Told to stop (SIGTERM, Ctrl-C) it takes no more work, lets
    its tasks run on for worker.soft_shutdown_timeout, then hands them back; told twice, it hands them back at once.
    """
    wait_for_environment()
    settings = load_settings()
    if log_format is not None:
        settings = settings.override("--log-format", {"logging.format": log_format})
    start_logging(settings, verbose=is_verbose(ctx), service=True)
    names = [name for name in (part.strip() for part in (queues or settings.celery.queue).split(",")) if name]
    if not names:
        raise UsageError(f"-q {queues!r} names no queue; write names separated by commas.")
    stop_with_parent()
    with open_runtime(settings) as runtime:
        runtime.engine.dispose()  # its connections must not be shared with the children
        found = {"database.url": runtime.database_url, "celery.broker_url": runtime.broker_url}
        _pass_on(settings.override("the servers found", found))
        ctx.exit(_work(names, concurrency or settings.worker.concurrency or os.cpu_count() or 1))


def _pass_on(settings: Settings) -> None:
    """Put what `workers.app` and the children read into the environment: they load the settings themselves."""
    environment = settings_environment(settings, os.environ)
    os.environ.clear()
    os.environ.update(environment)


def _work(queues: list[str], concurrency: int) -> int:
    """Run the worker to its end and return the exit code: 0 if it was told to stop."""
    told: list[bool] = []

    def announce(sender: Any, **_: Any) -> None:
        processes = "1 process" if concurrency == 1 else f"{concurrency} processes"
        click.echo(
            f"Worker {sender.hostname} listens to {', '.join(queues)} with {processes}; Ctrl-C stops it.", err=True
        )

    def remember(**_: Any) -> None:
        told.append(True)

    _say_if_root()
    signals.worker_ready.connect(announce)
    signals.worker_shutting_down.connect(remember)
    process = app.Worker(
        concurrency=concurrency,
        queues=queues,
        quiet=True,
        # what workers would tell each other is of no use here, and costs messages
        without_mingle=True,
        without_gossip=True,
    )
    process.start()
    return 0 if told else int(process.exitcode or 0)


def _say_if_root() -> None:
    """Say in one line what Celery says in seven, with an option that this command does not have."""
    warnings.simplefilter("ignore", SecurityWarning)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        logger.warning("The worker runs as root, and so do its tasks; start it as another user if you can.")
