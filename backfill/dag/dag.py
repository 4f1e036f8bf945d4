"""`DAG`: tasks, their order, and what holds for all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack
from zoneinfo import ZoneInfo

from backfill.clock import as_utc
from backfill.dag import scope, templates
from backfill.dag.abstract_operator import AbstractOperator
from backfill.dag.arguments import Callback, check_id, refuse_unknown
from backfill.dag.dag_arguments import DAG_ARGUMENTS, DagArguments, check_dag_argument
from backfill.dag.graph import find_cycle, topological_order
from backfill.dag.params import NOTSET, Param, Params
from backfill.dag.references import DagParam
from backfill.dag.rules import check_rules
from backfill.dag.task_group import MappedTaskGroup, TaskGroup
from backfill.exceptions import DagError
from backfill.timetables import Schedule, Timetable, timetable_of

_PACKAGE = str(Path(__file__).parents[1])


class DAG:
    """A set of tasks with an order, for a range of run dates.

    Arguments keep Airflow's names and meaning (interface.md, section 1). Raises `DagError` naming the argument at fault.
    """

    description: str | None
    max_active_runs: int
    max_active_tasks: int
    dagrun_timeout: timedelta | None
    fail_stop: bool
    #: Matters for depends_on_past only: kept for DAG files written for Airflow.
    catchup: bool
    render_template_as_native_obj: bool
    template_searchpath: tuple[str, ...]
    user_defined_macros: dict[str, Any]
    user_defined_filters: dict[str, Callable[..., Any]]
    on_success_callback: tuple[Callback, ...]
    on_failure_callback: tuple[Callback, ...]
    tags: tuple[str, ...]
    doc_md: str | None
    params: Params
    default_args: dict[str, Any]

    def __init__(
        self,
        dag_id: str,
        description: str | None = None,
        schedule: Schedule = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
        **arguments: Unpack[DagArguments],
    ) -> None:
        self.dag_id = check_id(dag_id, "DAG")
        owner = f"The DAG {dag_id!r}"
        refuse_unknown(arguments, DAG_ARGUMENTS, owner)
        given: dict[str, Any] = {"description": description, **arguments}
        for name in DAG_ARGUMENTS:
            setattr(self, name, check_dag_argument(name, given, owner))
        start = start_date or self.default_args.get("start_date")
        self.timezone = _zone_of(start)
        self.start_date = _date("start_date", start, owner)
        self.end_date = _date("end_date", end_date or self.default_args.get("end_date"), owner)
        self.schedule = schedule
        self.timetable: Timetable = timetable_of(schedule, self.timezone)
        #: The file that the DAG belongs to; the loader sets it when a function of another file has made the DAG.
        self.fileloc, self.made_in_function = _calling_frame()
        #: Folder below which the DAG's own modules lie; the loader sets it, else it is that of `fileloc`.
        self.folder: str | None = None
        #: Sources of the template files, when the DAG has been shipped without its folder.
        self.shipped_templates: dict[str, str] = {}
        #: The DAG that this is a subdag of (S13.1).
        self.parent_dag: DAG | None = None
        self.task_dict: dict[str, AbstractOperator] = {}
        self.task_groups: dict[str, TaskGroup] = {}
        self.task_group = TaskGroup(None, dag=self)

    def __repr__(self) -> str:
        return f"<DAG: {self.dag_id}>"

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes that can be pickled."""
        state = dict(self.__dict__)
        templates.forget_renderer(state)
        return state

    def __enter__(self) -> Self:
        """Let tasks made from now on belong to this DAG."""
        scope.open_dag(self)
        return self

    def __exit__(
        self, _error: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End what `__enter__` began."""
        scope.close_dag()

    # --- tasks

    @property
    def tasks(self) -> list[AbstractOperator]:
        """All tasks in the order of definition."""
        return list(self.task_dict.values())

    @property
    def task_ids(self) -> list[str]:
        """All task ids in the order of definition."""
        return list(self.task_dict)

    @property
    def roots(self) -> list[AbstractOperator]:
        """The tasks without upstream tasks."""
        return [task for task in self.tasks if not task.upstream_task_ids]

    @property
    def leaves(self) -> list[AbstractOperator]:
        """The tasks without downstream tasks."""
        return [task for task in self.tasks if not task.downstream_task_ids]

    @property
    def subdags(self) -> list[DAG]:
        """The DAGs of its SubDagOperators and of theirs, in the order of definition."""
        own = [subdag for task in self.tasks if (subdag := getattr(task, "subdag", None)) is not None]
        return [found for subdag in own for found in (subdag, *subdag.subdags)]

    def has_task(self, task_id: str) -> bool:
        """Tell if there is a task of that id."""
        return task_id in self.task_dict

    def get_task(self, task_id: str) -> AbstractOperator:
        """Return the task of that id; `DagError` names the nearest if there is none."""
        if task_id in self.task_dict:
            return self.task_dict[task_id]
        close = get_close_matches(task_id, self.task_dict, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise DagError(f"The DAG {self.dag_id!r} has no task {task_id!r}{hint}; it has {len(self.task_dict)} others.")

    def add_task(self, task: AbstractOperator) -> None:
        """Take in a task that belongs to no DAG yet; `DagError` if its id is taken or it belongs to another."""
        if task._dag is self:  # noqa: SLF001  # the two sides of one relation
            return
        if task.has_dag():
            raise DagError(
                f"The task {task.task_id!r} belongs to the DAG {task.dag_id!r} already; make another for {self.dag_id!r}."
            )
        self.refuse_taken(task.task_id, "task")
        task._dag = self  # noqa: SLF001  # the two sides of one relation
        task.start_date = _outermost(max, task.start_date, self.start_date)
        task.end_date = _outermost(min, task.end_date, self.end_date)
        self.task_dict[task.task_id] = task
        if task.task_group is None:
            task.task_group = self.task_group
        task.task_group.add(task)

    def add_tasks(self, tasks: Iterable[AbstractOperator]) -> None:
        """Take in several tasks."""
        for task in tasks:
            self.add_task(task)

    def refuse_taken(self, own_id: str, kind: str) -> None:
        """Raise `DagError` if a task or group of that id exists."""
        other = "task" if own_id in self.task_dict else "task group" if own_id in self.task_groups else None
        if other is not None:
            raise DagError(f"The DAG {self.dag_id!r} has a {other} {own_id!r} already; give the new {kind} another id.")

    def free_id(self, own_id: str) -> str:
        """Return `own_id`, or with `__1`, `__2` … behind it the first that no task or group has."""
        number, free = 0, own_id
        while free in self.task_dict or free in self.task_groups:
            number += 1
            free = f"{own_id}__{number}"
        return free

    def set_dependency(self, upstream_task_id: str, downstream_task_id: str) -> None:
        """Draw an edge between two tasks by their ids."""
        self.get_task(upstream_task_id).set_downstream(self.get_task(downstream_task_id))

    def topological_order(self) -> list[str]:
        """Return the task ids with each after those before it, else in the order of definition; tasks of cycles are left out."""
        return topological_order({task.task_id: task.downstream_task_ids for task in self.tasks})

    def mapping_sources(self) -> frozenset[tuple[str, str]]:
        """Return (task id, XCom key) of every value that a task or group is mapped over (S12.5)."""
        inputs = [task.expand_input for task in self.tasks if task.expand_input is not None]
        inputs += [group.expand_input for group in self.task_groups.values() if isinstance(group, MappedTaskGroup)]
        return frozenset(source for expand_input in inputs for source in expand_input.source_keys())

    # --- params

    def param(self, name: str, default: Any = NOTSET) -> DagParam:
        """Return a reference to the param `name` for use as an argument; with a default, declare it."""
        if default is not NOTSET or name not in self.params:
            self.params = self.params.overlaid({name: default if isinstance(default, Param) else Param(default)})
        return DagParam(name)

    # --- checks

    def validate(self) -> None:
        """Raise `DagError` for what can only be told of the whole DAG.

        That is a cycle (naming its tasks), or a trigger rule where it may not be used (S4.6, S6.8); also in its subdags.
        """
        cycle = find_cycle({task.task_id: task.downstream_task_ids for task in self.tasks})
        if cycle is not None:
            raise DagError(
                f"The DAG {self.dag_id!r} has a cycle: {' → '.join((*cycle, cycle[0]))}; remove one of these edges."
            )
        check_rules(self)
        for subdag in self.subdags:
            subdag.validate()


def _outermost(
    choose: Callable[[datetime, datetime], datetime], own: datetime | None, dags: datetime | None
) -> datetime | None:
    return choose(own, dags) if own is not None and dags is not None else own or dags


def _date(name: str, value: object, owner: str) -> datetime | None:
    if value is None or isinstance(value, datetime):
        return None if value is None else as_utc(value)
    raise DagError(f"{owner} has {name}={value!r}; it takes a datetime or None.")


def _zone_of(start: object) -> tzinfo:
    """Return the time zone of a start date, as one that can be pickled and knows daylight saving; naive ones are UTC."""
    zone = start.tzinfo if isinstance(start, datetime) else None
    if zone is None:
        return UTC
    name = getattr(zone, "key", None) or getattr(zone, "zone", None) or getattr(zone, "name", None)
    return ZoneInfo(name) if isinstance(name, str) and name != "UTC" else zone


def _calling_frame() -> tuple[str, bool]:
    """Return the file of the code that makes the DAG, the first outside of this package, and if that is a function."""
    frame = sys._getframe(1)  # noqa: SLF001  # inspect.stack() reads every source file on the way
    while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
        frame = frame.f_back
    return str(Path(frame.f_code.co_filename).absolute()), frame.f_code.co_name != "<module>"
