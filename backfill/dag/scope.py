"""The DAG, group and setup scopes that are open while a DAG file runs, innermost last.

Each is a context variable, so that DAGs built in different threads do not meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backfill.dag.abstract_operator import AbstractOperator
    from backfill.dag.dag import DAG
    from backfill.dag.setup_scope import SetupScope
    from backfill.dag.task_group import TaskGroup

_dags: ContextVar[tuple[DAG, ...]] = ContextVar("_dags", default=())
_groups: ContextVar[tuple[TaskGroup, ...]] = ContextVar("_groups", default=())
_setups: ContextVar[tuple[SetupScope, ...]] = ContextVar("_setups", default=())
_instance: ContextVar[bool] = ContextVar("_instance", default=False)
#: DAGs entered with `with` or made by `@dag` while a file is loaded, in that order.
_entered: ContextVar[list[DAG] | None] = ContextVar("_entered", default=None)


def current_dag() -> DAG | None:
    """Return the DAG of the innermost `with DAG(…)`."""
    dags = _dags.get()
    return dags[-1] if dags else None


def current_group() -> TaskGroup | None:
    """Return the innermost open task group of the current DAG."""
    groups = _groups.get()
    return groups[-1] if groups else None


def open_dag(dag: DAG) -> None:
    """Make `dag` the current one."""
    _dags.set((*_dags.get(), dag))
    _groups.set((*_groups.get(), dag.task_group))
    entered = _entered.get()
    if entered is not None and dag not in entered:
        entered.append(dag)


def close_dag() -> None:
    """End what `open_dag` began."""
    _dags.set(_dags.get()[:-1])
    _groups.set(_groups.get()[:-1])


def open_group(group: TaskGroup) -> None:
    """Make `group` the current one."""
    _groups.set((*_groups.get(), group))


def close_group() -> None:
    """End what `open_group` began."""
    _groups.set(_groups.get()[:-1])


def open_setups(scope: SetupScope) -> None:
    """Let tasks made from now on belong to `scope`."""
    _setups.set((*_setups.get(), scope))


def close_setups() -> SetupScope:
    """End what `open_setups` began and return it."""
    *outer, innermost = _setups.get()
    _setups.set(tuple(outer))
    return innermost


def note_task(task: AbstractOperator) -> None:
    """Tell the innermost setup scope that `task` was made in it."""
    scopes = _setups.get()
    if scopes:
        scopes[-1].add_task(task)


@contextmanager
def detached() -> Iterator[None]:
    """Let operators be made that belong to no DAG, group or setup scope."""
    dags, groups, setups = _dags.set(()), _groups.set(()), _setups.set(())
    try:
        yield
    finally:
        _dags.reset(dags)
        _groups.reset(groups)
        _setups.reset(setups)


@contextmanager
def making_instance() -> Iterator[None]:
    """Let an operator be made that is one instance of a mapped task: it joins nothing and draws no edges."""
    token = _instance.set(True)
    try:
        with detached():
            yield
    finally:
        _instance.reset(token)


def is_making_instance() -> bool:
    """Tell if `making_instance` is open."""
    return _instance.get()


@contextmanager
def entered_dags() -> Iterator[list[DAG]]:
    """Collect the DAGs that are entered in this context, with no scope open at its start."""
    entered: list[DAG] = []
    token = _entered.set(entered)
    try:
        with detached():
            yield entered
    finally:
        _entered.reset(token)
