"""DAGs with subdags of scripted tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from playhouse import dag_of

from backfill import DAG
from backfill.operators import SubDagOperator

_OF_THE_DAG = ("max_active_tasks", "max_active_runs", "dagrun_timeout", "fail_stop", "on_failure_callback")


def child_of(
    parent: DAG,
    *tasks: str,
    task_id: str = "s",
    below: str | None = None,
    arguments: Mapping[str, Mapping[str, Any]] | None = None,
    **given: Any,
) -> DAG:
    """Give `parent` a task that stands for a subdag of `tasks`, below another of its tasks, and return the subdag."""
    of_the_dag = {name: given.pop(name) for name in _OF_THE_DAG if name in given}
    child = dag_of(*tasks, dag_id=f"{parent.dag_id}.{task_id}", arguments=arguments, **of_the_dag)
    with parent:
        operator = SubDagOperator(task_id=task_id, subdag=child, **given)
    if below:
        parent.task_dict[below] >> operator
    return child


def after(dag: DAG, upstream: str, downstream: str) -> None:
    dag.task_dict[upstream] >> dag.task_dict[downstream]


def around(*tasks: str, arguments: Mapping[str, Mapping[str, Any]] | None = None, **given: Any) -> DAG:
    """Return a DAG `d` of the tasks a, s and z in a row, of which s stands for a subdag of `tasks`."""
    dag = dag_of("a", "z", arguments=arguments)
    child_of(dag, *tasks, below="a", arguments=arguments, **given)
    after(dag, "s", "z")
    return dag


def begin(house, dag, days=1, **request):
    """Return a job whose subdag runs: `a` has ended, and `x` is in flight."""
    at_work = house.at_work(dag, days, **request)
    at_work.admit()
    at_work.process()
    finish(at_work, house, "a")
    return at_work


def finish(at_work, house, task_id, state="success", **values):
    house.set_rows(house.rows("id", task_id=task_id), state=state, **values)
    look(at_work)


def look(at_work):
    """Let the loop go round once, with the sweep."""
    at_work.ti_status.observe(at_work.job._reconciler.sweep(at_work.job.course.window.run_ids()))
    at_work.job._update_counters(at_work.ti_status)
    at_work.process()
    while at_work.job._settle_runs(at_work.ti_status, None):
        at_work.process()
