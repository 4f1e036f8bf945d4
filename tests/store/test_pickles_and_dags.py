from __future__ import annotations

from sqlalchemy import Engine, select

from backfill.models import dag
from backfill.store.dags import touch_dag
from backfill.store.pickles import StoredPickle, load_pickle, save_pickle

FROZEN = StoredPickle("cafe", "sales", bytes(range(256)) * 5000, "signature", "3.11")


def test_a_frozen_dag_comes_back_as_it_was_saved(engine: Engine) -> None:
    with engine.begin() as tx:
        assert load_pickle(tx, "cafe") is None
        save_pickle(tx, *FROZEN)
        found = load_pickle(tx, "cafe")
    assert found == FROZEN
    assert type(found.payload) is bytes


def test_saving_twice_stores_once_under_the_latest_signature(engine: Engine) -> None:
    signed_again = FROZEN._replace(signature="by another key")
    with engine.begin() as tx:
        save_pickle(tx, *FROZEN)
        save_pickle(tx, *FROZEN)
        assert load_pickle(tx, "cafe") == FROZEN
        save_pickle(tx, *signed_again)
        assert load_pickle(tx, "cafe") == signed_again


def test_a_dag_is_noted_with_its_file_and_the_time_of_its_last_use(engine: Engine) -> None:
    with engine.begin() as tx:
        touch_dag(tx, "sales", "/dags/old.py")
        first = tx.execute(select(dag)).one()
    with engine.begin() as tx:
        touch_dag(tx, "sales", "/dags/new.py")
        touch_dag(tx, "in memory", None)
        rows = {row.dag_id: row for row in tx.execute(select(dag))}
    assert rows["sales"].fileloc == "/dags/new.py"
    assert rows["sales"].last_used_at > first.last_used_at
    assert rows["in memory"].fileloc is None
