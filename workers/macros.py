"""`macros` of the template context, by Airflow's names (S12.2)."""

from __future__ import annotations

import json
import random as _random
import time
import uuid
from datetime import datetime, timedelta

import dateutil
import dateutil.parser
import dateutil.relativedelta

__all__ = ["datetime", "dateutil", "ds_add", "ds_format", "json", "random", "time", "timedelta", "uuid"]

random = _random.random


def ds_add(ds: str, days: int) -> str:
    """Return the day `days` after (or, if negative, before) `ds`, as `2024-01-31`."""
    if not days:
        return str(ds)
    return (datetime.fromisoformat(str(ds)) + timedelta(days=days)).strftime("%Y-%m-%d")


def ds_format(ds: str, input_format: str, output_format: str) -> str:
    """Return `ds`, which is written in one `strftime` format, in the other."""
    return datetime.strptime(str(ds), input_format).strftime(output_format)  # noqa: DTZ007  # a text in, a text out
