"""What a DAG is made of: tasks, groups, edges, arguments known only when a task runs, params and templates.

Pure: nothing here knows the database, the broker or the workers. `loader` reads DAG files, `freeze` ships DAGs.
"""

from __future__ import annotations

from backfill.dag.abstract_operator import AbstractOperator
from backfill.dag.base_operator import BaseOperator
from backfill.dag.dag import DAG
from backfill.dag.dependencies import Label, chain, cross_downstream
from backfill.dag.mapped_operator import MappedOperator
from backfill.dag.params import Param, Params
from backfill.dag.task_group import MappedTaskGroup, TaskGroup
from backfill.dag.xcom_arg import XComArg

#: A task of a DAG, mapped or not.
Operator = AbstractOperator

__all__ = [
    "DAG",
    "AbstractOperator",
    "BaseOperator",
    "Label",
    "MappedOperator",
    "MappedTaskGroup",
    "Operator",
    "Param",
    "Params",
    "TaskGroup",
    "XComArg",
    "chain",
    "cross_downstream",
]
