"""Operators that call a Python function."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Unpack

from backfill.dag.abstract_operator import SkipReach
from backfill.dag.arguments import Context, OperatorArguments
from backfill.dag.base_operator import BaseOperator
from backfill.dag.calling import call_with_context
from backfill.dag.context import with_names
from backfill.exceptions import DagError
from backfill.operators.branch import BranchMixin, as_listed, skipped_downstream


class PythonOperator(BaseOperator):
    """Calls `python_callable(*op_args, **op_kwargs)` with the names of the context that it takes added.

    `templates_dict` is rendered and given as `templates_dict` in the context.
    """

    template_fields: Sequence[str] = ("templates_dict", "op_args", "op_kwargs")
    template_fields_renderers = {"templates_dict": "json", "op_args": "py", "op_kwargs": "py"}  # noqa: RUF012  # as in Airflow
    ui_color = "#ffefeb"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        templates_dict: dict[str, Any] | None = None,
        templates_exts: Collection[str] | None = None,
        show_return_value_in_logs: bool = True,
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(**kwargs)
        if not callable(python_callable):
            raise DagError(f"The task {self.task_id!r} has python_callable={python_callable!r}; it takes a function.")
        self.python_callable = python_callable
        self.op_args = op_args if op_args is not None else []
        self.op_kwargs = op_kwargs if op_kwargs is not None else {}
        self.templates_dict = templates_dict
        if templates_exts:
            self.template_ext = tuple(templates_exts)
        self.show_return_value_in_logs = show_return_value_in_logs

    def execute(self, context: Context) -> Any:
        """Call the function and return what it returns."""
        result = self.call_function(context)
        if result is None:
            return None  # of which there is nothing to tell: the log says already that the task succeeded
        if self.show_return_value_in_logs:
            self.log.info("Done. Returned value was: %s", result)
        else:
            self.log.info("Done. Returned value not shown")
        return result

    def call_function(self, context: Context) -> Any:
        """Call the function with its arguments and what it takes of the context."""
        full = with_names(context, templates_dict=self.templates_dict)
        return call_with_context(self.python_callable, list(self.op_args), self.op_kwargs, full)


class BranchPythonOperator(PythonOperator, BranchMixin):
    """Calls a function that returns the task or group id, or list of ids, to go on with; the other children are skipped."""

    def execute(self, context: Context) -> Any:
        """Return the choice."""
        return as_listed(super().execute(context))


class ShortCircuitOperator(PythonOperator):
    """Skips what is downstream if the function returns a false value (S4.8).

    All tasks downstream are skipped, whatever their trigger rules; without `ignore_downstream_trigger_rules` just the direct
    children, and their rules decide about the rest. Teardowns are never skipped by it.
    """

    def __init__(self, *, ignore_downstream_trigger_rules: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ignore_downstream_trigger_rules = ignore_downstream_trigger_rules

    @classmethod
    def skips_decided_with(cls, arguments: Mapping[str, Any]) -> SkipReach:
        """Return how far its decision reaches."""
        return "downstream" if arguments.get("ignore_downstream_trigger_rules", True) else "children"

    def decide_skips(self, result: Any, context: Context) -> tuple[str, ...]:  # noqa: ARG002  # the base's signature
        """Return the tasks to skip if `result` is false."""
        return () if result else skipped_downstream(self, everything=self.ignore_downstream_trigger_rules)
