from __future__ import annotations

import json

import pytest
from sqlalchemy import Engine, text

from backfill.exceptions import UsageError
from backfill.store.values import LONGEST_ERROR, Json, encode, storable_text


def test_a_value_is_encoded_once() -> None:
    encoded = encode("it", {"a": [1, None, "é"]})
    assert (encoded, type(encoded)) == ('{"a":[1,null,"é"]}', Json)
    assert encode("it", encoded) is encoded
    assert encode("it", str(encoded)) == json.dumps(str(encoded), ensure_ascii=False)


def test_a_tuple_is_a_list() -> None:
    assert encode("it", (1, (2,))) == "[1,[2]]"


def _nested(depth: int) -> list[object]:
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, b"bytes", float("nan"), float("inf"), {(1, 2): 3}, "\ud800", _nested(100_000)],
    ids=["object", "set", "bytes", "nan", "infinity", "tuple as key", "half a pair", "nested without end"],
)
def test_what_is_no_json_is_refused_by_name(value: object) -> None:
    with pytest.raises(UsageError, match=r"The value of XCom 'k' cannot be kept as JSON \("):
        encode("The value of XCom 'k'", value)


@pytest.mark.parametrize("value", ["\x00", ["\\u0000 \x00"], {"a\x00": 1}, {"a": ({"b": ["\x00"]},)}])
def test_a_zero_byte_is_refused_by_name(value: object) -> None:
    with pytest.raises(UsageError, match="The value of XCom 'k' holds a zero byte"):
        encode("The value of XCom 'k'", value)


def test_the_escape_of_a_zero_byte_as_such_is_no_zero_byte(engine: Engine) -> None:
    value = {"\\u0000": ["\\u0000", "\\\\u0000", "\u0001"]}
    with engine.connect() as tx:
        back = tx.execute(text("select cast(:value as jsonb)"), {"value": encode("it", value)}).scalar_one()
    assert back == value


@pytest.mark.parametrize("said", [None, "", "plain", "zażółć 🎈"])
def test_an_ordinary_error_text_is_kept_as_it_is(said: str | None) -> None:
    assert storable_text(said) == said


def test_a_long_error_text_keeps_its_head_and_its_tail() -> None:
    said = "head" + "x" * 3 * LONGEST_ERROR + "tail"
    kept = storable_text(said)
    assert kept is not None
    assert kept.startswith("head")
    assert kept.endswith("tail")
    assert f"… {len(said) - LONGEST_ERROR} characters left out …" in kept
    assert len(kept) < LONGEST_ERROR + 100
