"""`backfill coordinator`: the daemon that drives submitted jobs."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack

import click

from backfill.bootstrap import open_runtime
from backfill.cli.command import Command, is_verbose, log_format_option
from backfill.cli.parameters import METRICS_PORT, PROCESSES
from backfill.cli.parent import stop_with_parent
from backfill.cli.telling import start_logging
from backfill.config import Settings, load_settings
from backfill.exceptions import Interrupted
from backfill.metrics import EventLog, PrometheusMetrics, serve_metrics
from backfill.telemetry import Telemetry

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@click.command(cls=Command)
@click.option(
    "--metrics-port",
    metavar="PORT",
    type=METRICS_PORT,
    help="Port of the Prometheus page; 0: none.  [default: coordinator.metrics_port]",
)
@click.option("--workers", metavar="N", type=PROCESSES, default=0, help="Also start a Celery worker with N processes.")
@log_format_option
@click.pass_context
def coordinator(ctx: click.Context, metrics_port: int | None, workers: int, log_format: str | None) -> None:
    """Run submitted jobs, until stopped.

    Several may run at once, on any machine that reaches database and broker: each job is driven by exactly one of them, and taken
    over by another when its lease runs out. Told to stop (SIGTERM, Ctrl-C) it pauses the jobs that it drives, and exits with 130
    if there were any.
    """
    settings = _settings(metrics_port, log_format)
    start_logging(settings, verbose=is_verbose(ctx), service=True)
    stop_with_parent()
    with open_runtime(settings) as runtime, ExitStack() as at_the_end:
        runtime.telemetry.subscribe(EventLog())
        _serve_metrics(settings, runtime.telemetry, at_the_end)
        if workers:
            at_the_end.enter_context(runtime.local_workers(workers))
        daemon = runtime.coordinator()
        _stop_on_signals(daemon.stop)
        click.echo("The coordinator waits for submitted jobs; Ctrl-C stops it.", err=True)
        _tell_of(daemon.run())


def _tell_of(paused: list[int]) -> None:
    """End the command as interrupted if that left jobs paused, and say how to go on with them (S11.4)."""
    if not paused:
        return
    interrupted = Interrupted("The coordinator was stopped, and left what it drove paused.")
    for job_id in paused:
        interrupted.add_note(f"Job {job_id} can be resumed: backfill resume {job_id}")
    raise interrupted


def _settings(metrics_port: int | None, log_format: str | None) -> Settings:
    settings = load_settings()
    if metrics_port is not None:
        settings = settings.override("--metrics-port", {"coordinator.metrics_port": metrics_port})
    if log_format is not None:
        settings = settings.override("--log-format", {"logging.format": log_format})
    return settings


def _serve_metrics(settings: Settings, telemetry: Telemetry, at_the_end: ExitStack) -> None:
    if not settings.coordinator.metrics_port:
        return
    metrics = PrometheusMetrics()
    telemetry.subscribe(metrics)
    address = settings.coordinator.metrics_address
    port = at_the_end.enter_context(serve_metrics(metrics, address, settings.coordinator.metrics_port))
    click.echo(f"Metrics: http://{address}:{port}/metrics", err=True)


def _stop_on_signals(stop: Callable[[], None]) -> None:
    """Let each SIGTERM and SIGINT call `stop`, which knows what a second one means (S11.4)."""
    for number in _SIGNALS:
        signal.signal(number, lambda *_: stop())
