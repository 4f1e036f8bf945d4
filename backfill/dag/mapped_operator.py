"""Mapped tasks: `.partial(…).expand(…)`, one task instance for each element (S4.7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from backfill.dag import scope
from backfill.dag.abstract_operator import AbstractOperator, SkipReach
from backfill.dag.arguments import ARGUMENTS, PLACE, refuse_unknown
from backfill.dag.construction import accepted_names, default_args_for, place_of
from backfill.dag.context import with_names
from backfill.dag.expand_input import ExpandInput, KwargsInput, ProductInput
from backfill.dag.references import Reference, operators_in
from backfill.exceptions import DagError

if TYPE_CHECKING:
    from backfill.dag.base_operator import BaseOperator


class OperatorPartial:
    """An operator with some arguments fixed."""

    def __init__(self, operator_class: type[BaseOperator], arguments: dict[str, Any]) -> None:
        self._class = operator_class
        self._arguments = arguments
        refuse_unknown(arguments, (*accepted_names(operator_class), *PLACE), f"{self._name}.partial()")

    @property
    def _name(self) -> str:
        return self._class.__name__

    def expand(self, **mapped: Any) -> MappedOperator:
        """Map over every combination of the arguments' elements, the last one varying fastest."""
        return self._mapped(ProductInput(mapped, self._name))

    def expand_kwargs(self, mapped: Any, *, strict: bool = True) -> MappedOperator:
        """Map over a list of dicts of arguments; not `strict`, names are checked when the task runs only."""
        return self._mapped(KwargsInput(mapped, self._name), strict=strict)

    def _mapped(self, expand_input: ExpandInput, *, strict: bool = True) -> MappedOperator:
        owner = f"{self._name}.expand() of the task {self._arguments['task_id']!r}"
        names = expand_input.names()
        if strict:
            refuse_unknown(names, accepted_names(self._class), owner)
        twice = sorted(names & self._arguments.keys())
        if twice:
            raise DagError(f"{owner} got {twice[0]!r}, which partial() fixed already; give it once.")
        fixed = sorted(names & (ARGUMENTS.keys() | set(PLACE)))
        if fixed:
            raise DagError(
                f"{owner} got {fixed[0]!r}, which cannot differ between the instances of a task; use partial()."
            )
        return MappedOperator(self._class, self._arguments, expand_input)


class MappedOperator(AbstractOperator):
    """A task with one instance for each element of its `expand_input`.

    `taskflow`: the mapped arguments are those of the decorated function and go into `op_kwargs`.
    """

    is_mapped: ClassVar[bool] = True
    expand_input: ExpandInput

    def __init__(
        self,
        operator_class: type[BaseOperator],
        arguments: Mapping[str, Any],
        expand_input: ExpandInput,
        *,
        taskflow: bool = False,
    ) -> None:
        dag, group = place_of(arguments)
        accepted = accepted_names(operator_class)
        defaults = {name: value for name, value in default_args_for(arguments).items() if name in accepted}
        self.operator_class = operator_class
        self.partial_kwargs = {**defaults, **{name: arguments[name] for name in arguments if name not in PLACE}}
        self.expand_input = expand_input
        self.taskflow = taskflow
        self.template_fields = tuple(operator_class.template_fields)
        self.template_ext = tuple(operator_class.template_ext)
        common = {name: value for name, value in self.partial_kwargs.items() if name in ARGUMENTS}
        self._take_arguments({**common, "task_id": arguments["task_id"]}, group)
        if self.mapped_groups:
            raise DagError(
                f"The task {self.task_id!r} is mapped inside of a mapped group; map either the task or the group."
            )
        if dag is not None:
            dag.add_task(self)
        self.follow(operators_in(self.partial_kwargs))
        self.follow(expand_input.operators())
        scope.note_task(self)

    @property
    def operator_name(self) -> str:
        """The class name of its instances."""
        return self.operator_class.__name__

    @property
    def decides_skips(self) -> SkipReach:
        """Which tasks an instance may decide to skip (S4.8)."""
        return self.operator_class.skips_decided_with(self.partial_kwargs)

    @property
    def nothing_to_execute(self) -> bool:
        """Whether the coordinator may settle an instance without a worker (S7.2)."""
        return self.operator_class.does_nothing() and not self.on_execute_callback and not self.on_success_callback

    def unmap(self, map_index: int, context: Mapping[str, Any]) -> BaseOperator:
        """Return the operator of one index, with its arguments pulled."""
        context = with_names(context, task=self)
        arguments, verbatim = self._merge(self.expand_input.resolve(map_index, context), context)
        with scope.making_instance():
            operator = self.operator_class(task_id=self.task_id, **arguments)
        operator.verbatim_fields = verbatim
        for name in _KEPT:
            setattr(operator, name, getattr(self, name))
        return operator

    def _merge(self, mapped: dict[str, Any], context: Mapping[str, Any]) -> tuple[dict[str, Any], frozenset[str]]:
        """Return all arguments of one instance, and the names of those that were pulled."""
        if self.taskflow:
            op_kwargs = {**self.partial_kwargs.get("op_kwargs", {}), **mapped}
            return {**self.partial_kwargs, "op_kwargs": op_kwargs}, frozenset()
        pulled = frozenset(name for name, value in mapped.items() if isinstance(value, Reference))
        values = {name: mapped[name].resolve(context) if name in pulled else mapped[name] for name in mapped}
        return {**self.partial_kwargs, **values}, pulled


#: What an instance has from its task rather than from its arguments.
_KEPT = (
    "_dag",
    "task_group",
    "upstream_task_ids",
    "downstream_task_ids",
    "start_date",
    "end_date",
    "trigger_rule",
    "is_setup",
    "is_teardown",
    "on_failure_fail_dagrun",
)
