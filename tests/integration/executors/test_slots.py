"""How many processes listen to a queue, by what real workers' keys say."""

from collections.abc import Iterator

import pytest
import redis

from backfill.executors import broker
from backfill.executors.presences import presences
from backfill.executors.slots import GOOD_FOR, Slots
from workers.presence import Presence, presence_key


@pytest.fixture
def server(broker_url: str) -> Iterator[redis.Redis]:
    with broker.connect(broker_url, name="test") as client:
        yield client


def listens(server: redis.Redis, hostname: str, concurrency: int, *queues: str) -> None:
    presence = Presence(hostname=hostname, concurrency=concurrency, queues=queues)
    server.set(presence_key(hostname), presence.body())


class Watch:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_processes_are_counted_for_each_queue_that_they_listen_to(server: redis.Redis) -> None:
    listens(server, "one@host", 4, "backfill", "gpu")
    listens(server, "two@host", 2, "backfill")
    server.set("backfill:queues:7", "no worker")
    slots = Slots()
    slots.ask_if_due(server)
    assert [slots.count(queue) for queue in ("backfill", "gpu", "nobody")] == [6, 4, 1]


def test_an_answer_is_good_for_a_while(server: redis.Redis) -> None:
    watch = Watch()
    slots = Slots(watch)
    slots.ask_if_due(server)
    listens(server, "one@host", 4, "backfill")
    slots.ask_if_due(server)
    assert slots.count("backfill") == 1
    watch.seconds += GOOD_FOR.total_seconds()
    slots.ask_if_due(server)
    assert slots.count("backfill") == 4


@pytest.mark.parametrize(
    "value",
    ["", "{", "[" * 100_000, "7", "null", '{"queues": 7}', '{"queues": ["backfill"], "concurrency": "many"}', b"\xff"],
    ids=["nothing", "cut short", "nested", "a number", "null", "no list", "no number", "no text"],
)
def test_a_key_that_holds_no_presence_is_passed_over(server: redis.Redis, value: str | bytes) -> None:
    server.set(presence_key("forged@host"), value)
    server.lpush(presence_key("list@host"), "x")
    listens(server, "one@host", 4, "backfill")
    slots = Slots()
    slots.ask_if_due(server)
    assert slots.count("backfill") == 4
    assert [worker.hostname for worker in presences(server)] == ["one@host"]
