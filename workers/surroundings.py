"""What a task may change about its process, put back after it, so that tasks of one process do not meet."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path


@contextlib.contextmanager
def own_surroundings() -> Iterator[None]:
    """At the end of the block environment and working folder are what they were before."""
    environment = os.environ.copy()
    folder = _folder()
    try:
        yield
    finally:
        _restore(environment)
        if folder is not None and _folder() != folder:
            with contextlib.suppress(OSError):  # removed meanwhile: there is nothing to go back to
                os.chdir(folder)


def _restore(environment: Mapping[str, str]) -> None:
    for name, value in os.environ.copy().items():
        if name not in environment:
            del os.environ[name]
        elif environment[name] != value:
            os.environ[name] = environment[name]
    for name in environment.keys() - os.environ.keys():
        os.environ[name] = environment[name]


def _folder() -> Path | None:
    try:
        return Path.cwd()
    except OSError:
        return None
