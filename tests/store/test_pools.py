from __future__ import annotations

import pytest
from planted import plant_run, plant_task_instance
from sqlalchemy import Engine, delete

from backfill.exceptions import RefusedError, UnknownPool, UsageError
from backfill.models import slot_pool
from backfill.store.pools import Pool, delete_pool, ensure_default, list_pools, set_pool


def test_pools_are_listed_by_name_with_what_they_hold(engine: Engine) -> None:
    with engine.begin() as tx:
        set_pool(tx, "wide", -1, "no limit")
        set_pool(tx, "closed", 0)
        run = plant_run(tx)
        for number, (state, pool, slots) in enumerate(
            [
                ("running", "wide", 3),
                ("running", "wide", 1),
                ("queued", "wide", 2),
                ("scheduled", "wide", 1),
                ("success", "wide", 1),
                ("queued", "default_pool", 1),
                ("running", "deleted", 1),
            ]
        ):
            plant_task_instance(tx, run, f"t{number}", state=state, pool=pool, pool_slots=slots)
        assert list_pools(tx) == [
            Pool("closed", 0, "", 0, 0),
            Pool("default_pool", 128, "for tasks that name no pool", 1, 0),
            Pool("wide", -1, "no limit", 2, 4),
        ]


def test_a_pool_keeps_its_description_unless_another_one_is_given(engine: Engine) -> None:
    def described() -> tuple[int, str]:
        pool = list_pools(tx)[1]
        return pool.slots, pool.description

    with engine.begin() as tx:
        set_pool(tx, "wide", 3, "first")
        set_pool(tx, "wide", 4)
        assert described() == (4, "first")
        set_pool(tx, "wide", 5, "")
        assert described() == (5, "")


@pytest.mark.parametrize(("pool", "slots"), [("", 1), ("a\nb", 1), ("a\x00", 1), ("a", -2), ("a", 2**31)])
def test_a_pool_that_cannot_be_is_refused(engine: Engine, pool: str, slots: int) -> None:
    with engine.begin() as tx:
        with pytest.raises(UsageError, match=r"is no name for a pool|A pool cannot have -?\d+ slots"):
            set_pool(tx, pool, slots)
        assert len(list_pools(tx)) == 1


def test_a_pool_is_deleted_but_neither_the_default_pool_nor_one_that_is_not_there(engine: Engine) -> None:
    with engine.begin() as tx:
        set_pool(tx, "wide", 3)
        delete_pool(tx, "wide")
        with pytest.raises(UnknownPool, match="There is no pool 'wide'"):
            delete_pool(tx, "wide")
        with pytest.raises(RefusedError, match="cannot be deleted"):
            delete_pool(tx, "default_pool")
        assert [pool.pool for pool in list_pools(tx)] == ["default_pool"]


def test_the_default_pool_is_made_where_it_is_missing_and_else_left_alone(engine: Engine) -> None:
    with engine.begin() as tx:
        ensure_default(tx, 5)
        assert list_pools(tx)[0].slots == 128
        tx.execute(delete(slot_pool))
        ensure_default(tx, 5)
        assert list_pools(tx) == [Pool("default_pool", 5, "for tasks that name no pool", 0, 0)]
