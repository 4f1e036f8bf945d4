"""Who takes up the room under a limit, in words (S5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from backfill.clock import duration_text
from backfill.engine.graph import TaskSpec
from backfill.engine.limits import CLOSED_POOL, Limit
from backfill.jobs.why.labels import listed, occupant_label
from backfill.jobs.why.standing import Standing
from backfill.states import TaskInstanceState
from backfill.store.inspection import Occupant


def occupants_of(limit: Limit, spec: TaskSpec, dag_run_id: int, standing: Standing) -> list[Occupant]:
    """Return what takes up the room under a limit of a task in one run, what runs the longest first."""
    dag_id, job_id = standing.course.dag_id_of(dag_run_id), standing.job.id
    counts: dict[Limit, Callable[[Occupant], bool]] = {
        Limit.POOL: lambda each: each.pool == spec.pool,
        Limit.MAX_ACTIVE_TASKS: lambda each: each.dag_id == dag_id,
        Limit.MAX_ACTIVE_TIS_PER_DAG: lambda each: (each.dag_id, each.task_id) == (dag_id, spec.task_id),
        Limit.MAX_ACTIVE_TIS_PER_DAGRUN: lambda each: (each.dag_run_id, each.task_id) == (dag_run_id, spec.task_id),
        Limit.PARALLELISM: lambda each: each.job_id == job_id,
    }
    return [each for each in standing.occupants if counts[limit](each)]


def limit_clause(limit: Limit, spec: TaskSpec, dag_run_id: int, standing: Standing) -> str:
    """Say what a task instance waits for under a limit that has no room, and who takes it up; ends "… waits for "."""
    taken_by = occupants_of(limit, spec, dag_run_id, standing)
    if limit is Limit.POOL:
        return _pool_clause(spec, taken_by, standing)
    by = f", taken by {_occupants(taken_by)}" if taken_by else ""
    return f"a place under {limit_name(limit, spec, dag_run_id, standing)}{by}"


def limit_name(limit: Limit, spec: TaskSpec, dag_run_id: int, standing: Standing) -> str:
    """Return a limit with its value and what it is about."""
    graph = standing.course.compiled.graphs[standing.course.dag_id_of(dag_run_id)]
    match limit:
        case Limit.POOL:
            return f"pool {spec.pool!r}"
        case Limit.MAX_ACTIVE_TASKS:
            return f"max_active_tasks of {graph.max_active_tasks} of DAG {graph.dag_id!r}"
        case Limit.MAX_ACTIVE_TIS_PER_DAG:
            return f"max_active_tis_per_dag of {spec.max_active_tis_per_dag} of task {spec.task_id!r}"
        case Limit.MAX_ACTIVE_TIS_PER_DAGRUN:
            return f"max_active_tis_per_dagrun of {spec.max_active_tis_per_dagrun} of task {spec.task_id!r}"
        case Limit.PARALLELISM:
            return f"core.parallelism of {standing.parallelism}"


def _pool_clause(spec: TaskSpec, taken_by: Sequence[Occupant], standing: Standing) -> str:
    size = standing.occupancy.pool_sizes.get(spec.pool)
    if size is None:
        return f"pool {spec.pool!r}, which does not exist; `backfill pools set {spec.pool} SLOTS` makes it"
    if size == CLOSED_POOL:
        return f"pool {spec.pool!r}, which is closed; `backfill pools set {spec.pool} SLOTS` opens it"
    wanted = "a place" if spec.pool_slots == 1 else f"{spec.pool_slots} places"
    taken = sum(each.pool_slots for each in taken_by)
    by = f" by {_occupants(taken_by, slots=True)}" if taken_by else ""
    verb = "slot is" if size == 1 else "slots are"
    return f"{wanted} in pool {spec.pool!r}: {taken} of {size} {verb} taken{by}"


def _occupants(taken_by: Sequence[Occupant], *, slots: bool = False) -> str:
    return listed([f"{occupant_label(each)} ({_doing(each, slots=slots)})" for each in taken_by])


def _doing(occupant: Occupant, *, slots: bool) -> str:
    verb = "running" if occupant.state == TaskInstanceState.RUNNING else occupant.state
    said = [f"{verb} for {duration_text(occupant.age)}" if occupant.age is not None else verb]
    if slots and occupant.pool_slots != 1:
        said.insert(0, f"{occupant.pool_slots} slots")
    return ", ".join(said)


def whose_runs(job_ids: Sequence[int | None], own: int) -> str:
    """Return how many running runs are whose: `3 of this job, 2 of job 5, 1 of nobody`."""
    counts = Counter(job_ids)
    names = {own: "this job", None: "no active job"}
    parts = [f"{count} of {names.get(job_id, f'job {job_id}')}" for job_id, count in counts.most_common()]
    return listed(parts)
