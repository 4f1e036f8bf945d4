"""The DAG of a job: frozen when the job is created, and found again by whoever drives it or asks about it."""

from __future__ import annotations

from sqlalchemy import Engine

from backfill.config import Settings, signing_key
from backfill.dag import DAG
from backfill.dag.freeze import FrozenDag, freeze, thaw
from backfill.dag.loader import find_unchanged
from backfill.exceptions import FrozenDagError
from backfill.jobs.base_job import BaseJob
from backfill.jobs.request import BackfillRequest
from backfill.store import pickles
from backfill.store.database import repeat

#: Signs what is thrown away at once.
_NO_KEY = b"no key"


def shipped(dag: DAG, request: BackfillRequest, settings: Settings) -> FrozenDag | None:
    """Return the form in which a DAG goes to the workers, None if they import it; raises `DagError` for one that cannot."""
    return _shipped(dag, request, signing_key(settings))


def check_shippable(dag: DAG, request: BackfillRequest) -> None:
    """Raise `DagError` for a DAG that cannot go to workers; no key is needed, nor made."""
    _shipped(dag, request, _NO_KEY)


def _shipped(dag: DAG, request: BackfillRequest, key: bytes) -> FrozenDag | None:
    dag.validate()
    return None if request.donot_pickle else freeze(dag, key)


def dag_of(job: BaseJob, engine: Engine, settings: Settings) -> DAG:
    """Return the DAG that a job was created with, from the database or, by `donot_pickle`, from its file.

    Raises `FrozenDagError`, `DagNotFound`, and `DagChanged` for a file that is not as it was.
    """
    pickle_hash = job.dag_pickle_hash
    if pickle_hash is None:
        file, content = job.dag_source.get("file", ""), job.dag_source.get("file_hash", "")
        return find_unchanged(job.dag_id, settings.core.dags_folder, file=file, content_hash=content).dag
    pickle = repeat(engine, lambda tx: pickles.load_pickle(tx, pickle_hash))
    if pickle is None:
        raise FrozenDagError(f"The DAG of job {job.id} is not in the database any more.")
    return thaw(FrozenDag(*pickle), signing_key(settings))
