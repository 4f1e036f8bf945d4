import json
from uuid import uuid4

import pytest

from backfill.exceptions import MessageError
from backfill.keys import TaskInstanceKey
from backfill.messages import (
    WIRE_VERSION,
    Attempt,
    Bundle,
    DagSource,
    ExecutorEvent,
    decode_events,
    encode_events,
    event_stream,
)
from backfill.states import TaskInstanceState


def an_event(number: int = 1, **values: object) -> ExecutorEvent:
    return ExecutorEvent(number, str(uuid4()), TaskInstanceState.SUCCESS, **values)  # type: ignore[arg-type]


def test_events_travel_whole_one_by_one_or_together() -> None:
    events = [
        an_event(1, duration=0.25),
        an_event(2, info="why", infrastructure=True, alone=True),
        an_event(3),
    ]
    assert decode_events(encode_events(events)) == events
    assert [ExecutorEvent.decode(event.encode()) for event in events] == events
    assert decode_events(events[0].encode()) == events[:1]


def test_one_is_not_read_where_several_came() -> None:
    with pytest.raises(MessageError, match="2 events came"):
        ExecutorEvent.decode(encode_events([an_event(), an_event()]))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "{}",
        "[]",
        "[[]]",
        "[1, 2]",
        '[1, "no uuid", "success", null, false, false, null]',
        '[1, "6f1f4f0e-6a3b-4a1c-9d3e-1f0a54a7d001", "no state", null, false, false, null]',
        '[1, "6f1f4f0e-6a3b-4a1c-9d3e-1f0a54a7d001", "success", null, false]',
        '[1, "6f1f4f0e-6a3b-4a1c-9d3e-1f0a54a7d001", "success", null, false, false, "long"]',
    ],
)
def test_an_event_that_is_broken_is_told(text: str) -> None:
    with pytest.raises(MessageError, match="An event is broken"):
        decode_events(text)


def test_a_uuid_may_be_written_in_any_way() -> None:
    attempt_id = "6F1F4F0E-6A3B-4A1C-9D3E-1F0A54A7D001"
    (event,) = decode_events(json.dumps([1, attempt_id, "success", None, False, False, None]))
    assert event.attempt_id == attempt_id.lower()


def test_a_bundle_of_several_attempts_travels_whole() -> None:
    attempts = tuple(
        Attempt(number, TaskInstanceKey("sales", f"t{number}", "run", number), str(uuid4()), number + 1)
        for number in range(3)
    )
    bundle = Bundle(7, DagSource("sales", pickle_hash="abc"), attempts, event_stream(7))
    body = json.loads(json.dumps(bundle.encode()))
    assert Bundle.decode(body) == bundle
    with pytest.raises(MessageError, match=f"reads version {WIRE_VERSION}"):
        Bundle.decode(body | {"v": WIRE_VERSION - 1})
