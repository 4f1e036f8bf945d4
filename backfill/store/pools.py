"""Pools: how many slots there are, and how many are taken."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import text

from backfill.exceptions import RefusedError, UnknownPool, UsageError
from backfill.store.database import Tx
from backfill.store.values import encode

#: The pool of every task that names none; it always exists.
DEFAULT_POOL = "default_pool"
#: Slots of a pool without a limit; 0 closes a pool.
UNLIMITED = -1
#: What the column holds.
_MOST_SLOTS = 2**31 - 1


class Pool(NamedTuple):
    """One pool; `queued_slots` and `running_slots` are those that task instances in flight take now."""

    pool: str
    slots: int
    description: str
    queued_slots: int
    running_slots: int


_LIST_POOLS = text("""
select p.pool, p.slots, p.description,
       coalesce(sum(t.pool_slots) filter (where t.state = 'queued'), 0),
       coalesce(sum(t.pool_slots) filter (where t.state = 'running'), 0)
from slot_pool p left join task_instance t on t.pool = p.pool and t.state in ('queued', 'running')
group by p.pool order by p.pool
""")


def list_pools(tx: Tx) -> list[Pool]:
    """Return all pools by name, with what they hold now."""
    return [Pool(*row) for row in tx.execute(_LIST_POOLS)]


_SET_POOL = text("""
insert into slot_pool (pool, slots, description) values (:pool, :slots, coalesce(:description, ''))
on conflict (pool) do update
set slots = excluded.slots, description = coalesce(:description, slot_pool.description)
""")


def set_pool(tx: Tx, pool: str, slots: int, description: str | None = None) -> None:
    """Make a pool or change its size, and its description where one is given; what runs in it goes on (S5.4).

    -1 is unlimited, 0 closes it. Raises `UsageError` for a name or a number that a pool cannot have.
    """
    if not pool or not pool.isprintable():
        raise UsageError(f"{pool!r} is no name for a pool; give one of printable characters.")
    if not UNLIMITED <= slots <= _MOST_SLOTS:
        raise UsageError(f"A pool cannot have {slots} slots; give a number from 0, or -1 for no limit.")
    encode("The description of the pool", description)
    tx.execute(_SET_POOL, {"pool": pool, "slots": slots, "description": description})


_DELETE_POOL = text("delete from slot_pool where pool = :pool returning pool")


def delete_pool(tx: Tx, pool: str) -> None:
    """Delete a pool; task instances that name it are blocked from then on (S5.4).

    Raises `UnknownPool` if there is none of that name, `RefusedError` for the default pool.
    """
    if pool == DEFAULT_POOL:
        raise RefusedError(
            f"The pool {DEFAULT_POOL!r} cannot be deleted; `backfill pools set {DEFAULT_POOL} 0` closes it."
        )
    if tx.execute(_DELETE_POOL, {"pool": pool}).scalar_one_or_none() is None:
        raise UnknownPool(f"There is no pool {pool!r}; `backfill pools list` shows those that exist.")


_ENSURE_DEFAULT = text("""
insert into slot_pool (pool, slots, description) values (:pool, :slots, 'for tasks that name no pool')
on conflict (pool) do nothing
""")


def ensure_default(tx: Tx, slots: int) -> None:
    """Make the default pool with so many slots if it is missing; one that exists is left as it is."""
    tx.execute(_ENSURE_DEFAULT, {"pool": DEFAULT_POOL, "slots": slots})
