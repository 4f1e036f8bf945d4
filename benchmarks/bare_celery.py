"""The peer: a Celery app as its documentation's first steps make it, with a task that does nothing.

All settings are Celery's own, with results in Redis; `nothing_kept` is the same task with `ignore_result=True`. Started by
`celery -A benchmarks.bare_celery worker -c 2`: prefork, as many children as ours has.
"""

from __future__ import annotations

import os

from celery import Celery

_BROKER = os.environ["BENCH_CELERY_BROKER"]

app = Celery("bare", broker=_BROKER, backend=os.environ["BENCH_CELERY_BACKEND"])
app.conf.broker_connection_retry_on_startup = True  # silences a warning at the start; nothing else follows from it


@app.task  # type: ignore[untyped-decorator]  # Celery has no types
def nothing() -> None:
    """Do nothing; that it ended is stored as a result."""


@app.task(ignore_result=True)  # type: ignore[untyped-decorator]
def nothing_kept() -> None:
    """Do nothing, and leave no result."""


@app.task(ignore_result=True)  # type: ignore[untyped-decorator]
def say_that_it_is_over(key: str) -> None:
    """Tell whoever waits at `key`; sent last, it costs the others nothing."""
    with app.connection_for_write() as connection, connection.channel() as channel:
        channel.client.rpush(key, "over")
