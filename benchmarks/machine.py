"""Facts about where and on what was measured, without which a figure says little."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from redis import Redis
from sqlalchemy import Engine, text

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("celery", "kombu", "redis", "sqlalchemy", "psycopg2-binary")
_SETTINGS = ("server_version", "fsync", "synchronous_commit", "shared_buffers")


def machine_facts() -> dict[str, Any]:
    """Return facts that need no server."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": _revision(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _first_value("/proc/cpuinfo", "model name"),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "load": round(os.getloadavg()[0], 2),
    }


def server_facts(engine: Engine, broker: Redis) -> dict[str, Any]:
    """Return versions and settings of the database and the broker."""
    with engine.connect() as tx:
        postgres = {name: str(tx.execute(text(f"show {name}")).scalar_one()) for name in _SETTINGS}
    server: Any = broker.info("server")
    return {"postgresql": postgres, "valkey": str(server.get("valkey_version") or server.get("redis_version"))}


def _revision() -> str:
    """Return the revision that was measured, with a `+` if files differ from it; `unknown` outside of a repository."""
    try:
        revision = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "backfill", "workers")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return revision + ("+" if changed else "")


def _git(*arguments: str) -> str:
    found = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True)
    return found.stdout.strip()


def _first_value(file: str, name: str) -> str:
    for line in Path(file).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"
