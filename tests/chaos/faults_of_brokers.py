"""Valkey dies, forgets, and is away; messages come twice, late, forged and broken."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import uuid
from collections.abc import Callable, Iterator

import redis
from chaos_faults import PATIENT, fault, slow_plan
from chaos_scene import Scene
from waiting import wait_until

QUEUE = "backfill"
#: Entries of a queue that are no messages of ours.
BROKEN = (
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"body": "e30=", "headers": {}, "properties": {}}',
    b"[" * 100_000,
)


@fault("kill -9 of Valkey, restarted empty", quick=True)
def the_broker_is_killed(scene: Scene) -> None:
    scene.start_workers()
    run = scene.run(**PATIENT)
    with scene.strike():
        scene.servers.kill_broker()
        scene.servers.forget_messages()
        scene.servers.start_again()
    scene.expect_end(run)


@fault("FLUSHALL of Valkey")
def the_broker_forgets(scene: Scene) -> None:
    scene.start_workers()
    run = scene.run(**PATIENT)
    with scene.strike(), scene.servers.redis() as client:
        client.flushall()
    scene.expect_end(run)


@fault("Valkey is down for a minute")
def the_broker_is_down(scene: Scene) -> None:
    scene.start_workers()
    run = scene.run()
    with scene.strike():
        scene.servers.kill_broker()
    scene.pause(60)
    scene.servers.start_again()
    scene.expect_end(run)


@fault("the event stream loses everything")
def events_are_lost(scene: Scene) -> None:
    scene.start_workers()
    run = scene.run()
    wait_until(lambda: scene.rows.job, "there is a job")
    stream = f"backfill:events:{scene.rows.job.id}"
    with _again_and_again(scene, lambda client: client.delete(stream)):
        with scene.strike():
            pass
        scene.expect_end(run)


@fault("each message comes twice, late, under a forged attempt id; others are no messages at all", quick=True)
def messages_come_again(scene: Scene) -> None:
    """All that ever waits in the queue is put there again, early, and after everything has ended."""
    workers = scene.start_workers()
    seen: set[bytes] = set()
    with _again_and_again(scene, lambda client: _double(client, seen)):
        run = scene.run()
        with scene.strike(), scene.servers.redis() as client:
            early = list(seen)
            client.rpush(QUEUE, *BROKEN, *early, *map(_forged, early))
        scene.expect_end(run)
    with scene.servers.redis() as client:
        client.rpush(QUEUE, *seen)
        wait_until(lambda: not client.llen(QUEUE), "nothing waits in the queue")
    assert len(seen) > 20
    assert any("is no message of ours; it is dropped" in worker.told for worker in workers)


@fault("messages of a job that was cancelled come again", cut_short=True, plan=slow_plan)
def messages_of_a_cancelled_job_come_again(scene: Scene) -> None:
    scene.start_workers()
    seen: set[bytes] = set()
    with _again_and_again(scene, lambda client: _double(client, seen)):
        run = scene.run()
        with scene.strike():
            cancelled = scene.start("cancel", str(scene.rows.job.id))
        assert cancelled.end() == 0, cancelled.told
        assert run.end() == 4, run.told
    before = scene.count("start")
    with scene.servers.redis() as client:
        client.rpush(QUEUE, *seen)
        wait_until(lambda: not client.llen(QUEUE), "nothing waits in the queue")
    scene.stop_workers()
    assert scene.count("start") == before
    assert not {row.state for row in scene.rows.ask("select state from task_instance")} & {"queued", "running"}


def _double(client: redis.Redis, seen: set[bytes]) -> None:
    """Put what is new in the queue there once more, and before its original."""
    new = set(client.lrange(QUEUE, 0, -1)) - seen - set(BROKEN)
    seen |= new
    if new:
        client.rpush(QUEUE, *new)


def _forged(raw: bytes) -> bytes:
    """Return a message of the same task instance under an attempt id that was never given."""
    message = json.loads(raw)
    [[bundle], keywords, embedded] = json.loads(base64.b64decode(message["body"]))
    forged = str(uuid.uuid4())
    bundle["attempts"] = [[ti, key, forged, number] for ti, key, _, number in bundle["attempts"]]
    message["body"] = base64.b64encode(json.dumps([[bundle], keywords, embedded]).encode()).decode()
    message["headers"]["id"] = message["properties"]["correlation_id"] = forged
    return json.dumps(message).encode()


@contextlib.contextmanager
def _again_and_again(scene: Scene, what: Callable[[redis.Redis], object]) -> Iterator[None]:
    """Do something to the broker all the time."""
    ended = threading.Event()

    def go_on() -> None:
        with scene.servers.redis() as client:
            while not ended.wait(0.02):
                what(client)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
