"""What this machine's disk and servers give at most, to hold the other figures against.

No part of the system takes part. `fsync` is timed on a file beside PostgreSQL's data, after each 8 KiB that are written. Commits are those
of connections that each update a row of their own and commit, again and again, by the thread; with several connections
PostgreSQL writes the commits of all of them with one `fsync`. Messages are of 1 KiB, put into a list and taken out again, one by one
and 100 in a pipeline. The clients are Python and take their part of the same cores.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from sqlalchemy import text

from backfill.store.database import create_engine
from benchmarks.ground import Ground
from benchmarks.measurement import Figure, Found, Mode, middle

KEY = "ceilings"
TITLE = "Disk and servers by themselves"
LIMITS = {Mode.FULL: 120, Mode.QUICK: 30}

_CONNECTIONS = (1, 8, 32)
#: Seconds of each sample.
_SECONDS = {Mode.FULL: 2.0, Mode.QUICK: 0.3}
_SAMPLES = 3
_PIPELINE = 100


def measure(ground: Ground, mode: Mode) -> Found:
    """Return what can be had of disk, database and broker in a second."""
    seconds = _SECONDS[mode]
    with ground.engine.begin() as tx:
        tx.execute(text("create table if not exists bench_ceiling (id int primary key, n bigint not null)"))
        tx.execute(text("insert into bench_ceiling select g, 0 from generate_series(1, 64) g on conflict do nothing"))
    try:
        figures = [middle("fsync of 8 KiB", [_fsync_ms(ground, seconds) for _ in range(_SAMPLES)], "ms")]
        figures += [_commits(ground, connections, seconds) for connections in _CONNECTIONS]
    finally:
        with ground.engine.begin() as tx:
            tx.execute(text("drop table bench_ceiling"))
    figures += [_messages(ground, 1, seconds), _messages(ground, _PIPELINE, seconds)]
    return Found(figures=figures, sizes={"seconds each": seconds, "samples": _SAMPLES})


def _fsync_ms(ground: Ground, seconds: float) -> float:
    with (ground.home / "bench" / "fsync").open("wb", buffering=0) as file:

        def write() -> None:
            file.write(b"x" * 8192)
            os.fsync(file.fileno())

        return 1000 / _rate(write, seconds)


def _commits(ground: Ground, connections: int, seconds: float) -> Figure:
    engine = create_engine(ground.database_url, application_name="bench", pool_size=connections, pre_ping=False)
    rates = []
    for _ in range(_SAMPLES):
        counts = [0.0] * connections

        def work(number: int, counts: list[float] = counts) -> None:
            with engine.connect() as tx:
                statement = text("update bench_ceiling set n = n + 1 where id = :id").bindparams(id=number + 1)

                def commit() -> None:
                    tx.execute(statement)
                    tx.commit()

                counts[number] = _rate(commit, seconds)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rates.append(sum(counts))
    engine.dispose()
    plural = "" if connections == 1 else "s"
    return middle(f"commits of {connections} connection{plural}", rates, "1/s")


def _messages(ground: Ground, together: int, seconds: float) -> Figure:
    body = b"x" * 1024
    with ground.broker(database=5) as client:

        def round_trip() -> None:
            with client.pipeline(transaction=False) as pipeline:
                for _ in range(together):
                    pipeline.lpush("bench", body)
                pipeline.execute()
            client.rpop("bench", together)

        rates = [together * _rate(round_trip, seconds) for _ in range(_SAMPLES)]
    return middle(f"messages through the broker, {together} at a time", rates, "1/s")


def _rate(work: Callable[[], None], seconds: float) -> float:
    """Return how often `work` can be done in a second."""
    count, began = 0, time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        work()
        count += 1
    return count / passed
