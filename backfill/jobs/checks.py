"""Every check of S1.2, and the plan of the dates: what a job goes through before it has a row, and what `plan` shows.

Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from backfill.config import Settings
from backfill.dag import DAG
from backfill.dag.mapped_operator import MappedOperator
from backfill.dag.params import resolve_params
from backfill.dag.subset import chosen_tasks
from backfill.exceptions import BackwardsRefused, PoolTooSmall, UnknownPool, UsageError
from backfill.jobs.compiled import CompiledRequest
from backfill.jobs.planning import DatePlan, plan_dates, plan_subdag, run_dates
from backfill.jobs.policy import failure_budget
from backfill.jobs.request import BackfillRequest
from backfill.jobs.routing import executor_names
from backfill.jobs.subdags import Subdag
from backfill.operators import SubDagOperator
from backfill.store import dates, pools
from backfill.store.database import Tx, database_now
from backfill.store.dates import DateFound
from backfill.timetables import RunDate


class CheckedRequest(CompiledRequest):
    """A compiled request that passed all checks that need no database."""

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
        for subdag in self.subdags:
            _check_pools(tx, subdag.dag, self.request, subdag.graph.task_ids)
        due, left_out = run_dates(self.dag, self.request, database_now(tx))
        found = dates.select_dates_found(
            tx, self.dag.dag_id, [date.logical_date for date in due], self.templates, other_tasks=self.other_tasks
        )
        by_date = {there.logical_date: there for there in found}
        if not self.subdags:
            return plan_dates(self.dag, self.request, due, left_out, by_date, reset=reset)
        below = {each.dag.dag_id: self._found_in(tx, each, due) for each in self.subdags}
        for when, there in by_date.items():
            failures = sum(found[when].ended_badly for found in below.values() if when in found)
            by_date[when] = there._replace(ended_badly=there.ended_badly + failures)
        plan = plan_dates(self.dag, self.request, due, left_out, by_date, reset=reset)
        dates_of = {self.dag.dag_id: plan.dates}
        for each in self.subdags:
            name = each.dag.dag_id
            dates_of[name] = plan_subdag(each.dag, self.request, dates_of[each.parent], below[name], reset=reset)
        return replace(plan, subdags={name: dates_of[name] for name in below})

    def _found_in(self, tx: Tx, subdag: Subdag, due: Sequence[RunDate]) -> dict[datetime, DateFound]:
        found = dates.select_dates_found(tx, subdag.dag.dag_id, [date.logical_date for date in due], subdag.templates)
        return {there.logical_date: there for there in found}


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
    _check_params(dag, chosen, request.conf or {})
    _check_subdags(dag, chosen)
    executor_names(dag, request)
    if request.run_backwards:
        _refuse_backwards(dag, chosen)
    return CheckedRequest.compile(dag, request, settings.celery.queue)


def _check_params(dag: DAG, chosen: Iterable[str], conf: Mapping[str, Any]) -> None:
    for task_id in sorted(chosen):
        task = dag.task_dict[task_id]
        resolve_params(dag, task, conf)
        if isinstance(task, SubDagOperator):
            _check_params(task.subdag, task.subdag.task_dict, conf if task.conf is None else task.conf)


def _check_subdags(dag: DAG, chosen: Iterable[str]) -> None:
    """Refuse subdags that a mapping would multiply: a subdag has one run for each date."""
    for task_id in sorted(chosen):
        task = dag.task_dict[task_id]
        operator = task.operator_class if isinstance(task, MappedOperator) else type(task)
        if issubclass(operator, SubDagOperator) and (task.is_mapped or task.mapped_groups):
            raise UsageError(
                f"Task {task_id!r} of DAG {dag.dag_id!r} is a SubDagOperator that is mapped; a subdag has one run for each date. "
                "Use a mapped task group."
            )
        if isinstance(task, SubDagOperator):
            _check_subdags(task.subdag, task.subdag.task_dict)


def _refuse_backwards(dag: DAG, chosen: Iterable[str]) -> None:
    tasks = [dag.task_dict[task_id] for task_id in sorted(chosen)]
    names = [task.task_id for task in tasks if task.depends_on_past or task.wait_for_downstream]
    for task in tasks:
        if isinstance(task, SubDagOperator):
            _refuse_backwards(task.subdag, task.subdag.task_dict)
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
