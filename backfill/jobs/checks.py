"""Every check of S1.2, and the plan of the dates: what a job goes through before it has a row, and what `plan` shows.

Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from backfill.config import Settings
from backfill.dag import DAG
from backfill.dag.params import resolve_params
from backfill.dag.subset import chosen_tasks
from backfill.engine.graph import Graph
from backfill.exceptions import BackwardsRefused, PoolTooSmall, UnknownPool, UsageError
from backfill.jobs.admission import templates_for
from backfill.jobs.course import compile_graph
from backfill.jobs.planning import DatePlan, plan_dates, run_dates
from backfill.jobs.policy import failure_budget
from backfill.jobs.request import BackfillRequest
from backfill.jobs.routing import executor_names
from backfill.operators import SubDagOperator
from backfill.store import dates, pools
from backfill.store.database import Tx, database_now
from backfill.store.runs import TaskTemplate


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A request that passed all checks that need no database, with the chosen tasks compiled."""

    dag: DAG
    request: BackfillRequest
    graph: Graph
    #: The rows that each run should have.
    templates: tuple[TaskTemplate, ...]

    @property
    def other_tasks(self) -> frozenset[str]:
        """The tasks of the DAG that were not chosen."""
        return frozenset(self.dag.task_dict) - frozenset(self.graph.task_ids)

    def plan(self, tx: Tx, *, reset: bool = False) -> DatePlan:
        """Check what needs the database, and return what happens at each date; reads only.

        With `reset` the runs of the range are about to be cleared (`--reset-dagruns`).
        Raises `UnknownPool`, `DateOwned`, `NothingToDo`, and `UsageError` for a range that is none.
        """
        _check_pools(tx, self.dag, self.request, self.graph.task_ids)
        due, left_out = run_dates(self.dag, self.request, database_now(tx))
        found = dates.select_dates_found(
            tx, self.dag.dag_id, [date.logical_date for date in due], self.templates, other_tasks=self.other_tasks
        )
        by_date = {there.logical_date: there for there in found}
        return plan_dates(self.dag, self.request, due, left_out, by_date, reset=reset)


def check_request(dag: DAG, request: BackfillRequest, settings: Settings) -> CheckedRequest:
    """Check what needs no database. Raises `UsageError`, `RefusedError` and their kin."""
    dag.validate()
    chosen = chosen_tasks(dag, request.task_regex, request.ignore_dependencies)
    if request.max_active_runs is not None and request.max_active_runs < 1:
        raise UsageError(f"max_active_runs is {request.max_active_runs}; it takes a whole number from 1.")
    if request.max_failures is not None:
        failure_budget(request.max_failures, planned=1)
    if request.delay_on_limit_secs <= 0:
        raise UsageError(f"delay_on_limit_secs is {request.delay_on_limit_secs}; it takes seconds above 0.")
    _check_params(dag, request, chosen)
    _check_operators(dag, chosen)
    executor_names(dag, request)
    if request.run_backwards:
        _refuse_backwards(dag, chosen)
    graph = compile_graph(dag, request)
    return CheckedRequest(dag, request, graph, templates_for(dag, graph, request, settings.celery.queue))


def _check_params(dag: DAG, request: BackfillRequest, chosen: Iterable[str]) -> None:
    for task_id in sorted(chosen):
        resolve_params(dag, dag.task_dict[task_id], request.conf or {})


def _check_operators(dag: DAG, chosen: Iterable[str]) -> None:
    for task_id in sorted(chosen):
        task = dag.task_dict[task_id]
        if isinstance(task, SubDagOperator):
            raise UsageError(
                f"Task {task_id!r} of DAG {dag.dag_id!r} is a SubDagOperator, which cannot be backfilled yet; use a task group."
            )


def _refuse_backwards(dag: DAG, chosen: Iterable[str]) -> None:
    tasks = [dag.task_dict[task_id] for task_id in sorted(chosen)]
    names = [task.task_id for task in tasks if task.depends_on_past or task.wait_for_downstream]
    if names:
        raise BackwardsRefused(
            f"DAG {dag.dag_id!r} cannot run backwards, as it has tasks that depend on the past: {', '.join(names)}; "
            "leave out run_backwards (--run-backwards)."
        )


def _check_pools(tx: Tx, dag: DAG, request: BackfillRequest, chosen: Iterable[str]) -> None:
    sizes = {pool.pool: pool.slots for pool in pools.list_pools(tx)}
    for task_id in sorted(chosen):
        task = dag.task_dict[task_id]
        name = request.pool or task.pool
        if name not in sizes:
            whose = "pool (--pool) names" if request.pool else f"Task {task_id!r} of DAG {dag.dag_id!r} names"
            raise UnknownPool(
                f"{whose} the pool {name!r}, which does not exist; make it with `backfill pools set {name} SLOTS`."
            )
        if 0 < sizes[name] < task.pool_slots:
            raise PoolTooSmall(
                f"Task {task_id!r} of DAG {dag.dag_id!r} takes {task.pool_slots} slots of the pool {name!r}, which has {sizes[name]}; "
                f"enlarge it with `backfill pools set {name} {task.pool_slots}`."
            )
