"""Runs a DAG over a range of dates: what a DAG file imports.

The names are Airflow's. Importing this loads neither SQLAlchemy nor Celery.
"""

from __future__ import annotations

from backfill.dag import DAG, Label, Param, TaskGroup, XComArg, chain, cross_downstream
from backfill.dag.context import get_current_context

# From here on `backfill.dag` as an attribute is the decorator; `from backfill.dag import …` still finds the package.
from backfill.dag.decorators import dag, task_group
from backfill.operators.decorators import setup, task, teardown
from backfill.states import TriggerRule

__all__ = [
    "DAG",
    "Label",
    "Param",
    "TaskGroup",
    "TriggerRule",
    "XComArg",
    "chain",
    "cross_downstream",
    "dag",
    "get_current_context",
    "setup",
    "task",
    "task_group",
    "teardown",
]
