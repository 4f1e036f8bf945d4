"""`EmptyOperator`: does nothing, joins edges."""

from __future__ import annotations

from typing import Any

from backfill.dag.arguments import Context
from backfill.dag.base_operator import BaseOperator


class EmptyOperator(BaseOperator):
    """Does nothing; without on_execute and on_success callbacks it never leaves the coordinator (S7.2)."""

    ui_color = "#e8f7e4"

    @classmethod
    def does_nothing(cls) -> bool:
        """Tell if `execute` is still the empty one."""
        return cls.execute is EmptyOperator.execute

    def execute(self, context: Context) -> Any:
        """Do nothing."""
