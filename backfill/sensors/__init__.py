"""Sensors: tasks that wait until something is there."""

from __future__ import annotations

from backfill.sensors.base import BaseSensorOperator, PokeReturnValue
from backfill.sensors.file import FileSensor
from backfill.sensors.python import PythonSensor
from backfill.sensors.time import DateTimeSensor, TimeDeltaSensor

__all__ = [
    "BaseSensorOperator",
    "DateTimeSensor",
    "FileSensor",
    "PokeReturnValue",
    "PythonSensor",
    "TimeDeltaSensor",
]
