"""Whatever comes from the queue or the event stream: it is read, or refused by the error that callers expect."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import Phase, example, given, settings as hypothesis_settings, strategies as st

from backfill.exceptions import MessageError
from backfill.keys import TaskInstanceKey
from backfill.messages import Attempt, Bundle, DagSource, ExecutorEvent
from backfill.states import TaskInstanceState

T = TypeVar("T")

ATTEMPT_ID = "00000000-0000-4000-8000-000000000001"
BUNDLE = Bundle(
    1, DagSource("d", "cafe"), (Attempt(1, TaskInstanceKey("d", "t", "r", -1), ATTEMPT_ID, 1),), "events"
).encode()
EVENT = json.loads(ExecutorEvent(1, ATTEMPT_ID, TaskInstanceState.SUCCESS).encode())

quick = hypothesis_settings(
    max_examples=300, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate]
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=10,
)


def read_or_refused(read: Callable[[Any], T], sent: object) -> T | None:
    """Return what `sent` says; None where it is refused by the error that callers expect."""
    try:
        return read(sent)
    except MessageError:
        return None


def survives_a_journey(bundle: Bundle) -> bool:
    return Bundle.decode(json.loads(json.dumps(bundle.encode()))) == bundle


@quick
@given(body=anything)
def test_a_body_is_read_or_refused_whatever_it_is(body: Any) -> None:
    bundle = read_or_refused(Bundle.decode, body)
    assert bundle is None or survives_a_journey(bundle)


@quick
@given(name=st.sampled_from(sorted(BUNDLE)), value=anything)
@example(name="job_id", value=float("inf"))
@example(name="job_id", value="9" * 5000)
@example(name="attempts", value=[[float("inf"), ["d", "t", "r", -1], ATTEMPT_ID, 1]])
@example(name="attempts", value=[])
@example(name="attempts", value=[[1, ["d", "t", "r", -1], [], 1]])
@example(name="dag", value=[])
@example(name="dag", value={"dag_id": 1})
def test_a_body_is_read_or_refused_whatever_one_part_of_it_is(name: str, value: Any) -> None:
    bundle = read_or_refused(Bundle.decode, {**BUNDLE, name: value})
    assert bundle is None or survives_a_journey(bundle)


@quick
@given(entry=st.one_of(st.binary(max_size=40), st.text(max_size=40), anything.map(json.dumps)))
@example(entry="[" * 100_000)
@example(entry=b"\xff")
@example(entry="[1e999,1,1,1,1]")
def test_an_entry_of_the_event_stream_is_read_or_refused_whatever_it_is(entry: str | bytes) -> None:
    event = read_or_refused(ExecutorEvent.decode, entry)
    assert event is None or ExecutorEvent.decode(event.encode()).encode() == event.encode()


@quick
@given(place=st.integers(0, len(EVENT) - 1), value=anything)
@example(place=0, value=float("inf"))
def test_an_entry_is_read_or_refused_whatever_one_part_of_it_is(place: int, value: Any) -> None:
    changed = [*EVENT[:place], value, *EVENT[place + 1 :]]
    event = read_or_refused(ExecutorEvent.decode, json.dumps(changed))
    assert event is None or ExecutorEvent.decode(event.encode()).encode() == event.encode()
