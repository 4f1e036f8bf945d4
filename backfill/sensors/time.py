"""Sensors that wait for a time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from backfill.clock import as_utc
from backfill.dag.arguments import Context
from backfill.exceptions import BackfillError, DagError
from backfill.sensors.base import BaseSensorOperator


class DateTimeSensor(BaseSensorOperator):
    """Waits until `target_time`, a datetime or an ISO 8601 text that may be a template; naive ones are UTC."""

    template_fields: Sequence[str] = ("target_time",)

    def __init__(self, *, target_time: datetime | str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(target_time, datetime | str):
            raise DagError(
                f"The sensor {self.task_id!r} has target_time={target_time!r}; it takes a datetime or a text."
            )
        self.target_time = target_time.isoformat() if isinstance(target_time, datetime) else target_time

    def poke(self, context: Context) -> bool:  # noqa: ARG002  # the base's signature
        """Tell if the time has come."""
        return datetime.now(UTC) > self._moment()

    def _moment(self) -> datetime:
        try:
            return as_utc(datetime.fromisoformat(str(self.target_time)))
        except ValueError:
            raise BackfillError(
                f"The sensor {self.task_id!r} has target_time={self.target_time!r}; it takes an ISO 8601 time."
            ) from None


class TimeDeltaSensor(BaseSensorOperator):
    """Waits until `delta` after the end of the run's data interval."""

    def __init__(self, *, delta: timedelta, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(delta, timedelta):
            raise DagError(f"The sensor {self.task_id!r} has delta={delta!r}; it takes a timedelta.")
        self.delta = delta

    def poke(self, context: Context) -> bool:
        """Tell if the time has come."""
        return datetime.now(UTC) > as_utc(context["data_interval_end"]) + self.delta
