"""The task instances of runs brought in line with the DAG: one row for each task, or for each index that it is mapped over (S2.12)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from backfill.facts import TaskInstanceFacts
from backfill.store.database import Tx
from backfill.store.prepared import PLANNED_EACH_TIME
from backfill.store.statements import as_facts, columns, fetch, statement


class TaskTemplate(NamedTuple):
    """A row that each run should have: one for each task, or for each index of a literal mapping (S2.12)."""

    task_id: str
    map_index: int
    #: The task's `retries`.
    max_tries: int
    pool: str
    pool_slots: int
    queue: str
    executor: str
    operator: str
    priority_weight: int
    #: The task is mapped over what another one returns: the row, of index -1, gives way to any number of expanded ones (S4.7).
    dynamic: bool = False


_TEMPLATE = """
    template as (
        select * from unnest(
            cast(:task_ids as text[]), cast(:map_indexes as integer[]), cast(:max_tries as integer[]),
            cast(:pools as text[]), cast(:pool_slots as integer[]), cast(:queues as text[]), cast(:executors as text[]),
            cast(:operators as text[]), cast(:priority_weights as integer[]), cast(:dynamic as boolean[])
        ) with ordinality as t (
            task_id, map_index, max_tries, pool, pool_slots, queue, executor, operator, priority_weight, dynamic, place
        )
    )
"""

# Rows in flight keep what they were queued with, and are not removed under the feet of their attempt.
_ALIGN_EXISTING = statement(
    """
    with $template,
    changed as (
        select ti.id, template.*,
               ti.state = 'removed' as comes_back
        from task_instance ti
        left join template
            on template.task_id = ti.task_id and (template.map_index = ti.map_index or (template.dynamic and ti.map_index >= 0))
        where ti.dag_run_id = any(cast(:dag_run_ids as bigint[])) and (not :is_subset or ti.task_id = any(cast(:task_ids as text[])))
          and case
              when template.task_id is null then ti.state <> 'removed' and ti.state not in $in_flight
              when ti.state = 'removed' then template.map_index = ti.map_index and not (template.dynamic and exists (
                  select from task_instance live
                  where live.dag_run_id = ti.dag_run_id and live.task_id = ti.task_id and live.map_index >= 0
                    and live.state <> 'removed'
              ))
              else ti.state in $idle and (ti.pool, ti.pool_slots, ti.queue, ti.executor, ti.operator, ti.priority_weight)
                  is distinct from (template.pool, template.pool_slots, template.queue, template.executor,
                                    template.operator, template.priority_weight)
              end
        order by ti.id
        for no key update of ti
    )
    update task_instance ti
    set state = case when changed.task_id is null then 'removed' when changed.comes_back then 'none' else ti.state end,
        max_tries = case when changed.comes_back then ti.try_number + changed.max_tries else ti.max_tries end,
        try_open = ti.try_open and changed.task_id is not null and not changed.comes_back,
        next_attempt_at = case when changed.task_id is not null and not changed.comes_back then ti.next_attempt_at end,
        pool = coalesce(changed.pool, ti.pool),
        pool_slots = coalesce(changed.pool_slots, ti.pool_slots),
        queue = coalesce(changed.queue, ti.queue),
        executor = coalesce(changed.executor, ti.executor),
        operator = coalesce(changed.operator, ti.operator),
        priority_weight = coalesce(changed.priority_weight, ti.priority_weight)
    from changed
    where ti.id = changed.id and ti.id = any(array(select id from changed))
    """,
    template=_TEMPLATE,
).execution_options(**PLANNED_EACH_TIME)

_CREATE_MISSING = statement(
    """
    with $template,
    run as materialized (
        select run.id, run.dag_id, run.run_id, array_position(cast(:dag_run_ids as bigint[]), run.id) as place,
               exists (select from task_instance ti where ti.dag_run_id = run.id) as has_some
        from dag_run run
        where run.id = any(cast(:dag_run_ids as bigint[]))
    ),
    created as (
        insert into task_instance as ti (dag_run_id, dag_id, run_id, task_id, map_index, max_tries, pool, pool_slots, queue,
                                         executor, operator, priority_weight)
        select run.id, run.dag_id, run.run_id, template.task_id, template.map_index, template.max_tries, template.pool,
               template.pool_slots, template.queue, template.executor, template.operator, template.priority_weight
        from run
        cross join template
        where not (run.has_some and template.dynamic and exists (
              select from task_instance live
              where live.dag_run_id = run.id and live.task_id = template.task_id and live.map_index >= 0
                and live.state <> 'removed'
          ))
        order by run.place, template.place
        on conflict (dag_run_id, task_id, map_index) do nothing
        returning $facts
    )
    select created.*, (select bool_or(has_some) from run) as are_not_all from created order by id
    """,
    template=_TEMPLATE,
).execution_options(**PLANNED_EACH_TIME)


def align_task_instances(
    tx: Tx, dag_run_ids: Sequence[int], templates: Sequence[TaskTemplate], *, is_subset: bool = False
) -> list[TaskInstanceFacts] | None:
    """Bring the task instances of runs in line with the DAG (S2.12), in one statement for any number of new runs.

    Returns all their rows if none of the runs had any before, else None: another statement goes over those that were there.

    Missing rows are created (S3.1), `removed` ones that `templates` have again are back in `none` (S3.21), others that they lack
    become `removed` unless in flight (S3.20), and idle ones take over pool, slots, queue, executor, operator and weight. Expanded
    rows of a `dynamic` template stay as they are. If `templates` are of a subset of the tasks all others are left alone (S13.6), also
    those that are gone from the DAG.
    """
    if not dag_run_ids:
        return []
    parameters = {
        **_template_arrays(templates),
        "dag_run_ids": list(dag_run_ids),
        "is_subset": is_subset,
    }
    created = fetch(tx.execute(_CREATE_MISSING, parameters))
    if created and not created[0][-1]:
        return as_facts(row[:-1] for row in created)
    tx.execute(_ALIGN_EXISTING, parameters)
    return None


def _template_arrays(templates: Sequence[TaskTemplate]) -> dict[str, list[Any]]:
    names = (
        "task_ids",
        "map_indexes",
        "max_tries",
        "pools",
        "pool_slots",
        "queues",
        "executors",
        "operators",
        "priority_weights",
        "dynamic",
    )
    return dict(zip(names, columns(templates) if templates else [[] for _ in names], strict=True))
