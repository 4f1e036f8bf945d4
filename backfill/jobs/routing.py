"""Which executors the tasks of a job go to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from backfill.dag import DAG
from backfill.dag.subset import chosen_tasks
from backfill.exceptions import UnknownExecutor
from backfill.executors import known_names, normal_name
from backfill.jobs.request import BackfillRequest
from backfill.operators import SubDagOperator


def executor_names(dag: DAG, request: BackfillRequest) -> frozenset[str]:
    """Return the short names of the executors that chosen tasks use (S1.6); where there is no task, one that costs nothing.

    Raises `UnknownExecutor` naming the task, `UsageError` if no task is chosen.
    """
    chosen = chosen_tasks(dag, request.task_regex, request.ignore_dependencies)
    return frozenset(_executor_names(dag, chosen, request)) or frozenset({"local"})


def _executor_names(dag: DAG, chosen: Iterable[str], request: BackfillRequest) -> Iterator[str]:
    for task_id in sorted(chosen):
        task = dag.task_dict[task_id]
        if isinstance(task, SubDagOperator):  # itself it goes to none
            yield from _executor_names(task.subdag, task.subdag.task_dict, request)
        else:
            yield _executor_name(dag, task_id, request)


def _executor_name(dag: DAG, task_id: str, request: BackfillRequest) -> str:
    own = dag.task_dict[task_id].executor
    if not own:
        return request.executor  # it may be the user's own class, which no name leads to
    try:
        return normal_name(own)
    except UnknownExecutor as error:
        raise UnknownExecutor(
            f"Task {task_id!r} of DAG {dag.dag_id!r} names the executor {own!r}, which does not exist; "
            f"write {' or '.join(known_names())}."
        ) from error
