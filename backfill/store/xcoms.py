"""XComs: values that task instances leave for others (S12.5). Written by the attempt that is current, read by anybody."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from backfill.store.database import Tx
from backfill.store.statements import statement
from backfill.store.values import encode

#: Key of what a task returned.
RETURN_VALUE = "return_value"


class XCom(NamedTuple):
    """One value, and the task instance that left it. `value` is None also where None was pushed."""

    task_id: str
    map_index: int
    value: Any


# the lock makes the writer current until the end of the transaction
_PUSH = statement("""
with mine as (
    select t.id
    from task_attempt a
    join task_instance t on t.id = a.task_instance_id and t.external_executor_id = a.attempt_id
    where a.attempt_id = cast(:attempt_id as uuid) and t.state = 'running'
    for share of t
)
insert into xcom (task_instance_id, key, value)
select id, :key, cast(:value as jsonb) from mine
on conflict (task_instance_id, key) do update set value = excluded.value
returning true
""")


def push_if_current(tx: Tx, attempt_id: str, key: str, value: Any) -> bool:
    """Keep a value under the task instance and `key`, in place of an earlier one, if the attempt is current (S7.7).

    False: another attempt is current, and nothing was written. Raises `UsageError` for a value or a key that cannot be kept (see
    `backfill.store.values.encode`).
    """
    encode(f"The XCom key {key!r}", key)
    values = {"attempt_id": attempt_id, "key": key, "value": encode(f"The value of XCom {key!r}", value)}
    return tx.execute(_PUSH, values).scalar_one_or_none() is not None


_PULL = statement("""
select t.task_id, t.map_index, x.value
from task_instance t join xcom x on x.task_instance_id = t.id
where t.dag_run_id = :dag_run_id and x.key = :key and t.state <> 'removed'
  and (cast(:task_ids as text[]) is null or t.task_id = any(cast(:task_ids as text[])))
  and (cast(:map_indexes as int[]) is null or t.map_index = any(cast(:map_indexes as int[])))
order by array_position(cast(:task_ids as text[]), t.task_id), t.task_id, t.map_index
""")


def pull(
    tx: Tx,
    *,
    dag_run_id: int,
    task_ids: Sequence[str] | None,
    key: str = RETURN_VALUE,
    map_indexes: Collection[int] | None = None,
) -> list[XCom]:
    """Return what task instances of a run left under `key`, in the order of `task_ids`, then of map index (S12.5).

    None for `task_ids` or `map_indexes` means all. A task instance that pushed nothing under `key` is missing in the answer.
    """
    values = {"dag_run_id": dag_run_id, "key": key, **_filters(task_ids, map_indexes)}
    return [XCom(*row) for row in tx.execute(_PULL, values)]


# of each task the values of one run only: indexes of several runs do not belong together
_PULL_LATEST = statement("""
with latest as (
    select distinct on (t.task_id) t.task_id, t.dag_run_id
    from dag_run r join task_instance t on t.dag_run_id = r.id join xcom x on x.task_instance_id = t.id
    where r.dag_id = :dag_id and r.logical_date <= :until and x.key = :key and t.state <> 'removed'
      and t.task_id = any(cast(:task_ids as text[]))
      and (cast(:map_indexes as int[]) is null or t.map_index = any(cast(:map_indexes as int[])))
    order by t.task_id, r.logical_date desc
)
select t.task_id, t.map_index, x.value
from latest l
join task_instance t on t.dag_run_id = l.dag_run_id and t.task_id = l.task_id and t.state <> 'removed'
join xcom x on x.task_instance_id = t.id and x.key = :key
where cast(:map_indexes as int[]) is null or t.map_index = any(cast(:map_indexes as int[]))
order by array_position(cast(:task_ids as text[]), t.task_id), t.map_index
""")


def pull_latest(
    tx: Tx,
    *,
    dag_id: str,
    until: datetime,
    task_ids: Sequence[str],
    key: str = RETURN_VALUE,
    map_indexes: Collection[int] | None = None,
) -> list[XCom]:
    """Return for each task what its latest run with such a value left, at `until` or earlier (`include_prior_dates`).

    Order and filters are those of `pull`.
    """
    values = {"dag_id": dag_id, "until": until, "key": key, **_filters(task_ids, map_indexes)}
    return [XCom(*row) for row in tx.execute(_PULL_LATEST, values)]


def _filters(task_ids: Sequence[str] | None, map_indexes: Collection[int] | None) -> dict[str, Any]:
    return {
        "task_ids": None if task_ids is None else list(task_ids),
        "map_indexes": None if map_indexes is None else list(map_indexes),
    }
