"""Stands in for any number of workers whose tasks take no time: `python -m benchmarks.instant DATABASE BROKER ITEMS`.

Where the coordinator alone is looked at, real workers would only be in its way: with a million task instances they take the two
cores for an hour. This process takes the coordinator's real messages from the real queue, as many at a time as there are, writes the rows of
claim and end in one statement for all of them, and puts the real events on the job's stream. For the coordinator nothing differs.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from redis import Redis
from sqlalchemy import Engine, text

from backfill.messages import Attempt, Bundle, ExecutorEvent, encode_events
from backfill.states import TaskInstanceState
from backfill.store.database import create_engine

_QUEUE = "backfill"
#: Messages taken at a time.
_MOST = 500
#: What a task is said to have taken, in seconds.
_DURATION = 0.0005

_DONE = text("""
with mine as (
    select t.id, t.task_id
    from unnest(cast(:ids as bigint[]), cast(:attempts as uuid[])) as g (id, attempt_id)
    join task_instance t on t.id = g.id and t.external_executor_id = g.attempt_id and t.state = 'queued'
    order by t.id for no key update of t
), done as (
    update task_instance t
    set state = 'success', start_date = statement_timestamp(), end_date = statement_timestamp(), duration = 0,
        first_start_date = statement_timestamp(), hostname = 'instant', pid = 0, try_open = false
    from mine where t.id = mine.id
    returning t.id, t.external_executor_id, t.try_number, t.queued_by_job_id, t.start_date, t.task_id
), kept as (
    insert into task_attempt (attempt_id, task_instance_id, try_number, job_id, start_date, end_date, outcome)
    select external_executor_id, id, try_number, queued_by_job_id, start_date, start_date, 'success' from done
), returned as (
    insert into xcom (task_instance_id, key, value)
    select id, 'return_value', cast(:value as jsonb) from done where task_id = 'items'
)
select id from done
""")


def main() -> None:
    """Serve the queue until SIGTERM, or until whoever started this is gone."""
    database_url, broker_url, items = sys.argv[1:]
    value = json.dumps(list(range(int(items))))
    engine = create_engine(database_url, application_name="instant workers", pre_ping=False)
    client = Redis(unix_socket_path=broker_url.removeprefix("redis+socket://"))
    sys.stdout.write("listens\n")
    sys.stdout.flush()
    parent = os.getppid()
    while os.getppid() == parent:
        bundles = _take(client)
        if bundles:
            _finish(engine, [attempt for bundle in bundles for attempt in bundle.attempts], value)
            _report(client, bundles)


def _take(client: Redis) -> list[Bundle]:
    """Return what waits in the queue; blocks for a second at most."""
    first: Any = client.brpop([_QUEUE], timeout=1)
    if first is None:
        return []
    more: Any = client.rpop(_QUEUE, _MOST) or []
    return [_bundle(message) for message in [first[1], *more]]


def _bundle(message: bytes) -> Bundle:
    """Return the bundle that a Celery message carries: the first of the positional arguments."""
    positional, _, _ = json.loads(base64.b64decode(json.loads(message)["body"]))
    return Bundle.decode(positional[0])


def _finish(engine: Engine, attempts: Sequence[Attempt], value: str) -> None:
    with engine.begin() as tx:
        tx.execute(
            _DONE,
            {
                "ids": [attempt.task_instance_id for attempt in attempts],
                "attempts": [attempt.attempt_id for attempt in attempts],
                "value": value,
            },
        )


def _report(client: Redis, bundles: Iterable[Bundle]) -> None:
    """Put on the stream what a worker puts there: that the attempts of a bundle run, and that they have ended."""
    with client.pipeline(transaction=False) as pipeline:
        for bundle in bundles:
            for state, duration in ((TaskInstanceState.RUNNING, None), (TaskInstanceState.SUCCESS, _DURATION)):
                events = [_event(attempt, state, duration) for attempt in bundle.attempts]
                pipeline.xadd(bundle.stream, {"e": encode_events(events)}, maxlen=100_000, approximate=True)
        pipeline.execute()


def _event(attempt: Attempt, state: TaskInstanceState, duration: float | None) -> ExecutorEvent:
    return ExecutorEvent(attempt.task_instance_id, attempt.attempt_id, state, duration=duration)


if __name__ == "__main__":
    main()
