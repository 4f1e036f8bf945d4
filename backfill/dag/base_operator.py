"""`BaseOperator`: one unit of work, what users subclass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, Unpack

from backfill.dag import scope, templates
from backfill.dag.abstract_operator import AbstractOperator, SkipReach, hook_of
from backfill.dag.arguments import ARGUMENTS, Context, OperatorArguments
from backfill.dag.construction import constructing, place_of
from backfill.dag.mapped_operator import OperatorPartial
from backfill.dag.references import operators_in
from backfill.exceptions import BackfillError, DagError, TaskSignal


class BaseOperator(AbstractOperator):
    """A task. Subclasses override `execute`, and `on_kill` if they start anything that must be ended.

    A subclass's `__init__` takes keyword arguments and passes the common ones on with `super().__init__(**kwargs)`. It does
    nothing else: values named in `template_fields` are templates or references until the task runs.
    """

    #: Attributes that are rendered before `execute`.
    template_fields: Sequence[str] = ()
    #: A field's text that ends like this names a file to be read.
    template_ext: Sequence[str] = ()
    #: How the fields are shown; kept for DAG files written for Airflow.
    template_fields_renderers: ClassVar[dict[str, str]] = {}
    ui_color = "#fff"
    ui_fgcolor = "#000"

    #: `__init__` takes every common argument through `**`.
    takes_common_arguments: ClassVar[bool] = True
    #: Template fields that hold values pulled for this map index, which are not rendered.
    verbatim_fields: frozenset[str] = frozenset()

    def __init__(self, **arguments: Unpack[OperatorArguments]) -> None:
        dag, group = place_of(arguments)
        defaults = self.__dict__.get("_default_args", {})
        filled = {name: defaults[name] for name in ARGUMENTS if name in defaults} | dict(arguments)
        self._take_arguments(filled, group)
        if dag is not None:
            dag.add_task(self)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Wrap the subclass's `__init__`."""
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = constructing(cls.__dict__["__init__"])  # type: ignore[method-assign]  # the same signature

    def complete_construction(self) -> None:
        """Check the template fields and follow the tasks that they come from; called once all of `__init__` has run."""
        if "task_id" not in self.__dict__:
            raise DagError(f"{self.operator_name}.__init__ does not call super().__init__(**kwargs); add the call.")
        if isinstance(self.template_fields, str):
            raise DagError(
                f"{self.operator_name}.template_fields is the text {self.template_fields!r}; it takes a tuple."
            )
        for field in self.template_fields:
            if not hasattr(self, field):
                raise DagError(f"{self.operator_name} names the template field {field!r} but sets no such attribute.")
        if not scope.is_making_instance():
            self.follow(operator for field in self.template_fields for operator in operators_in(getattr(self, field)))
            scope.note_task(self)

    @classmethod
    def partial(cls, *, task_id: str, **kwargs: Any) -> OperatorPartial:
        """Return the operator with these arguments fixed; `.expand()` or `.expand_kwargs()` gives the others."""
        return OperatorPartial(cls, {"task_id": task_id, **kwargs})

    # --- what it is

    @property
    def operator_name(self) -> str:
        """The class name."""
        return type(self).__name__

    @classmethod
    def skips_decided_with(cls, arguments: Mapping[str, Any]) -> SkipReach:  # noqa: ARG003  # for subclasses
        """Return which tasks an instance made with `arguments` may decide to skip (S4.8)."""
        return "no"

    @property
    def decides_skips(self) -> SkipReach:
        """Which tasks this one may decide to skip: none, direct children, or all downstream (S4.8)."""
        return self.skips_decided_with(self.__dict__)

    @classmethod
    def does_nothing(cls) -> bool:
        """Tell if `execute` of this class has no effect (S7.2)."""
        return False

    @property
    def nothing_to_execute(self) -> bool:
        """Whether the coordinator may settle it without a worker (S7.2)."""
        return self.does_nothing() and not self.on_execute_callback and not self.on_success_callback

    # --- what the worker does with it

    def unmap(self, map_index: int, context: Context) -> Self:  # noqa: ARG002  # mapped operators need both
        """Return a copy of the caller's own."""
        clone = type(self).__new__(type(self))
        clone.__dict__.update(self.__dict__)
        return clone

    def render_template_fields(self, context: Context) -> None:
        """Render the template fields in place (S12.1); `DagError` names the field that cannot be rendered."""
        for field in self.template_fields:
            if field not in self.verbatim_fields:
                self.render_field(field, context)

    def render_field(self, field: str, context: Context) -> None:
        """Render one attribute in place; `DagError` names it if it cannot be rendered."""
        setattr(self, field, self._rendered(field, context))

    def _rendered(self, field: str, context: Context) -> Any:
        try:
            return templates.render(getattr(self, field), context, self._dag, self.template_ext)
        except TaskSignal:
            raise
        except Exception as error:
            reason = str(error).rstrip(".") or type(error).__name__
            raise DagError(
                f"The template field {field!r} of the task {self.task_id!r} cannot be rendered: {reason}."
            ) from error

    def pre_execute(self, context: Context) -> None:
        """Run just before `execute`; calls the argument `pre_execute`."""
        hook = hook_of(self, "pre_execute")
        if hook is not None:
            hook(context)

    def execute(self, context: Context) -> Any:  # noqa: ARG002  # for subclasses
        """Do the work; what it returns becomes the XCom `return_value`."""
        raise BackfillError(f"The operator {self.operator_name} has no execute(); its class must define it.")

    def post_execute(self, context: Context, result: Any = None) -> None:
        """Run just after `execute`; calls the argument `post_execute`."""
        hook = hook_of(self, "post_execute")
        if hook is not None:
            hook(context, result)

    def on_kill(self) -> None:
        """End what `execute` has started; called when the task is stopped or out of time."""

    def decide_skips(self, result: Any, context: Context) -> tuple[str, ...]:  # noqa: ARG002  # for subclasses
        """Return the ids of the tasks to skip, given what `execute` returned (S4.8); may raise if that is wrong."""
        return ()


BaseOperator.__init__ = constructing(BaseOperator.__init__)  # type: ignore[method-assign]  # the same signature
