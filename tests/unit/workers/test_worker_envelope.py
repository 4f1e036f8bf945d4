import base64
import copy
import json
from typing import Any

import pytest
from celery import Celery
from hypothesis import given, strategies as st

from backfill.keys import TaskInstanceKey
from backfill.messages import TASK_NAME, Attempt, Bundle, DagSource, event_stream
from workers.envelope import LONGEST_TEXT, MOST_LEVELS, NoMessage, checked

ID = "6f1f4f0e-6a3b-4a1c-9d3e-1f0a54a7d001"


def body_of(*parts: Any) -> str:
    return base64.b64encode(json.dumps(parts).encode()).decode()


@pytest.fixture(scope="module")
def message() -> dict[str, Any]:
    """Return a message as Celery and kombu put it into the queue."""
    with Celery("test", set_as_current=False, broker="memory://") as app:
        task = app.amqp.create_task_message(ID, TASK_NAME, args=({"v": 1},), kwargsrepr="shown", shadow="sales.load")
    return {
        "body": body_of(*task.body),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": task.headers,
        "properties": {
            **task.properties,
            "delivery_tag": ID,
            "delivery_info": {"exchange": "", "routing_key": "backfill"},
            "body_encoding": "base64",
        },
    }


def test_a_message_of_ours_keeps_its_bundle_and_what_is_shown(message: dict[str, Any]) -> None:
    kept = checked(message)
    assert kept["body"] == message["body"]
    assert kept["properties"]["delivery_tag"] == ID
    assert kept["properties"]["delivery_info"]["routing_key"] == "backfill"
    shown = {name: kept["headers"][name] for name in ("task", "id", "shadow", "kwargsrepr")}
    assert shown == {"task": TASK_NAME, "id": ID, "shadow": "sales.load", "kwargsrepr": "shown"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("eta", "2030-01-01"), ("expires", 0), ("retries", -1), ("timelimit", 5), ("group", "g"), ("stamps", {"a": "b"})],
)
def test_what_a_header_asks_for_is_not_done(name: str, value: Any, message: dict[str, Any]) -> None:
    changed = copy.deepcopy(message)
    changed["headers"][name] = value
    assert checked(changed) == checked(message)


@pytest.mark.parametrize("levels", [MOST_LEVELS, 200])
def test_a_body_nested_too_deep_for_a_child_is_refused(levels: int, message: dict[str, Any]) -> None:
    deep: Any = {}
    for _ in range(levels):
        deep = {"inner": [deep]}
    with pytest.raises(NoMessage, match="nested too deep"):
        checked(message | {"body": body_of([deep], {}, {})})


def test_a_bundle_is_not_nested_too_deep(message: dict[str, Any]) -> None:
    key = TaskInstanceKey("sales", "load", "r", 1)
    bundle = Bundle(1, DagSource("sales", "a" * 64, "f.py", "b" * 64), (Attempt(1, key, ID, 1),) * 50, event_stream(1))
    body = body_of([bundle.encode()], {}, {})
    assert checked(message | {"body": body})["body"] == body


def test_a_long_text_is_cut(message: dict[str, Any]) -> None:
    changed = copy.deepcopy(message)
    changed["headers"]["kwargsrepr"] = "x" * (LONGEST_TEXT + 1)
    assert len(checked(changed)["headers"]["kwargsrepr"]) == LONGEST_TEXT


@pytest.mark.parametrize(
    "body",
    [
        body_of([{}], {}, {"callbacks": [{"task": "celery.chord"}]}),
        body_of([{}], {}, {"chain": ["x"]}),
        body_of([{}], {"more": 1}, {}),
        body_of({}, {}, {}),
        body_of([], {}),
        base64.b64encode(b"[" * 100_000).decode(),
        "no base64 at all",
        None,
    ],
)
def test_a_body_that_asks_for_more_than_a_bundle_is_refused(body: Any, message: dict[str, Any]) -> None:
    with pytest.raises(NoMessage):
        checked({**message, "body": body})


def test_other_tasks_are_refused(message: dict[str, Any]) -> None:
    changed = copy.deepcopy(message)
    changed["headers"]["task"] = "celery.backend_cleanup"
    with pytest.raises(NoMessage, match=r"it is for the task 'celery\.backend_cleanup'"):
        checked(changed)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
PLACES = st.sampled_from(["body", "headers", "properties", "headers.id", "headers.task", "properties.delivery_tag"])


@given(value=ANYTHING, place=PLACES)
def test_nothing_but_a_refusal_comes_of_a_broken_message(value: Any, place: str, message: dict[str, Any]) -> None:
    changed = copy.deepcopy(message)
    *outer, last = place.split(".")
    target = changed[outer[0]] if outer else changed
    target[last] = value
    with pytest.raises(NoMessage):
        checked(changed)


@given(ANYTHING)
def test_anything_else_is_refused(entry: Any) -> None:
    with pytest.raises(NoMessage):
        checked(entry)
