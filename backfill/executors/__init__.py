"""Executors take attempts to workers and report what became of them.

`LocalExecutor` runs them in processes of this machine, `CeleryExecutor` sends them to the workers. Both pass the same
conformance suite (`tests/integration/executors`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from backfill.exceptions import UnknownExecutor
from backfill.executors.base import BaseExecutor, ExecutorContext, QueuedAttempt, Unsent
from backfill.executors.mailbox import Mailbox

if TYPE_CHECKING:
    from backfill.executors.celery import CeleryExecutor
    from backfill.executors.local import LocalExecutor

__all__ = [
    "BaseExecutor",
    "CeleryExecutor",
    "ExecutorContext",
    "LocalExecutor",
    "Mailbox",
    "QueuedAttempt",
    "Unsent",
    "known_names",
    "load",
    "needs_broker",
    "normal_name",
]

#: Module and class of each executor, by its short name. DAGs written for Airflow use the name of the class.
_CLASSES = {"celery": "CeleryExecutor", "local": "LocalExecutor"}


def known_names() -> tuple[str, ...]:
    """Return the names that `load` takes, sorted."""
    return tuple(sorted(_CLASSES))


def normal_name(name: str) -> str:
    """Return the short name of an executor, `celery` also for `CeleryExecutor`; raises `UnknownExecutor`."""
    for short, class_name in _CLASSES.items():
        if name in {short, class_name}:
            return short
    raise UnknownExecutor(f"There is no executor {name!r}; use {' or '.join(known_names())}.")


def needs_broker(name: str) -> bool:
    """Return whether the executor of that name sends attempts to Celery workers."""
    return name in {"celery", _CLASSES["celery"]}


def load(name: str) -> BaseExecutor:
    """Return a fresh executor of that name, not started yet; raises `UnknownExecutor`."""
    executor: BaseExecutor = _class_of(normal_name(name))()
    return executor


def __getattr__(name: str) -> object:
    # each executor is imported when it is asked for: a local backfill does not pay for loading Celery
    for short, class_name in _CLASSES.items():
        if name == class_name:
            return _class_of(short)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _class_of(short: str) -> type[BaseExecutor]:
    executor_class: type[BaseExecutor] = getattr(importlib.import_module(f"{__name__}.{short}"), _CLASSES[short])
    return executor_class
