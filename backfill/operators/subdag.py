"""`SubDagOperator`: a task that stands for the run of another DAG on the same date (S13)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Unpack

from backfill.dag.abstract_operator import SkipReach
from backfill.dag.arguments import Context, OperatorArguments
from backfill.dag.base_operator import BaseOperator
from backfill.dag.dag import DAG
from backfill.exceptions import BackfillError, DagError


class SkippedStatePropagationOptions(StrEnum):
    """When the direct children of a subdag task are skipped."""

    ALL_LEAVES = "all_leaves"
    ANY_LEAF = "any_leaf"


class SubDagOperator(BaseOperator):
    """Stands for the run of `subdag`, whose id must be `<dag_id>.<task_id>`; the coordinator mirrors that run's state.

    `conf` is the child run's, else the parent's is taken. `propagate_skipped_state` tells if its direct children are skipped
    when all or any leaves of the child were.
    """

    ui_color = "#555"
    ui_fgcolor = "#fff"

    def __init__(
        self,
        *,
        subdag: DAG,
        conf: dict[str, Any] | None = None,
        propagate_skipped_state: SkippedStatePropagationOptions | str | None = None,
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(subdag, DAG):
            raise DagError(f"The task {self.task_id!r} has subdag={subdag!r}; it takes a DAG.")
        expected = f"{self.dag.dag_id}.{self.task_id}"
        if subdag.dag_id != expected:
            raise DagError(
                f"The subdag of the task {self.task_id!r} is named {subdag.dag_id!r}; name it {expected!r} (S13.1)."
            )
        self.subdag = subdag
        self.conf = conf
        self.propagate_skipped_state = (
            None if propagate_skipped_state is None else SkippedStatePropagationOptions(propagate_skipped_state)
        )
        subdag.parent_dag = self.dag
        for each in (subdag, *subdag.subdags):  # as TARGET it runs on the parent's dates
            each.timetable = self.dag.timetable

    @classmethod
    def skips_decided_with(cls, arguments: Mapping[str, Any]) -> SkipReach:
        """Return whether it may skip its direct children."""
        return "children" if arguments.get("propagate_skipped_state") is not None else "no"

    def execute(self, context: Context) -> Any:
        """Refuse: the coordinator runs the subdag, no worker does (S13.2)."""
        raise BackfillError(
            f"The task {context['task'].task_id!r} is a subdag, which the coordinator runs; no worker can."
        )
