"""What a task is to the coordinator, mapped or not: its place in the graph and the arguments that decide when it runs."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

from backfill.dag import scope
from backfill.dag.arguments import ARGUMENTS, PLACE, Callback, check_argument, check_id, refuse_unknown
from backfill.dag.node import DependencyMixin, connect, nodes_of
from backfill.dag.params import NOTSET, Params
from backfill.dag.setup_scope import SetupScope
from backfill.dag.xcom_arg import PlainXComArg
from backfill.exceptions import DagError
from backfill.states import TriggerRule, WeightRule

if TYPE_CHECKING:
    from backfill.dag.base_operator import BaseOperator
    from backfill.dag.dag import DAG
    from backfill.dag.expand_input import ExpandInput
    from backfill.dag.task_group import MappedTaskGroup, TaskGroup

#: Which tasks an operator may decide to skip (S4.8).
SkipReach = Literal["no", "children", "downstream"]


class AbstractOperator(DependencyMixin):
    """A task of a DAG. Attributes carry Airflow's names; callbacks are tuples, empty if there are none."""

    task_id: str
    owner: str
    start_date: datetime | None
    end_date: datetime | None
    trigger_rule: TriggerRule
    depends_on_past: bool
    wait_for_downstream: bool
    ignore_first_depends_on_past: bool
    retries: int
    retry_delay: timedelta
    retry_exponential_backoff: bool
    max_retry_delay: timedelta | None
    execution_timeout: timedelta | None
    pool: str
    pool_slots: int
    priority_weight: int
    weight_rule: WeightRule
    max_active_tis_per_dag: int | None
    max_active_tis_per_dagrun: int | None
    #: None: the queue of the settings.
    queue: str | None
    #: None: the job's executor.
    executor: str | None
    params: Params
    do_xcom_push: bool
    multiple_outputs: bool
    on_execute_callback: tuple[Callback, ...]
    on_success_callback: tuple[Callback, ...]
    on_failure_callback: tuple[Callback, ...]
    on_retry_callback: tuple[Callback, ...]
    on_skipped_callback: tuple[Callback, ...]
    map_index_template: str | None
    inlets: list[Any]
    outlets: list[Any]
    doc: str | None
    doc_md: str | None

    template_fields: Sequence[str] = ()
    template_ext: Sequence[str] = ()

    #: Has its own `expand_input`; a task inside of a mapped group has `mapped_groups` instead.
    is_mapped: ClassVar[bool] = False
    expand_input: ExpandInput | None = None

    is_setup: bool = False
    is_teardown: bool = False
    #: A teardown whose failure counts for the run (S2.14).
    on_failure_fail_dagrun: bool = False

    def _take_arguments(self, arguments: Mapping[str, Any], group: TaskGroup | None) -> None:
        """Check `arguments` and keep them as attributes; the task belongs to `group`, and to no DAG yet."""
        task_id = check_id(arguments.get("task_id"), "task")
        self._dag: DAG | None = None
        self.task_group: TaskGroup | None = group
        self.task_id = group.child_id(task_id) if group is not None else task_id
        self.upstream_task_ids: set[str] = set()
        self.downstream_task_ids: set[str] = set()
        owner = f"The task {self.task_id!r} ({self.operator_name})"
        refuse_unknown(arguments, (*ARGUMENTS, *PLACE), owner)
        for name, argument in ARGUMENTS.items():
            setattr(
                self, _ATTRIBUTES.get(name, name), check_argument(name, arguments.get(name, argument.default), owner)
            )
        self.depends_on_past = self.depends_on_past or self.wait_for_downstream

    # --- what it is

    @property
    @abstractmethod
    def operator_name(self) -> str:
        """The operator's class name."""

    @property
    @abstractmethod
    def decides_skips(self) -> SkipReach:
        """Which tasks this one may decide to skip: none, direct children, or all downstream (S4.8)."""

    @property
    @abstractmethod
    def nothing_to_execute(self) -> bool:
        """Whether the coordinator may settle it without a worker (S7.2)."""

    @abstractmethod
    def unmap(self, map_index: int, context: Mapping[str, Any]) -> BaseOperator:
        """Return an operator of the caller's own, to render and execute for `map_index` (-1 if there is one instance).

        `context` needs `ti` (with `xcom_pull` and `map_index`); `task` in it may be this task or absent.
        """

    def __repr__(self) -> str:
        return f"<Task({self.operator_name}): {getattr(self, 'task_id', 'unnamed')}>"

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes with sets in a stable order, so that equal DAGs are pickled to equal bytes."""
        state = dict(self.__dict__)
        for name in ("upstream_task_ids", "downstream_task_ids"):
            state[name] = sorted(state[name])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take back what `__getstate__` returned."""
        self.__dict__.update(state)
        self.upstream_task_ids = set(self.upstream_task_ids)
        self.downstream_task_ids = set(self.downstream_task_ids)

    @property
    def log(self) -> logging.Logger:
        """Logger whose lines go into the task instance's log."""
        return logging.getLogger(f"backfill.task.{self.operator_name}")

    @property
    def output(self) -> PlainXComArg:
        """What the task returns, as an argument for other tasks."""
        return PlainXComArg(self)

    # --- where it belongs

    @property
    def dag(self) -> DAG:
        """The DAG that the task belongs to; `DagError` if to none."""
        if self._dag is None:
            raise DagError(
                f"The task {self.task_id!r} belongs to no DAG; make it inside of `with DAG(…)` or pass dag=…"
            )
        return self._dag

    @dag.setter
    def dag(self, dag: DAG) -> None:
        dag.add_task(self)

    def has_dag(self) -> bool:
        """Tell if the task belongs to a DAG."""
        return self._dag is not None

    @property
    def dag_id(self) -> str:
        """The id of its DAG."""
        return self.dag.dag_id

    @property
    def mapped_groups(self) -> tuple[MappedTaskGroup, ...]:
        """The mapped groups that the task is in, outermost first."""
        return () if self.task_group is None else self.task_group.mapped_groups

    @property
    def has_many_instances(self) -> bool:
        """Whether it is mapped itself or in a mapped group, so that its instances have map indexes."""
        return self.is_mapped or bool(self.mapped_groups)

    @property
    def label(self) -> str:
        """The task id without the prefix of its group."""
        prefix = self.task_group.prefix if self.task_group is not None else ""
        return self.task_id.removeprefix(prefix)

    # --- its relations

    @property
    def roots(self) -> Sequence[AbstractOperator]:
        """Itself."""
        return [self]

    @property
    def leaves(self) -> Sequence[AbstractOperator]:
        """Itself."""
        return [self]

    @property
    def upstream_list(self) -> list[AbstractOperator]:
        """The tasks directly before it."""
        return [self.dag.task_dict[task_id] for task_id in sorted(self.upstream_task_ids)]

    @property
    def downstream_list(self) -> list[AbstractOperator]:
        """The tasks directly after it."""
        return [self.dag.task_dict[task_id] for task_id in sorted(self.downstream_task_ids)]

    def get_direct_relative_ids(self, upstream: bool = False) -> set[str]:
        """Return the ids of the tasks directly before (`upstream`) or after it."""
        return self.upstream_task_ids if upstream else self.downstream_task_ids

    def get_flat_relative_ids(self, upstream: bool = False) -> set[str]:
        """Return the ids of all tasks before (`upstream`) or after it, however far."""
        found: set[str] = set()
        pending = list(self.get_direct_relative_ids(upstream))
        while pending:
            task_id = pending.pop()
            if task_id not in found:
                found.add(task_id)
                pending.extend(self.dag.task_dict[task_id].get_direct_relative_ids(upstream))
        return found

    def share_dag_with(self, other: AbstractOperator) -> None:
        """Put whichever of the two has no DAG into the other's; `DagError` if they cannot share one."""
        if self._dag is None and other._dag is None:
            raise DagError(
                f"The tasks {self.task_id!r} and {other.task_id!r} belong to no DAG yet; pass dag=… to one of them."
            )
        if self._dag is None:
            other.dag.add_task(self)
        elif other._dag is None:
            self.dag.add_task(other)
        elif self._dag is not other._dag:
            raise DagError(
                f"The tasks {self.task_id!r} of {self.dag_id!r} and {other.task_id!r} of {other.dag_id!r} cannot be connected; "
                "an edge stays within one DAG."
            )

    def follow(self, operators: Iterable[AbstractOperator]) -> None:
        """Make the tasks that an argument comes from upstream of this one."""
        connect([operator for operator in operators if operator is not self], [self])

    # --- setup and teardown

    def as_setup(self) -> Self:
        """Mark the task as a setup."""
        self.is_setup = True
        return self

    def as_teardown(self, *, setups: object = NOTSET, on_failure_fail_dagrun: bool = False) -> Self:
        """Mark the task as a teardown, of `setups` (tasks, which become setups and come before it).

        Its trigger rule becomes `all_done_setup_success`, whatever it was.
        """
        self.is_teardown = True
        self.trigger_rule = TriggerRule.ALL_DONE_SETUP_SUCCESS
        self.on_failure_fail_dagrun = on_failure_fail_dagrun
        for node in nodes_of([] if setups is NOTSET or setups is None else setups):
            for setup in node.leaves:
                setup.as_setup()
            node.set_downstream(self)
        return self

    def __enter__(self) -> SetupScope:
        """Open a scope: tasks made in it come after the setups and before the teardowns that this task belongs to."""
        setup_scope = SetupScope.of(self)
        scope.open_setups(setup_scope)
        return setup_scope

    def __exit__(self, *_: object) -> None:
        """Close the scope and connect what is in it."""
        scope.close_setups().connect()


#: Arguments whose attribute has another name because a method has theirs.
_ATTRIBUTES = {"pre_execute": "_pre_execute_hook", "post_execute": "_post_execute_hook"}


def hook_of(operator: AbstractOperator, name: str) -> Callable[..., Any] | None:
    """Return the callable that the argument `pre_execute` or `post_execute` was given."""
    return cast("Callable[..., Any] | None", getattr(operator, _ATTRIBUTES[name]))
