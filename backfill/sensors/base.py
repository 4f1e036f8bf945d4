"""`BaseSensorOperator`: waits until something is there (S6.7)."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NoReturn, Unpack

from backfill.clock import as_utc
from backfill.dag.arguments import Context, OperatorArguments
from backfill.dag.base_operator import BaseOperator
from backfill.exceptions import (
    BackfillError,
    DagError,
    FailTask,
    RescheduleTask,
    SensorTimeout,
    SkipTask,
    TaskSignal,
    TaskTimeout,
)

SensorMode = Literal["poke", "reschedule"]


class PokeReturnValue:
    """What `poke` may return in place of true or false: whether it is done, and then what the sensor returns."""

    def __init__(self, is_done: bool, xcom_value: Any = None) -> None:
        self.is_done = is_done
        self.xcom_value = xcom_value

    def __bool__(self) -> bool:
        """Tell if the wait is over."""
        return self.is_done


class BaseSensorOperator(BaseOperator):
    """Calls `poke` every `poke_interval` until it returns something true.

    Mode `poke` waits inside of the attempt, `reschedule` gives the place free in between. After `timeout` the sensor fails without
    retry. `soft_fail` turns that, an execution timeout and `FailTask` into a skip, `never_fail` any error of a poke;
    `silent_fail` logs other errors and goes on. Durations are timedeltas or seconds.
    """

    ui_color = "#e6f1f2"

    def __init__(
        self,
        *,
        poke_interval: timedelta | float = 60,
        timeout: timedelta | float = 7 * 24 * 60 * 60,
        soft_fail: bool = False,
        mode: SensorMode = "poke",
        exponential_backoff: bool = False,
        max_wait: timedelta | float | None = None,
        silent_fail: bool = False,
        never_fail: bool = False,
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.poke_interval = self._seconds("poke_interval", poke_interval)
        self.timeout = self._seconds("timeout", timeout)
        self.max_wait = None if max_wait is None else self._seconds("max_wait", max_wait)
        if mode not in {"poke", "reschedule"}:
            raise DagError(f"The sensor {self.task_id!r} has mode={mode!r}; it takes 'poke' or 'reschedule'.")
        if soft_fail and never_fail:
            raise DagError(f"The sensor {self.task_id!r} has both soft_fail and never_fail; give one of them.")
        self.mode = mode
        self.soft_fail = soft_fail
        self.never_fail = never_fail
        self.silent_fail = silent_fail
        self.exponential_backoff = exponential_backoff

    def _seconds(self, name: str, value: object) -> float:
        seconds = value.total_seconds() if isinstance(value, timedelta) else value
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0:
            raise DagError(
                f"The sensor {self.task_id!r} has {name}={value!r}; it takes a timedelta or seconds, from 0."
            )
        return float(seconds)

    def poke(self, context: Context) -> bool | PokeReturnValue:  # noqa: ARG002  # for subclasses
        """Look once; return something true when the wait is over."""
        raise BackfillError(f"The sensor {self.operator_name} has no poke(); its class must define it.")

    def execute(self, context: Context) -> Any:
        """Poke until it is over; return the value of a `PokeReturnValue`."""
        self._stopped = threading.Event()
        try:
            return self._wait(context)
        except (SensorTimeout, TaskTimeout, FailTask) as error:
            if self.soft_fail or self.never_fail:
                raise SkipTask(f"The sensor {self.task_id!r} is skipped: {error}") from error
            raise

    def on_kill(self) -> None:
        """End the wait."""
        stopped = self.__dict__.get("_stopped")
        if stopped is not None:
            stopped.set()

    def _wait(self, context: Context) -> Any:
        started = time.monotonic()
        pokes = 1 if self.mode == "poke" else self._pokes_before(context) + 1
        while True:
            result = self._poke(context)
            if result:
                return result.xcom_value if isinstance(result, PokeReturnValue) else None
            left = self.timeout - (time.monotonic() - started if self.mode == "poke" else self._run_for(context))
            if left <= 0:
                self._fail_by_timeout()
            wait = min(self._next_wait(context, pokes), left)
            if self.mode == "reschedule":
                raise RescheduleTask(datetime.now(UTC) + timedelta(seconds=wait))
            if self._stopped.wait(wait):
                raise BackfillError(f"The sensor {self.task_id!r} was stopped while it waited.")
            pokes += 1

    def _poke(self, context: Context) -> bool | PokeReturnValue:
        try:
            return self.poke(context)
        except TaskSignal:
            raise
        except Exception as error:
            if self.never_fail:
                raise SkipTask(f"The sensor {self.task_id!r} is skipped: {error}") from error
            if not self.silent_fail:
                raise
            self.log.exception("The sensor %s could not look and goes on", self.task_id)
            return False

    def _fail_by_timeout(self) -> NoReturn:
        raise SensorTimeout(f"the sensor {self.task_id!r} has waited for its whole timeout of {self.timeout:g} s")

    def _run_for(self, context: Context) -> float:
        """Return the seconds since the first attempt since the last clear began, across retries and reschedules."""
        first: datetime | None = context["ti"].first_start_date
        return (datetime.now(UTC) - as_utc(first)).total_seconds() if first is not None else 0.0

    def _pokes_before(self, context: Context) -> int:
        """Return how many waits of this length fit into the time since the first attempt: each began with one poke."""
        if not self.exponential_backoff:
            return 0
        elapsed, pokes, longest = self._run_for(context), 0, self.max_wait if self.max_wait is not None else math.inf
        while (wait := self._next_wait(context, pokes + 1)) < longest and elapsed >= wait:
            elapsed -= wait
            pokes += 1
        return pokes

    def _next_wait(self, context: Context, pokes: int) -> float:
        """Return the seconds to wait after the `pokes`-th poke."""
        wait = backoff(self.poke_interval, pokes, _seed(context)) if self.exponential_backoff else self.poke_interval
        return wait if self.max_wait is None else min(wait, self.max_wait)


def backoff(poke_interval: float, pokes: int, seed: str) -> float:
    """Return the wait after the `pokes`-th poke in [b, 2b), b = max(1, floor(poke_interval * 2^(pokes - 2))) (S6.7).

    Where in that range is told by a hash of `seed` and `pokes`, not by chance.
    """
    base = max(1, math.floor(poke_interval * 2.0 ** min(pokes - 2, 60)))
    digest = hashlib.sha1(f"{seed}#{pokes}".encode(), usedforsecurity=False).hexdigest()
    return float(base + int(digest, 16) % base)


def _seed(context: Mapping[str, Any]) -> str:
    ti = context["ti"]
    return f"{ti.dag_id}#{ti.task_id}#{ti.run_id}#{ti.map_index}"
