"""`PythonSensor`: waits until a function returns something true."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from backfill.dag.arguments import Context
from backfill.dag.calling import call_with_context
from backfill.dag.context import with_names
from backfill.exceptions import DagError
from backfill.sensors.base import BaseSensorOperator, PokeReturnValue


class PythonSensor(BaseSensorOperator):
    """Pokes by calling `python_callable(*op_args, **op_kwargs)` with the names of the context that it takes added."""

    template_fields: Sequence[str] = ("templates_dict", "op_args", "op_kwargs")

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        templates_dict: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not callable(python_callable):
            raise DagError(f"The sensor {self.task_id!r} has python_callable={python_callable!r}; it takes a function.")
        self.python_callable = python_callable
        self.op_args = op_args if op_args is not None else []
        self.op_kwargs = op_kwargs if op_kwargs is not None else {}
        self.templates_dict = templates_dict

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Call the function."""
        full = with_names(context, templates_dict=self.templates_dict)
        result = call_with_context(self.python_callable, list(self.op_args), self.op_kwargs, full)
        return result if isinstance(result, PokeReturnValue) else bool(result)
