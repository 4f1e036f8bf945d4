"""Waiting for a condition instead of sleeping."""

import time
from collections.abc import Callable

import pytest


def wait_until(predicate: Callable[[], object], description: str, timeout: float = 30.0) -> None:
    """Return as soon as `predicate()` is true; fail the test with `description` when it is not within `timeout` seconds."""
    __tracebackhide__ = True
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() >= deadline:
            pytest.fail(f"Waited {timeout:g} s in vain until {description}")
        time.sleep(0.01)
