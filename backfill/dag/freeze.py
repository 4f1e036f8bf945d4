"""Shipping a DAG: pickled with its own code, signed, and loaded only if both signature and Python version fit.

What the DAG file and the modules beside it define travels by value, so that a worker needs no DAGs folder; installed
packages travel by name. Template files that the DAG names travel with it. A module beside the DAG file that is imported
only inside of a function does not: Python looks for it when the function runs, so it must be installed on the workers.
"""

from __future__ import annotations

import hashlib
import hmac
import pickle
import sys
from dataclasses import dataclass

from backfill.dag.dag import DAG
from backfill.exceptions import FrozenDagError


@dataclass(frozen=True, slots=True)
class FrozenDag:
    """A DAG as it is stored and sent. `hash` is the SHA-256 of `payload`, `signature` an HMAC over all of it, both in hex."""

    hash: str
    dag_id: str
    payload: bytes
    signature: str
    #: `major.minor` of the Python that froze it.
    python_version: str


def freeze(dag: DAG, key: bytes) -> FrozenDag:
    """Return `dag` frozen and signed with `key`. Raises `FrozenDagError` naming what cannot be pickled."""
    from backfill.dag.freezer import pickled  # noqa: PLC0415  # cloudpickle is loaded by who freezes, not by every DAG file

    payload = pickled(dag)
    version = _python_version()
    digest = hashlib.sha256(payload).hexdigest()
    return FrozenDag(digest, dag.dag_id, payload, _signature(key, dag.dag_id, version, payload), version)


def thaw(frozen: FrozenDag, key: bytes) -> DAG:
    """Return the DAG after checking signature, then Python version, both before anything of it is unpickled.

    Raises `FrozenDagError` if either does not fit, or if the DAG needs something that is missing here.
    """
    expected = _signature(key, frozen.dag_id, frozen.python_version, frozen.payload)
    if not hmac.compare_digest(expected.encode(), frozen.signature.encode()):
        raise FrozenDagError(
            f"The shipped DAG {frozen.dag_id!r} is not signed with this worker's core.secret_key; "
            "give coordinator and workers the same key."
        )
    if frozen.python_version != _python_version():
        raise FrozenDagError(
            f"The shipped DAG {frozen.dag_id!r} was frozen by Python {frozen.python_version} and this worker runs "
            f"{_python_version()}; use one version for both, or run with donot_pickle (--donot-pickle)."
        )
    try:
        dag = pickle.loads(frozen.payload)  # noqa: S301  # the signature has been checked
    except Exception as error:
        raise FrozenDagError(
            f"The shipped DAG {frozen.dag_id!r} cannot be loaded here ({type(error).__name__}: {error}); "
            "install on the workers what its file imports."
        ) from error
    if not isinstance(dag, DAG) or dag.dag_id != frozen.dag_id:
        raise FrozenDagError(f"What was shipped as the DAG {frozen.dag_id!r} is {dag!r}; submit the backfill again.")
    return dag


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _signature(key: bytes, dag_id: str, python_version: str, payload: bytes) -> str:
    head = f"{dag_id}\0{python_version}\0".encode()
    return hmac.new(key, head + payload, hashlib.sha256).hexdigest()
