"""What the coordinator's side asks of the broker besides sending: does it answer, and which workers listen."""

from __future__ import annotations

import contextlib
import os
import socket

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from backfill.exceptions import ConfigError, ServiceUnavailable
from backfill.executors.listener import KEY_LIFETIME
from backfill.executors.presences import WorkerPresence, presences
from backfill.messages import ORDER, event_stream
from backfill.store.database import mask_url

#: Seconds until a broker that accepts no connection, or gives no answer, counts as not answering.
TIMEOUT = 5.0


def connect(url: str) -> redis.Redis:
    """Return a client for `url`; nothing is connected yet. Raises `ConfigError` for a URL that names no Redis."""
    plain = url.replace("redis+socket://", "unix://", 1)
    try:
        return redis.Redis.from_url(
            plain, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, retry=Retry(NoBackoff(), 1)
        )
    except ValueError as error:
        raise ConfigError(
            f"The broker URL {mask_url(url)!r} is not of the form redis://host:6379/0; correct `celery.broker_url`."
        ) from error


def check_broker(url: str) -> None:
    """Raise `ServiceUnavailable`, naming the broker without its password, unless it answers."""
    with connect(url) as client:
        try:
            client.ping()
        except (redis.AuthenticationError, redis.ResponseError) as error:
            # without a password a server that wants one tells of its protocol only
            why = (
                "it asks for a password" if "HELLO" in str(error) or "NOAUTH" in str(error) else str(error).rstrip(".")
            )
            raise ServiceUnavailable(
                f"The broker at {mask_url(url)} refused the connection ({why}); correct `celery.broker_url` or grant access."
            ) from error
        except redis.RedisError as error:
            raise ServiceUnavailable(
                f"The broker at {mask_url(url)} does not answer ({str(error).rstrip('.')}); "
                "check that it runs and can be reached, then repeat the command."
            ) from error


def wake_holder(url: str, job_id: int) -> None:
    """Have the process that drives a job look at the job's row now; where the broker does not answer it does so by itself soon."""
    stream = event_stream(job_id)
    with contextlib.suppress(redis.RedisError), connect(url) as client:
        client.xadd(stream, {ORDER: ""})
        client.expire(stream, KEY_LIFETIME)


def living_workers(url: str) -> list[WorkerPresence]:
    """Return the workers that listen on the broker, by the keys that they renew."""
    with connect(url) as client:
        return presences(client)


def a_worker_listens(url: str, queue: str) -> bool:
    """Return whether a worker takes messages from `queue`; also if the broker does not answer, for then nobody can tell."""
    try:
        return any(queue in worker.queues for worker in listening_workers(url))
    except redis.RedisError:
        return True


def listening_workers(url: str) -> list[WorkerPresence]:
    """Return the workers that listen, without those of this machine that were killed so lately that they seem to live on."""
    return [worker for worker in living_workers(url) if not _was_killed(worker.hostname)]


def _was_killed(hostname: str) -> bool:
    """Return whether a worker's name, which outlives it for some seconds, is that of a process of this machine that is gone."""
    name, _, host = hostname.partition("@")
    pid = name.removeprefix("backfill-")
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's
        return False
    return False
