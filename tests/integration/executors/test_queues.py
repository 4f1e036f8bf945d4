"""The executor looks into a queue that holds anything."""

from __future__ import annotations

import json

import pytest

from backfill.executors import broker, queues

BROKEN = (
    b"[" * 100_000,
    b"{",
    b"null",
    b"\xff\xfe",
    b'{"headers": 5}',
    b'{"headers": {"attempts": 5}}',
    b'{"headers": {"attempts": [[]]}}',
)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda entry: repr(entry[:30]))
def test_what_is_no_message_is_passed_over_when_a_queue_is_read(broker_url: str, broken: bytes) -> None:
    ours = json.dumps({"headers": {"attempts": ["a"]}}).encode()
    with broker.connect(broker_url, name="tests") as client:
        client.rpush("backfill", broken, ours)
        assert queues.waiting(client, ["backfill"], {"a", "b"}) == {"a"}
        queues.remove(client, ["backfill"], {"a"})
        assert client.lrange("backfill", 0, -1) == [broken]
