"""Metrics of a coordinator, as Prometheus reads them."""

from __future__ import annotations

import math
import socket
from urllib.request import urlopen

import pytest

from backfill.exceptions import ConfigError
from backfill.keys import TaskInstanceKey
from backfill.metrics import PrometheusMetrics, serve_metrics
from backfill.states import DagRunState, JobState, TaskInstanceState
from backfill.telemetry import Dispatched, JobEnded, JobStarted, Progress, RunSettled, TaskInstanceEnded

KEY = TaskInstanceKey("sales", "load", "r")
JOB = {"dag_id": "sales", "job_id": "7"}


@pytest.fixture
def metrics() -> PrometheusMetrics:
    started = PrometheusMetrics()
    started(JobStarted(7, "sales", 31))
    return started


def counts(eta: float | None = 20.0) -> Progress:
    return Progress(7, 3, 31, 80, 2, 10, 1, 4, 5, 4.5, eta)


def test_progress_sets_the_numbers_of_the_job(metrics: PrometheusMetrics) -> None:
    metrics(counts())
    value = metrics.registry.get_sample_value
    assert value("backfill_runs", {**JOB, "state": "finished"}) == 3
    assert value("backfill_runs", {**JOB, "state": "total"}) == 31
    numbers = {"waiting": 80, "running": 2, "succeeded": 10, "failed": 1, "skipped": 4, "deadlocked": 5}
    for state, number in numbers.items():
        assert value("backfill_task_instances", {**JOB, "state": state}) == number
    assert value("backfill_rate_per_second", JOB) == 4.5
    assert value("backfill_time_left_seconds", JOB) == 20


def test_an_unknown_time_left_is_no_number(metrics: PrometheusMetrics) -> None:
    metrics(counts(eta=None))
    left = metrics.registry.get_sample_value("backfill_time_left_seconds", JOB)
    assert left is not None
    assert math.isnan(left)


def test_what_happens_is_counted(metrics: PrometheusMetrics) -> None:
    metrics(Dispatched(7, (KEY, KEY)))
    metrics(TaskInstanceEnded(7, KEY, TaskInstanceState.UP_FOR_RETRY, 1))
    metrics(TaskInstanceEnded(7, KEY, TaskInstanceState.SUCCESS, 2))
    metrics(RunSettled(7, "r", DagRunState.SUCCESS, "success"))
    value = metrics.registry.get_sample_value
    assert value("backfill_dispatched_total", {"dag_id": "sales"}) == 2
    assert value("backfill_task_instances_ended_total", {"dag_id": "sales", "state": "up_for_retry"}) == 1
    assert value("backfill_runs_settled_total", {"dag_id": "sales", "state": "success", "reason": "success"}) == 1


def test_series_of_a_job_go_with_it(metrics: PrometheusMetrics) -> None:
    metrics(counts())
    assert metrics.registry.get_sample_value("backfill_jobs_driving") == 1
    metrics(JobEnded(7, JobState.FAILED))
    value = metrics.registry.get_sample_value
    assert value("backfill_jobs_driving") == 0
    assert value("backfill_jobs_left_total", {"dag_id": "sales", "state": "failed"}) == 1
    assert not [
        sample for family in metrics.registry.collect() for sample in family.samples if "job_id" in sample.labels
    ]


def test_the_page_is_served_while_the_context_lasts(metrics: PrometheusMetrics) -> None:
    with (
        serve_metrics(metrics, "127.0.0.1", 0) as port,
        urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page,
    ):
        text = page.read().decode()
    assert "backfill_jobs_driving 1.0" in text
    assert "process_resident_memory_bytes" in text
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=10)


def test_a_port_that_another_process_holds_is_one_sentence(metrics: PrometheusMetrics) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(ConfigError) as refused, serve_metrics(metrics, "127.0.0.1", port):
            pass
    assert str(refused.value) == (
        f"The metrics page cannot listen on 127.0.0.1 port {port}: Address already in use; "
        "set coordinator.metrics_port to a free one."
    )
