"""The tasks of a job by the names under which they are asked for (S13): `load`, and of a subdag `part.load`."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from itertools import chain

from backfill.exceptions import UsageError
from backfill.jobs.why.case import Case, JobTask
from backfill.jobs.why.labels import listed


def find_task(case: Case, asked: str) -> JobTask:
    """Return the task of a job that is asked for; `UsageError` if there is none such, or more than one.

    `asked` is a task id of the job's DAG or, for a task of a subdag, its name, its name with the DAG's id before it or, where only
    one of the subdags has such a task, its id.
    """
    tasks = tasks_of(case)
    for known in (task.name for task in tasks), (f"{task.dag_id}.{task.task_id}" for task in tasks):
        found = [task for task, name in zip(tasks, known, strict=True) if name == asked]
        if found:
            return found[0]
    of_subdags = [task for task in tasks if task.task_id == asked]
    if len(of_subdags) > 1:
        names = listed([task.name for task in of_subdags])
        raise UsageError(
            f"{len(of_subdags)} subdags of job {case.row.id} have a task {asked!r}; name one of them: {names}."
        )
    if not of_subdags:
        raise UsageError(_there_is_none(case, asked, tasks))
    return of_subdags[0]


def _there_is_none(case: Case, asked: str, tasks: Sequence[JobTask]) -> str:
    if case.job.dag is not None and asked in case.job.dag.task_dict:
        return f"Task {asked!r} is not among those that job {case.row.id} has chosen with --task-regex."
    close = get_close_matches(asked, chain.from_iterable((task.name, task.task_id) for task in tasks), n=1)
    instead = f"did you mean {close[0]!r}?" if close else f"`backfill tasks {case.row.id}` shows those that it has."
    return f"Job {case.row.id} of {case.row.dag_id} has no task {asked!r}; {instead}"


def tasks_of(case: Case) -> list[JobTask]:
    """Return the chosen tasks of a job and all of their subdags, in topological order."""
    placed = case.row.params.get("order") or [(case.row.dag_id, task_id) for task_id in case.chosen]
    return [case.task(dag_id, task_id) for dag_id, task_id in placed]


def tasks_below(case: Case, operator: JobTask) -> list[JobTask]:
    """Return the tasks of the subdag that a task stands for, in topological order; none if it stands for none."""
    return [task for task in tasks_of(case) if task.dag_id == operator.subdag]


def standing_for(case: Case, task: JobTask) -> JobTask:
    """Return the task that stands for the subdag to which `task` belongs."""
    return next(each for each in tasks_of(case) if each.subdag == task.dag_id)
