"""Operators: what a task does."""

from __future__ import annotations

from backfill.dag.base_operator import BaseOperator
from backfill.operators.bash import BashOperator
from backfill.operators.branch import BaseBranchOperator
from backfill.operators.empty import EmptyOperator
from backfill.operators.latest_only import LatestOnlyOperator
from backfill.operators.python import BranchPythonOperator, PythonOperator, ShortCircuitOperator
from backfill.operators.subdag import SubDagOperator

__all__ = [
    "BaseBranchOperator",
    "BaseOperator",
    "BashOperator",
    "BranchPythonOperator",
    "EmptyOperator",
    "LatestOnlyOperator",
    "PythonOperator",
    "ShortCircuitOperator",
    "SubDagOperator",
]
