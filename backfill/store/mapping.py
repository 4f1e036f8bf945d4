"""Mapped tasks: how many values a source returned, and the rows of an expansion (S4.7)."""

from __future__ import annotations

from collections.abc import Collection

from backfill.facts import TaskInstanceFacts
from backfill.store.alignment import TaskTemplate
from backfill.store.database import Tx
from backfill.store.statements import read_facts, statement
from backfill.store.xcoms import RETURN_VALUE

_COLUMNS = """dag_run_id, dag_id, run_id, task_id, map_index, max_tries, pool, pool_slots, queue, executor, operator,
        priority_weight"""
_VALUES = """run.id, run.dag_id, run.run_id, :task_id, wanted.map_index, :max_tries, :pool, :pool_slots, :queue, :executor, :operator,
        :priority_weight"""

# Index 0 is not among them: while there is none, nobody takes the expansion for whole.
_GROW = statement(
    """
    with made as (
        insert into task_instance ($columns)
        select $values
        from dag_run run
        cross join (
            select greatest(max(ti.map_index), 0) as map_index,
                   coalesce(bool_or(ti.map_index = -1 and ti.state <> 'removed' and ti.state in $finished), false) as has_ended,
                   coalesce(bool_or(ti.map_index >= 0 and ti.state <> 'removed'), false) as has_begun
            from task_instance ti
            where ti.dag_run_id = :dag_run_id and ti.task_id = :task_id
        ) last
        cross join generate_series(last.map_index + 1, least(last.map_index + :at_once, :length - 1)) as wanted (map_index)
        where run.id = :dag_run_id and (last.has_begun or not last.has_ended)
        order by wanted.map_index
        on conflict (dag_run_id, task_id, map_index) do nothing
        returning 1
    )
    select count(*) from made
    """,
    columns=_COLUMNS,
    values=_VALUES,
)

# Nothing changes where the row -1 has ended. Rows that may not stay as they are first find their new index, then their state; only those that change are written.
_EXPAND = statement(
    """
    with existing as (
        select ti.id, ti.map_index, ti.state from task_instance ti
        where ti.dag_run_id = :dag_run_id and ti.task_id = :task_id
          and (ti.map_index < 0 or ti.map_index >= :length or ti.state = 'removed')
        order by ti.id
        for no key update
    ),
    taken as (
        select ti.map_index, ti.state from task_instance ti where ti.dag_run_id = :dag_run_id and ti.task_id = :task_id
    ),
    ended as (
        select from existing
        where map_index = -1 and state <> 'removed' and state in $finished and :length > 0
          and not exists (select from taken where taken.map_index >= 0 and taken.state <> 'removed')
    ),
    indexed as (
        select id, state, map_index,
               case when map_index = -1 and :length > 0 and state in $idle
                         and not exists (select from taken first where first.map_index = 0)
                    then 0 else map_index end as new_index
        from existing
    ),
    judged as (
        select id, state, map_index, new_index,
               case when :length > 0 then new_index >= 0 and new_index < :length else new_index = -1 end as wanted
        from indexed
    ),
    changed as (
        update task_instance ti
        set map_index = judged.new_index,
            state = case when not judged.wanted then 'removed' when ti.state = 'removed' then 'none' else ti.state end,
            max_tries = case when judged.wanted and ti.state = 'removed' then ti.try_number + :max_tries else ti.max_tries end,
            try_open = ti.try_open and judged.wanted and ti.state <> 'removed',
            next_attempt_at = case when judged.wanted and ti.state <> 'removed' then ti.next_attempt_at end
        from judged
        where ti.id = judged.id and not exists (select from ended)
          and (judged.new_index <> judged.map_index
               or (judged.wanted and judged.state = 'removed')
               or (not judged.wanted and judged.state <> 'removed' and judged.state not in $in_flight))
    )
    insert into task_instance ($columns)
    select $values
    from dag_run run
    cross join generate_series(case when :length > 0 then 0 else -1 end, :length - 1) as wanted (map_index)
    where run.id = :dag_run_id and not exists (select from ended)
      and wanted.map_index not in (select map_index from taken union all select new_index from judged)
    order by wanted.map_index
    on conflict (dag_run_id, task_id, map_index) do nothing
    """,
    columns=_COLUMNS,
    values=_VALUES,
)

_SELECT_EXPANDED = statement(
    """
    select $facts from task_instance ti
    where ti.dag_run_id = :dag_run_id and ti.task_id = :task_id
    order by ti.map_index
    """
)


def expand_mapping(
    tx: Tx, dag_run_id: int, template: TaskTemplate, length: int, *, at_once: int
) -> list[TaskInstanceFacts] | None:
    """Give a mapped task of one run the rows 0 to `length` - 1, whatever rows it has; return all its rows by index.

    The idle row -1 becomes index 0, missing rows are created (S3.1), `removed` ones are back in `none` (S3.21), surplus ones become
    `removed` unless in flight (S3.20). With length 0 there is the row -1 alone. To repeat it changes nothing. A row -1 that has ended
    before there was any index, as somebody set its state, stays as it is, and alone: only what is idle is expanded (S4.1, S0.2).

    Of more than `at_once` indexes that many are created, in order and before anything else changes, and None says that the
    expansion has to go on, in another transaction: whoever calls it goes on where the rows end.
    """
    where = {"dag_run_id": dag_run_id, "task_id": template.task_id}
    parameters = {**template._asdict(), **where, "length": length}
    if length > at_once and tx.execute(_GROW, {**parameters, "at_once": at_once}).scalar_one():
        return None
    tx.execute(_EXPAND, parameters)
    return read_facts(tx.execute(_SELECT_EXPANDED, where))


_SELECT_LENGTHS = statement(
    """
    select ti.task_id, xcom.key, bool_or(ti.map_index >= 0) as expanded, count(xcom.key) as pushed,
           max(case jsonb_typeof(xcom.value)
                   when 'array' then jsonb_array_length(xcom.value)
                   when 'object' then (select count(*) from jsonb_object_keys(xcom.value))
               end) as length
    from task_instance ti
    left join xcom on xcom.task_instance_id = ti.id
    where ti.dag_run_id = :dag_run_id and ti.task_id = any(cast(:task_ids as text[])) and ti.state <> 'removed'
    group by ti.task_id, xcom.key
    """
)


def return_values_lengths(tx: Tx, dag_run_id: int, task_ids: Collection[str]) -> dict[tuple[str, str], int]:
    """Return over how many values the tasks of one run let others be mapped, by (task id, XCom key) (S4.7).

    For an expanded source that is the number of values pushed, for another one the number of entries of its list or mapping. What is
    neither, or was not pushed, is missing.
    """
    lengths: dict[tuple[str, str], int] = {}
    for row in tx.execute(_SELECT_LENGTHS, {"dag_run_id": dag_run_id, "task_ids": list(task_ids)}):
        if row.expanded:
            lengths.setdefault((row.task_id, RETURN_VALUE), 0)
        number = row.pushed if row.expanded else row.length
        if row.key is not None and number is not None:
            lengths[row.task_id, row.key] = number
    return lengths
