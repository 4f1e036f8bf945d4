"""`backfill up`: everything on this machine, in one terminal."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from threading import Lock

import click
from rich.console import Console
from rich.text import Text

from backfill.bootstrap import Runtime, open_runtime
from backfill.cli.command import Command, is_verbose, log_format_option
from backfill.cli.flower_login import invitation
from backfill.cli.parameters import PORT, PROCESSES
from backfill.cli.telling import start_logging
from backfill.cli.terminal import note_console, visible
from backfill.config import Settings, load_settings
from backfill.coordinator.household import Household, Post
from backfill.executors.environment import settings_environment
from backfill.states import JobState
from backfill.store import report
from backfill.store.database import mask_url, repeat, server_name

#: Beyond the time that its tasks have, what a worker needs for its own end.
_LEAVING = timedelta(seconds=10)
_STYLES = {"coordinator": "cyan", "worker": "green", "flower": "magenta"}
_WIDEST = max(map(len, _STYLES))


@click.command(cls=Command)
@click.option(
    "--workers",
    metavar="N",
    type=PROCESSES,
    help="Processes of the Celery worker; 0: start none.  [default: worker.concurrency, else one per core]",
)
@click.option("--flower-port", metavar="PORT", type=PORT, help="Port of Flower.  [default: flower.port]")
@click.option("--flower/--no-flower", default=True, help="Show workers and tasks in a browser.  [default: on]")
@log_format_option
@click.pass_context
def up(ctx: click.Context, workers: int | None, flower_port: int | None, flower: bool, log_format: str | None) -> None:
    """Run everything on this machine, in this terminal.

    PostgreSQL and Valkey where none are configured, a coordinator for submitted jobs, a Celery worker, and Flower. Their log lines come
    here, each with the name of its process; one that dies is started again. Ctrl-C stops all of it in order: the coordinator leaves its
    jobs paused, the worker lets its tasks run on for worker.soft_shutdown_timeout and then hands them back. A second Ctrl-C kills at
    once. Exits with 130 if jobs were left paused.
    """
    given = {"flower.port": flower_port, "logging.format": log_format}
    settings = load_settings().override(
        "the command line", {name: value for name, value in given.items() if value is not None}
    )
    start_logging(settings, verbose=is_verbose(ctx))
    speaker = Speaker(as_json=settings.logging.format == "json")
    with open_runtime(settings) as runtime:
        concurrency = settings.worker.concurrency or os.cpu_count() or 1 if workers is None else workers
        shows = flower and _port_is_free(settings, speaker.tell)
        for line in greeting(runtime, concurrency, flower=shows):
            speaker.tell(line)
        household = Household(
            posts(settings, concurrency, flower=shows),
            # each process uses the servers by itself, so that the last of them stops those, also if this one is killed
            environment=settings_environment(settings, os.environ),
            say=speaker.say,
            tell=speaker.tell,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: household.interrupt())
        code = household.run()
    ctx.exit(code)


def posts(settings: Settings, concurrency: int, *, flower: bool) -> list[Post]:
    """Return what is to run, in the order in which it is stopped."""
    soft = settings.worker.soft_shutdown_timeout + _LEAVING
    found = [Post(name="coordinator", arguments=["coordinator"])]
    if concurrency:
        found.append(Post(name="worker", arguments=["worker", "-c", str(concurrency)], stop_within=soft))
    if flower:
        found.append(Post(name="flower", arguments=["flower"], stop_within=_LEAVING, optional=True))
    return found


def greeting(runtime: Runtime, concurrency: int, *, flower: bool) -> Iterator[str]:
    """Yield what is running where, and what may be typed next."""
    settings = runtime.settings
    yield f"Database: {server_name(runtime.engine.url)}{'' if settings.database.url else ' (embedded)'}"
    yield f"Broker: {mask_url(runtime.broker_url)}{'' if settings.celery.broker_url else ' (embedded)'}"
    if concurrency:
        yield f"Worker: {'1 process' if concurrency == 1 else f'{concurrency} processes'}, queue {settings.celery.queue}"
    if flower:
        yield invitation(settings)
    if settings.coordinator.metrics_port:
        yield f"Metrics: http://{settings.coordinator.metrics_address}:{settings.coordinator.metrics_port}/metrics"
    yield from _left_paused(runtime)
    yield "In another terminal:"
    yield "  backfill submit TARGET -s DATE -e DATE   create a job for this coordinator"
    yield "  backfill list                            the jobs"
    yield "  backfill status JOB --watch              its progress; likewise: why, logs, pause, cancel"
    yield "Ctrl-C stops all of it."


def _left_paused(runtime: Runtime) -> Iterator[str]:
    for job in repeat(runtime.engine, report.list_job_summaries):
        if job.state == JobState.PAUSED:
            yield f"Job {job.job_id} of {job.dag_id} is paused: backfill resume {job.job_id}"


def _port_is_free(settings: Settings, tell: Callable[[str], object]) -> bool:
    """Return whether Flower can have its port; say so if not."""
    address, port = settings.flower.address, settings.flower.port
    with suppress(socket.gaierror):  # Flower itself says what is wrong with an address
        family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                tell(
                    f"Flower is left out: it cannot listen on {address} port {port} ({error.strerror}); "
                    "give it another with --flower-port."
                )
                return False
    return True


class Speaker:
    """Writes the lines of several processes to stderr, whole and one at a time, each with the name of its process."""

    def __init__(self, *, as_json: bool, console: Console | None = None) -> None:
        self._console = console or note_console()
        self._as_json = as_json
        self._turn = Lock()

    def say(self, name: str, line: str) -> None:
        """Write a line of a process. JSON is passed on as it is: it names its process itself."""
        if self._as_json and line.startswith("{"):
            text = Text(line)
        else:
            style = _STYLES.get(name, "")
            text = Text.assemble((f"{name:<{_WIDEST}} │ ", style), visible(line))
        self._print(text)

    def tell(self, line: str) -> None:
        """Write a line of the command itself."""
        self._print(Text(visible(line), style="bold"))

    def _print(self, text: Text) -> None:
        with self._turn:
            self._console.print(text, soft_wrap=True)
