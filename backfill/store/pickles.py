"""Frozen DAGs, stored once by content hash. What they hold and who may load them is `backfill.dag.freeze`'s concern."""

from __future__ import annotations

from typing import NamedTuple

from backfill.store.database import Tx
from backfill.store.statements import statement


class StoredPickle(NamedTuple):
    """One frozen DAG; the fields and their order are those of `backfill.dag.freeze.FrozenDag`."""

    hash: str
    dag_id: str
    payload: bytes
    signature: str
    python_version: str


# a payload that is there was signed before, perhaps with a key that was replaced since
_SAVE_PICKLE = statement("""
insert into dag_pickle (hash, dag_id, payload, signature, python_version)
values (:hash, :dag_id, :payload, :signature, :python_version)
on conflict (hash) do update
set signature = excluded.signature, python_version = excluded.python_version
where dag_pickle.signature <> excluded.signature
""")


def save_pickle(
    tx: Tx,
    hash: str,  # noqa: A002  # the column's name
    dag_id: str,
    payload: bytes,
    signature: str,
    python_version: str,
) -> None:
    """Store a frozen DAG; one of the same hash is there once, under the latest signature."""
    tx.execute(
        _SAVE_PICKLE,
        {
            "hash": hash,
            "dag_id": dag_id,
            "payload": payload,
            "signature": signature,
            "python_version": python_version,
        },
    )


_LOAD_PICKLE = statement("select hash, dag_id, payload, signature, python_version from dag_pickle where hash = :hash")


def load_pickle(tx: Tx, hash: str) -> StoredPickle | None:  # noqa: A002  # the column's name
    """Return the frozen DAG of that hash; None if there is none."""
    row = tx.execute(_LOAD_PICKLE, {"hash": hash}).one_or_none()
    if row is None:
        return None
    return StoredPickle(row.hash, row.dag_id, bytes(row.payload), row.signature, row.python_version)
