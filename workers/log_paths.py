"""Where the log of a try is kept: a path made from a database row, whose parts can never leave the log folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import quote

from backfill.keys import UNMAPPED, TaskInstanceKey

#: Longest file name that common file systems take, in bytes.
LONGEST_NAME = 255
#: Kept as they are, because run ids have them and shells, browsers and file systems all take them.
_READABLE = ":+=@,~"


def log_path(folder: Path, key: TaskInstanceKey, try_number: int) -> Path:
    """Return the log of one try (S7.8): `<dag_id>/<run_id>/<task_id>[/<map_index>]/try=<n>.log` below `folder`.

    Each part is quoted so that it names exactly one folder directly below the one before it.
    """
    path = folder / _part(key.dag_id) / _part(key.run_id) / _part(key.task_id)
    if key.map_index != UNMAPPED:
        path /= str(key.map_index)
    return path / f"try={try_number}.log"


def _part(name: str) -> str:
    """Return `name` as one file name: no separator, not `.` nor `..`, never empty, never too long."""
    quoted = quote(name, safe=_READABLE, errors="surrogatepass")
    if not quoted.strip("."):
        quoted = quoted.replace(".", "%2E") or "%"
    if len(quoted) <= LONGEST_NAME:
        return quoted
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{quoted[: LONGEST_NAME - 17]}~{digest}"
