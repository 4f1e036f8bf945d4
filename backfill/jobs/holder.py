"""How the holder of a job's lease is named for people."""

from __future__ import annotations


def name_of(holder: str | None) -> str:
    """Return a lease's holder as operators look for it: its process and its host."""
    host, _, process = (holder or "").partition(":")
    return f"process {process.partition(':')[0]} on {host}" if process else "another process"
