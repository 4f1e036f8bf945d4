"""`backfill pools`: how many task instances may run at once, over all DAGs and jobs (semantics, section 5)."""

from __future__ import annotations

import click

from backfill.bootstrap import open_runtime
from backfill.cli.command import Group
from backfill.cli.output import Column, Format, output_option, show_rows
from backfill.cli.parameters import NAME
from backfill.config import load_settings
from backfill.store import pools as store
from backfill.store.database import repeat

_COLUMNS = (
    Column("pool"),
    Column("slots", right=True),
    Column("running_slots", "running", right=True),
    Column("queued_slots", "queued", right=True),
    Column("free_slots", "free", right=True),
    Column("description"),
)


@click.group(cls=Group)
def pools() -> None:
    """List, set and delete pools.

    A pool bounds the slots that task instances in flight take, over all DAGs and jobs.
    """


@pools.command("list")
@output_option
def list_pools(form: Format) -> None:
    """List pools, and what they hold now; -1 slots is no limit, 0 closes a pool."""
    with open_runtime(load_settings(), broker=False) as runtime:
        rows = [_row(pool) for pool in repeat(runtime.engine, store.list_pools)]
    show_rows(rows, _COLUMNS, form)


@pools.command("set", context_settings={"ignore_unknown_options": True})
@click.argument("pool", metavar="POOL", type=NAME)
@click.argument("slots", metavar="SLOTS", type=int)
@click.option("--description", type=NAME, help="What the pool is for; kept as it is unless given.")
@output_option
def set_pool(pool: str, slots: int, description: str | None, form: Format) -> None:
    """Make a pool, or change its size.

    SLOTS is a number from 0, which closes the pool, or -1 for no limit. What runs in it goes on.
    """
    with open_runtime(load_settings(), broker=False) as runtime:
        repeat(runtime.engine, lambda tx: store.set_pool(tx, pool, slots, description))
        rows = [_row(row) for row in repeat(runtime.engine, store.list_pools) if row.pool == pool]
    show_rows(rows, _COLUMNS, form)


@pools.command("delete")
@click.argument("pool", metavar="POOL", type=NAME)
def delete_pool(pool: str) -> None:
    """Delete a pool; task instances that name it are blocked from then on."""
    with open_runtime(load_settings(), broker=False) as runtime:
        repeat(runtime.engine, lambda tx: store.delete_pool(tx, pool))
    click.echo(f"The pool {pool!r} is deleted.", err=True)


def _row(pool: store.Pool) -> dict[str, object]:
    taken = pool.running_slots + pool.queued_slots
    return {**pool._asdict(), "free_slots": None if pool.slots == store.UNLIMITED else max(0, pool.slots - taken)}
