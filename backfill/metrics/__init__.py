"""Subscribers of `backfill.telemetry` that machines read: structured logs and Prometheus metrics."""

from backfill.metrics.event_log import EventLog
from backfill.metrics.logs import JsonFormatter, configure_logging
from backfill.metrics.prometheus import PrometheusMetrics, serve_metrics

__all__ = ["EventLog", "JsonFormatter", "PrometheusMetrics", "configure_logging", "serve_metrics"]
