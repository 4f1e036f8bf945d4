"""The DAGs that a worker process has loaded, each once (S7.5)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backfill.dag.dag import DAG
from backfill.dag.freeze import FrozenDag, thaw
from backfill.dag.loader import find_unchanged
from backfill.exceptions import BackfillError
from backfill.store.claims import Claim
from backfill.store.pickles import load_pickle
from workers.results import mapped_keys
from workers.task_instance import Database

#: DAGs that a process keeps; the one used longest ago goes first.
KEPT = 16


class DagUnavailable(BackfillError):
    """Raised when the DAG of an attempt cannot be loaded: an ordinary failure of the attempt (S7.5)."""


@dataclass(frozen=True, slots=True)
class WorkerDag:
    """A loaded DAG, with what is worked out of it once."""

    dag: DAG
    #: For each task the XCom keys that others are mapped over (S12.5).
    mapped_keys: dict[str, frozenset[str]]


class DagCache:
    """Loads DAGs by what the job's row says, and keeps them. `key` is what shipped DAGs are signed with."""

    def __init__(self, key: bytes, dags_folder: Path) -> None:
        self._key = key
        self._dags_folder = dags_folder
        self._kept: OrderedDict[tuple[str, ...], WorkerDag] = OrderedDict()

    def get(self, claim: Claim, database: Database) -> WorkerDag:
        """Return the DAG of a claimed attempt; raises whatever stands in the way, naming the file where there is one."""
        if claim.dag_pickle_hash is not None:
            pickle_hash = claim.dag_pickle_hash
            return self._once((claim.dag_id, pickle_hash), lambda: self._thawed(claim, pickle_hash, database))
        file, content = claim.dag_source.get("file", ""), claim.dag_source.get("file_hash", "")
        return self._once((claim.dag_id, file, content), lambda: self._from_file(claim.dag_id, file, content))

    def _once(self, name: tuple[str, ...], load: Callable[[], DAG]) -> WorkerDag:
        kept = self._kept.get(name)
        if kept is None:
            dag = load()
            kept = self._kept[name] = WorkerDag(dag, mapped_keys(dag))
        self._kept.move_to_end(name)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return kept

    def _thawed(self, claim: Claim, pickle_hash: str, database: Database) -> DAG:
        stored = database(lambda tx: load_pickle(tx, pickle_hash))
        if stored is None:
            raise DagUnavailable(
                f"The frozen DAG {claim.dag_id!r} ({pickle_hash[:12]}) is not in the database any more."
            )
        return _member(thaw(FrozenDag(*stored), self._key), claim.dag_id)

    def _from_file(self, dag_id: str, file: str, content: str) -> DAG:
        """Import the DAG from this machine's own files; one that differs from what the job was made with is not run."""
        found = find_unchanged(dag_id, self._dags_folder, file=file, content_hash=content)
        return _member(found.dag, dag_id)


def _member(dag: DAG, dag_id: str) -> DAG:
    """Return `dag`, or the subdag of it that has the id."""
    if dag.dag_id == dag_id:
        return dag
    subdag = next((subdag for subdag in dag.subdags if subdag.dag_id == dag_id), None)
    if subdag is None:
        raise DagUnavailable(f"The DAG {dag.dag_id!r} has no subdag {dag_id!r}; make the job anew.")
    return subdag
