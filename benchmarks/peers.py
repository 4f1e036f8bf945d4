"""Bare Celery, to compare with: its worker, and a `group` of as many no-op tasks, with results or without."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis

from benchmarks.ground import ROOT, Ground
from benchmarks.processes import MeasureFailed, running, wait_until

#: Numbers of the broker's databases; ours is 0.
_QUEUES, _RESULTS = 2, 3
#: Key on which the last task of a group says that it is the last.
_OVER = "bench:over"
#: Seconds after which a group is given up.
_PATIENCE = 300


class BareCelery:
    """A Celery worker that listens, and the client that sends to it."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        #: Of the worker's main process.
        self.pid = 0
        broker, backend = _url(ground, _QUEUES), _url(ground, _RESULTS)
        os.environ.update(BENCH_CELERY_BROKER=broker, BENCH_CELERY_BACKEND=backend)
        from benchmarks import bare_celery  # noqa: PLC0415  # reads where the broker is

        self._tasks: Any = bare_celery
        # the module may have been imported for another ground
        self._tasks.app.conf.update(broker_url=broker, result_backend=backend)

    def listens(self) -> bool:
        """Return whether a worker answers."""
        return bool(self._tasks.app.control.ping(timeout=0.5))

    def seconds_with_results(self, count: int) -> float:
        """Return the seconds from the call of `group(…).apply_async()` until `get()` has returned all results."""
        began = time.monotonic()
        _group(self._tasks.nothing.si() for _ in range(count)).apply_async().get(timeout=_PATIENCE)
        seconds = time.monotonic() - began
        self._forget_results(count)
        return seconds

    def seconds_with_results_unread(self, count: int) -> float:
        """Return the seconds until the worker has stored all results of a group, which nobody reads."""
        seconds = self._seconds_until_over(self._tasks.nothing, count)
        self._forget_results(count)
        return seconds

    def seconds_without_results(self, count: int) -> float:
        """Return the seconds until the worker has come to the end of a group whose results are ignored."""
        return self._seconds_until_over(self._tasks.nothing_kept, count)

    def _seconds_until_over(self, task: Any, count: int) -> float:
        """Return when a last task says that its turn has come: nothing polls. Up to one task may still run then."""
        with self._ground.broker(_QUEUES) as client:
            client.delete(_OVER)
            signatures = [*(task.si() for _ in range(count)), self._tasks.say_that_it_is_over.si(_OVER)]
            began = time.monotonic()
            _group(signatures).apply_async()
            if client.blpop([_OVER], timeout=_PATIENCE) is None:
                raise MeasureFailed(f"a group of {count} Celery tasks did not end within {_PATIENCE} s")
            return time.monotonic() - began

    def _forget_results(self, expected: int) -> None:
        """Hold the number of stored results against what it should be, and delete them."""
        with self._ground.broker(_RESULTS) as client:
            wait_until(lambda: _size(client) >= expected, f"{expected} results", within=5)
            client.flushdb()


def _group(signatures: Iterable[Any]) -> Any:
    from celery import group  # noqa: PLC0415  # only where a peer is measured

    return group(signatures)


def _size(client: Redis) -> int:
    size: Any = client.dbsize()
    return int(size)


@contextmanager
def bare_celery(ground: Ground, children: int) -> Iterator[BareCelery]:
    """Run `celery worker -c CHILDREN` with the peer's app while the block lasts."""
    peer = BareCelery(ground)
    log = ground.log("celery")
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.bare_celery", "worker", "-c", str(children)]
    environment = ground.environment(
        {name: os.environ[name] for name in ("BENCH_CELERY_BROKER", "BENCH_CELERY_BACKEND")}
    )
    with running(command, environment, log, cwd=ROOT) as process:
        # asked, as its own words would need a log level at which it writes two lines for each task
        wait_until(lambda: process.poll() is not None or peer.listens(), "the Celery worker", within=60)
        peer.pid = process.pid
        yield peer


def _url(ground: Ground, database: int) -> str:
    return f"{ground.broker_url}?virtual_host={database}"
