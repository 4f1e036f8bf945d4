import uuid
from pathlib import Path
from typing import Any

import pytest
import redis

from backfill.executors import broker
from backfill.messages import ExecutorEvent, decode_events
from backfill.states import TaskInstanceState
from workers import events
from workers.events import EventPublisher

STREAM = "backfill:events:1"


def event(number: int) -> ExecutorEvent:
    return ExecutorEvent(number, str(uuid.UUID(int=number)), TaskInstanceState.SUCCESS)


def received(client: redis.Redis, stream: str = STREAM) -> list[int]:
    entries: Any = client.xrange(stream)
    texts = [text for _, fields in entries for text in fields.values()]
    return [event.task_instance_id for text in texts for event in decode_events(text)]


def test_events_go_to_their_streams_which_do_not_live_for_ever(broker_url: str) -> None:
    publisher = EventPublisher(broker_url)
    publisher.publish(STREAM, [event(1)])
    publisher.publish("backfill:events:2", [event(2)])
    publisher.close()
    with broker.connect(broker_url, name="test") as client:
        assert received(client) == [1]
        assert received(client, "backfill:events:2") == [2]
        assert all(client.ttl(key) > 0 for key in client.keys("*"))


def test_events_that_happened_together_are_one_entry(broker_url: str) -> None:
    publisher = EventPublisher(broker_url)
    publisher.publish(STREAM, [event(number) for number in range(3)])
    publisher.close()
    with broker.connect(broker_url, name="test") as client:
        assert client.xlen(STREAM) == 1
        assert received(client) == [0, 1, 2]


def test_a_stream_is_bounded(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "STREAM_LENGTH", 10)
    publisher = EventPublisher(broker_url)
    for number in range(500):
        publisher.publish(STREAM, [event(number)])
    publisher.close()
    with broker.connect(broker_url, name="test") as client:
        assert 10 <= client.xlen(STREAM) < 400


def test_events_wait_for_a_broker_that_is_away_and_that_is_said_once(
    broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(events, "_PAUSE", 0.0)
    socket = tmp_path / "s"
    publisher = EventPublisher(f"redis+socket://{socket}")
    for number in range(3):
        publisher.publish(STREAM, [event(number)])
    assert publisher.flush()
    socket.symlink_to(broker_url.removeprefix("redis+socket://"))
    assert not publisher.flush()
    publisher.close()
    with broker.connect(broker_url, name="test") as client:
        assert received(client) == [0, 1, 2]
    assert len(caplog.records) == 1


def test_the_oldest_events_are_forgotten_at_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEPT", 2)
    publisher = EventPublisher(f"redis+socket://{tmp_path}/nowhere")
    for number in range(3):
        publisher.publish(STREAM, [event(number)])
    assert [event.task_instance_id for _, text in publisher._waiting for event in decode_events(text)] == [1, 2]


def test_a_key_that_is_no_stream_does_not_hold_up_others(broker_url: str, caplog: pytest.LogCaptureFixture) -> None:
    publisher = EventPublisher(broker_url)
    with broker.connect(broker_url, name="test") as client:
        client.lpush("backfill", "a queue")
        publisher.publish("backfill", [event(1)])
        publisher.publish(STREAM, [event(2)])
        assert received(client) == [2]
    assert not publisher.flush()
    publisher.close()
    assert "stream 'backfill' does not take it" in caplog.text


def test_a_stream_that_was_removed_since_does_not_live_for_ever_either(broker_url: str) -> None:
    publisher = EventPublisher(broker_url)
    with broker.connect(broker_url, name="test") as client:
        for number in range(2):
            publisher.publish(STREAM, [event(number)])
        assert received(client) == [0, 1]
        client.delete(STREAM)  # its job was closed
        publisher.publish(STREAM, [event(2)])
        assert received(client) == [2]
        assert client.ttl(STREAM) > 0
    publisher.close()


def test_a_stream_is_told_now_and_then_to_live_on(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = EventPublisher(broker_url)
    with broker.connect(broker_url, name="test") as client:
        publisher.publish(STREAM, [event(0)])
        client.expire(STREAM, 60)
        publisher.publish(STREAM, [event(1)])
        assert client.ttl(STREAM) <= 60
        monkeypatch.setattr(publisher, "_lives_on", dict.fromkeys(publisher._lives_on, 0.0))
        publisher.publish(STREAM, [event(2)])
        assert client.ttl(STREAM) > 60
        assert received(client) == [0, 1, 2]
    publisher.close()
