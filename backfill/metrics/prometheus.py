"""Prometheus metrics of a coordinator. Numbers of a job are those of its `Progress` events, which come from the database.

Series with a `job_id` exist while this process drives the job, so their number stays small however many jobs there have been.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from backfill.exceptions import ConfigError
from backfill.telemetry import (
    Dispatched,
    Event,
    JobEnded,
    JobStarted,
    Progress,
    RunSettled,
    TaskInstanceEnded,
)

_JOB = ("dag_id", "job_id")


class PrometheusMetrics:
    """Subscriber that keeps the metrics of `registry` up to date."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._dag_ids: dict[int, str] = {}
        self._driving = Gauge("backfill_jobs_driving", "Jobs that this process drives.", registry=self.registry)
        self._runs = self._gauge("backfill_runs", "Runs of a job.", "state")
        self._task_instances = self._gauge("backfill_task_instances", "Task instances of a job.", "state")
        self._rate = self._gauge("backfill_rate_per_second", "Task instances finished per second, of late.")
        self._left = self._gauge("backfill_time_left_seconds", "Time that the rest takes at this rate; NaN if unknown.")
        self._dispatched = self._counter("backfill_dispatched", "Task instances handed to executors.")
        self._ended = self._counter("backfill_task_instances_ended", "Attempts seen to end, and settled ones.", "state")
        self._settled = self._counter("backfill_runs_settled", "Runs that finished.", "state", "reason")
        self._jobs = self._counter("backfill_jobs_left", "Jobs that this process stopped driving.", "state")

    def __call__(self, event: Event) -> None:
        """Take in `event`."""
        match event:
            case JobStarted():
                self._dag_ids[event.job_id] = event.dag_id
                self._driving.set(len(self._dag_ids))
            case Progress():
                self._take_counts(event)
            case Dispatched():
                self._dispatched.labels(self._dag_of(event)).inc(len(event.keys))
            case TaskInstanceEnded():
                self._ended.labels(event.key.dag_id, event.state).inc()
            case RunSettled():
                self._settled.labels(self._dag_of(event), event.state, event.reason).inc()
            case JobEnded():
                self._forget(event)
            case _:
                pass

    def _take_counts(self, event: Progress) -> None:
        job = (self._dag_of(event), str(event.job_id))
        for state, number in (("finished", event.runs_finished), ("total", event.runs_total)):
            self._runs.labels(*job, state).set(number)
        for state in _TASK_STATES:
            self._task_instances.labels(*job, state).set(getattr(event, state))
        self._rate.labels(*job).set(event.rate)
        self._left.labels(*job).set(float("nan") if event.eta_seconds is None else event.eta_seconds)

    def _forget(self, event: JobEnded) -> None:
        dag_id = self._dag_ids.pop(event.job_id, "")
        self._jobs.labels(dag_id, event.state).inc()
        self._driving.set(len(self._dag_ids))
        for gauge in (self._runs, self._task_instances, self._rate, self._left):
            gauge.remove_by_labels({"job_id": str(event.job_id)})

    def _dag_of(self, event: Event) -> str:
        return self._dag_ids.get(event.job_id, "")

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, (*_JOB, *labels), registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, ("dag_id", *labels), registry=self.registry)


_TASK_STATES = ("waiting", "running", "succeeded", "failed", "skipped", "deadlocked")


@contextmanager
def serve_metrics(metrics: PrometheusMetrics, address: str, port: int) -> Iterator[int]:
    """Serve `metrics` and those of the process over HTTP while the context lasts; give the port that was taken.

    Port 0 takes any free one. Raises `ConfigError` if another process holds the port.
    """
    PlatformCollector(registry=metrics.registry)
    ProcessCollector(registry=metrics.registry)
    try:
        server, thread = start_http_server(port, address, metrics.registry)
    except OSError as error:
        raise ConfigError(
            f"The metrics page cannot listen on {address} port {port}: {error.strerror}; "
            "set coordinator.metrics_port to a free one."
        ) from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
