"""Which trigger rules may be used where (S4.6, S6.8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backfill.exceptions import DagError
from backfill.states import TriggerRule

if TYPE_CHECKING:
    from backfill.dag.abstract_operator import AbstractOperator
    from backfill.dag.dag import DAG


def check_rules(dag: DAG) -> None:
    """Raise `DagError` naming the first task whose trigger rule may not be used where it stands."""
    for task in dag.tasks:
        if task.is_setup:
            _check_children_of_setup(task)
        if dag.fail_stop:
            _check_fail_stop(dag, task)


def _check_children_of_setup(setup: AbstractOperator) -> None:
    for child in setup.downstream_list:
        if not child.is_teardown and child.trigger_rule is not TriggerRule.ALL_SUCCESS:
            raise DagError(
                f"The task {child.task_id!r} comes directly after the setup {setup.task_id!r} and has the trigger rule "
                f"'{child.trigger_rule}'; such a task must have 'all_success'."
            )


def _check_fail_stop(dag: DAG, task: AbstractOperator) -> None:
    allowed = TriggerRule.ALL_DONE_SETUP_SUCCESS if task.is_teardown else TriggerRule.ALL_SUCCESS
    if task.trigger_rule is not allowed:
        raise DagError(
            f"The DAG {dag.dag_id!r} has fail_stop, so that its task {task.task_id!r} must have the trigger rule "
            f"'{allowed}', not '{task.trigger_rule}'."
        )
