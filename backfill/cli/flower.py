"""`backfill flower`: Flower in this process, on loopback, behind a login, and looking only.

In this process, so that the broker's URL and the password stand on no command line. Flower's `/metrics` and `/healthcheck` ask for no
login, whatever is configured.
"""

from __future__ import annotations

import logging
from typing import Any

import click

from backfill.cli.broker import open_broker
from backfill.cli.command import Command, is_verbose, log_format_option
from backfill.cli.flower_login import invitation, password
from backfill.cli.parameters import PORT
from backfill.cli.parent import stop_with_parent
from backfill.cli.telling import start_logging
from backfill.config import Settings, load_settings
from backfill.exceptions import ConfigError

#: Seconds after which a worker that sends no heartbeat is dropped from the pages.
PURGE_OFFLINE_WORKERS = 300
#: Task instances that are kept in memory.
MAX_TASKS = 20_000
#: What the list of tasks shows: the keyword arguments say which task instance it is.
TASKS_COLUMNS = "name,kwargs,state,received,runtime,worker,uuid"


@click.command(cls=Command)
@click.option("--address", metavar="ADDRESS", help="Address to listen on.  [default: flower.address]")
@click.option("--port", metavar="PORT", type=PORT, help="Port to listen on.  [default: flower.port]")
@click.option(
    "--read-only/--no-read-only",
    default=True,
    help="Take away what changes workers and tasks, such as revoke and shut down.  [default: on]",
)
@log_format_option
@click.pass_context
def flower(ctx: click.Context, address: str | None, port: int | None, read_only: bool, log_format: str | None) -> None:
    """Show workers and task instances in a browser.

    Flower on this machine only unless told otherwise, behind a login. What it shows is what workers announce: the database, and so
    `backfill status` and `backfill tasks`, know better about tasks that were killed.
    """
    given = {"flower.address": address, "flower.port": port, "logging.format": log_format}
    settings = load_settings().override(
        "the command line", {name: value for name, value in given.items() if value is not None}
    )
    start_logging(settings, verbose=is_verbose(ctx), service=True)
    stop_with_parent()
    with open_broker(settings) as broker_url:
        _serve(settings, broker_url, read_only=read_only)


def _serve(settings: Settings, broker_url: str, *, read_only: bool) -> None:
    """Run Flower until a signal ends it."""
    from flower.app import Flower  # noqa: PLC0415  # takes long to import
    from flower.options import options  # noqa: PLC0415  # as above
    from flower.urls import settings as tornado_settings  # noqa: PLC0415  # as above

    _configure(options, settings, read_only=read_only)
    server = Flower(capp=_celery_app(settings, broker_url), options=options, **tornado_settings)
    try:
        server.start_http_server()
    except OSError as error:
        where = f"{settings.flower.address} port {settings.flower.port}"
        raise ConfigError(f"Flower cannot listen on {where}: {error.strerror}; give it another with --port.") from error
    click.echo(f"{invitation(settings)}; Ctrl-C stops it.", err=True)
    try:
        server.start()
    except KeyboardInterrupt:
        pass  # the ordinary end
    finally:
        server.stop()


def _configure(options: Any, settings: Settings, *, read_only: bool) -> None:
    """Put Flower's options where it reads them; nothing comes from its own files, environment or arguments."""
    options.address = settings.flower.address
    options.port = settings.flower.port
    options.basic_auth = [f"{settings.flower.user}:{password(settings)}"]
    options.read_only = read_only
    options.purge_offline_workers = PURGE_OFFLINE_WORKERS
    options.max_tasks = MAX_TASKS
    options.tasks_columns = TASKS_COLUMNS
    # it asks for workers at once, and warns of each question that none answers
    logging.getLogger("flower.inspector").setLevel(logging.ERROR)
    requests = logging.getLogger("tornado.access")
    requests.addHandler(logging.NullHandler())
    requests.propagate = False


def _celery_app(settings: Settings, broker_url: str) -> Any:
    """Return a Celery app that knows the broker; it needs none of the workers' code."""
    from celery import Celery  # noqa: PLC0415  # takes long to import

    app = Celery("backfill", broker=broker_url)
    app.conf.update(
        accept_content=["json"],
        task_default_queue=settings.celery.queue,
        broker_connection_retry_on_startup=True,
        broker_transport_options={"socket_timeout": 30, "socket_connect_timeout": 5, "socket_keepalive": True},
    )
    return app
