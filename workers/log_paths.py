"""Where the log of a try is kept: a path made from a database row, whose parts can never leave the log folder."""

from __future__ import annotations

import hashlib
from functools import lru_cache
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
    return Path(log_file(str(folder), key, try_number))


def log_file(folder: str, key: TaskInstanceKey, try_number: int) -> str:
    """Return the same as text, which takes a tenth of the time."""
    index = "" if key.map_index == UNMAPPED else f"/{key.map_index}"
    return f"{folder}/{_part(key.dag_id)}/{_part(key.run_id)}/{_part(key.task_id)}{index}/try={try_number}.log"


@lru_cache(maxsize=1024)
def _part(name: str) -> str:
    """Return `name` as one file name: no separator, not `.` nor `..`, never empty, never too long."""
    quoted = quote(name, safe=_READABLE, errors="surrogatepass")
    if not quoted.strip("."):
        quoted = quoted.replace(".", "%2E") or "%"
    if len(quoted) <= LONGEST_NAME:
        return quoted
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{quoted[: LONGEST_NAME - 17]}~{digest}"
