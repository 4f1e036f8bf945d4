"""A frozen DAG in which anything was changed is refused before a byte of it is unpickled."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from backfill import DAG
from backfill.dag.freeze import FrozenDag, freeze, thaw
from backfill.exceptions import FrozenDagError
from backfill.operators import EmptyOperator

KEY = b"the key of this test"


@pytest.fixture
def frozen() -> FrozenDag:
    with DAG("sales", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=UTC)) as dag:
        EmptyOperator(task_id="a")
    return freeze(dag, KEY)


@pytest.fixture
def unpickled(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was unpickled, instead of it being done."""
    seen: list[bytes] = []
    monkeypatch.setattr(pickle, "loads", seen.append)
    return seen


def is_refused(changed: FrozenDag, unpickled: list[bytes]) -> bool:
    with pytest.raises(FrozenDagError, match=r"is not signed with this worker's core\.secret_key"):
        thaw(changed, KEY)
    return not unpickled


def test_a_changed_bit_anywhere_in_the_payload_is_refused(frozen: FrozenDag, unpickled: list[bytes]) -> None:
    for place in range(len(frozen.payload)):
        payload = bytearray(frozen.payload)
        payload[place] ^= 1 << place % 8
        assert is_refused(replace(frozen, payload=bytes(payload)), unpickled)


def test_a_changed_sign_anywhere_in_the_signature_is_refused(frozen: FrozenDag, unpickled: list[bytes]) -> None:
    for place, sign in enumerate(frozen.signature):
        other = "0" if sign != "0" else "f"
        changed = frozen.signature[:place] + other + frozen.signature[place + 1 :]
        assert is_refused(replace(frozen, signature=changed), unpickled)


@pytest.mark.parametrize(
    "changed",
    [
        {"signature": ""},
        {"signature": "é" * 64},
        {"dag_id": "sale"},
        {"dag_id": "sales\0" + "3.11"},
        {"python_version": ""},
        {"payload": b""},
    ],
    ids=str,
)
def test_what_is_missing_or_moved_is_refused(
    changed: dict[str, Any], frozen: FrozenDag, unpickled: list[bytes]
) -> None:
    assert is_refused(replace(frozen, **changed), unpickled)


@pytest.mark.parametrize("cut", [1, 100])
def test_what_is_cut_off_or_added_is_refused(cut: int, frozen: FrozenDag, unpickled: list[bytes]) -> None:
    assert is_refused(replace(frozen, payload=frozen.payload[:-cut]), unpickled)
    assert is_refused(replace(frozen, payload=frozen.payload + b"." * cut), unpickled)
