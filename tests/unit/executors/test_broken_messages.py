"""What comes out of Redis may be anything: it is refused as broken, and nothing else happens."""

from __future__ import annotations

import json

import pytest

from backfill.exceptions import MessageError
from backfill.messages import WIRE_VERSION, Bundle, ExecutorEvent
from backfill.states import TaskInstanceState

ATTEMPT = "00000000-0000-0000-0000-000000000001"


VALID = ExecutorEvent(1, ATTEMPT, TaskInstanceState.FAILED)


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", "5", "null", "[]", b"\xff\xfe", f'{{"a": "{ATTEMPT}"}}'])
def test_an_event_that_is_none_is_refused(text: str | bytes) -> None:
    with pytest.raises(MessageError):
        ExecutorEvent.decode(text)


@pytest.mark.parametrize(
    ("position", "value"), [(0, float("inf")), (0, 10**30), (0, []), (1, 5), (1, ["x"]), (1, "x"), (2, "lost"), (2, {})]
)
def test_an_event_with_a_field_that_is_none_is_refused(position: int, value: object) -> None:
    fields = json.loads(VALID.encode())
    fields[position] = value
    with pytest.raises(MessageError):
        ExecutorEvent.decode(json.dumps(fields))


@pytest.mark.parametrize(
    "attempt",
    [
        [1, ["dag", "task", "run", -1], 5, 1],
        [1, ["dag", "task", "run", float("inf")], ATTEMPT, 1],
        [10**30, ["dag", "task", "run", -1], ATTEMPT, 1],
        [1, ["dag", "task", "run", -1], ATTEMPT, 2**31],
        [1, ["dag", "task", "run", 2**31], ATTEMPT, 1],
        [1, ["dag"], ATTEMPT, 1],
        None,
    ],
)
def test_a_bundle_with_an_attempt_that_is_none_is_refused(attempt: object) -> None:
    body = {"v": WIRE_VERSION, "job_id": 1, "dag": {"dag_id": "dag"}, "attempts": [attempt], "stream": "events"}
    with pytest.raises(MessageError):
        Bundle.decode(body)
