"""Transactions by the driver itself do what SQLAlchemy's do, with less around them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from gates import CommitGate
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from backfill.store.database import create_engine, is_passing, repeat
from backfill.store.direct import DirectEngine
from backfill.store.statements import statement

ADD_POOL = statement("insert into slot_pool (pool, slots) values (:pool, :slots) returning pool, slots")
POOLS = text("select pool from slot_pool order by pool")
LAST_QUERY = text(
    "select query, state from pg_stat_activity where application_name = 'direct' and datname = current_database()"
)
BOTH = pytest.mark.parametrize("autocommit", [False, True], ids=["a transaction", "by itself"])


@pytest.fixture
def own(engine: Engine) -> Iterator[Engine]:
    """An engine with one connection."""
    own = create_engine(engine.url.render_as_string(hide_password=False), application_name="direct", pool_size=1)
    yield own
    own.dispose()


def add(tx: sa.Connection, *pools: str) -> None:
    for pool in pools:
        tx.execute(ADD_POOL, {"pool": pool, "slots": 3})


def pools(engine: Engine) -> list[str]:
    with engine.connect() as tx:
        return [pool for pool in tx.execute(POOLS).scalars() if pool != "default_pool"]


@BOTH
def test_what_is_written_is_committed_at_the_end_and_rows_come_back(
    own: Engine, engine: Engine, autocommit: bool
) -> None:
    for pool in ("a", "b", "c"):
        with DirectEngine(own, autocommit=autocommit).begin() as tx:
            assert list(tx.execute(ADD_POOL, {"pool": pool, "slots": 3})) == [(pool, 3)]
            assert (pool in pools(engine)) is autocommit
    assert pools(engine) == ["a", "b", "c"]
    with DirectEngine(own, autocommit=autocommit).begin() as tx:
        assert tx.execute(POOLS, {}).scalars() == ["a", "b", "c", "default_pool"]


def test_a_block_that_raises_undoes_all_of_it(own: Engine, engine: Engine) -> None:
    with pytest.raises(IntegrityError), DirectEngine(own).begin() as tx:
        add(tx, "a", "default_pool")
    assert pools(engine) == []
    with own.begin() as tx:  # the connection is as SQLAlchemy expects it
        tx.execute(ADD_POOL, {"pool": "b", "slots": 3})
        assert pools(engine) == []
    assert pools(engine) == ["b"]


@BOTH
def test_errors_are_those_of_sqlalchemy_and_leave_the_connection_usable(own: Engine, autocommit: bool) -> None:
    direct = DirectEngine(own, autocommit=autocommit)
    for _ in range(3):
        with pytest.raises(IntegrityError, match="default_pool") as caught, direct.begin() as tx:
            tx.execute(ADD_POOL, {"pool": "default_pool", "slots": 3})
        assert not is_passing(caught.value)
    assert pools(own) == []


@BOTH
def test_a_connection_that_died_is_replaced_and_the_work_repeated(
    own: Engine, engine: Engine, autocommit: bool
) -> None:
    direct = DirectEngine(own, autocommit=autocommit)
    with direct.begin() as tx:
        (pid,) = tx.execute(text("select pg_backend_pid()"), {}).scalars()
    with engine.begin() as tx:
        tx.execute(text("select pg_terminate_backend(:pid, 30000)"), {"pid": pid})
    repeat(direct, lambda tx: tx.execute(ADD_POOL, {"pool": "a", "slots": 3}), wait=lambda _: None)
    assert pools(engine) == ["a"]


def test_a_connection_that_was_closed_in_the_pool_is_replaced_as_well(own: Engine, engine: Engine) -> None:
    pooled = own.raw_connection()
    driver = pooled.dbapi_connection
    pooled.close()
    assert driver is not None
    driver.close()
    repeat(DirectEngine(own), lambda tx: tx.execute(ADD_POOL, {"pool": "a", "slots": 3}), wait=lambda _: None)
    assert pools(engine) == ["a"]


def test_a_server_that_cannot_be_reached_is_said_so_as_by_sqlalchemy(tmp_path: Path) -> None:
    nowhere = create_engine(f"postgresql:///x?host={tmp_path}", application_name="direct")
    with pytest.raises(OperationalError) as caught, DirectEngine(nowhere).begin():
        raise AssertionError
    assert is_passing(caught.value)
    assert isinstance(caught.value, DBAPIError)


def test_a_transaction_begins_with_its_first_statement_and_one_statement_needs_none(
    own: Engine, engine: Engine
) -> None:
    with DirectEngine(own).begin() as tx:
        tx.execute(text("select 1"), {})
        with engine.connect() as other:
            assert other.execute(LAST_QUERY).one() == ("BEGIN; select 1", "idle in transaction")
    with engine.connect() as other:
        assert other.execute(LAST_QUERY).one() == ("COMMIT", "idle")
    with DirectEngine(own, autocommit=True).begin() as tx:
        tx.execute(text("select 2"), {})
    with engine.connect() as other:
        assert other.execute(LAST_QUERY).one() == ("select 2", "idle")


@pytest.mark.parametrize("arrives", [True, False], ids=["committed", "not committed"])
def test_a_commit_whose_answer_was_lost_is_an_error_that_passes(
    database_url: str, engine: Engine, arrives: bool
) -> None:
    folder = str(sa.make_url(database_url).query["host"])
    with CommitGate(Path(folder) / ".s.PGSQL.5432") as gate:
        url = sa.make_url(database_url).set(host="127.0.0.1", port=gate.port, query={})
        through = create_engine(url.render_as_string(hide_password=False), application_name="direct")
        gate.lose_next_commit(arrives=arrives)
        with pytest.raises(DBAPIError) as caught, DirectEngine(through).begin() as tx:
            tx.execute(ADD_POOL, {"pool": "a", "slots": 3})
        assert is_passing(caught.value)
        assert pools(engine) == (["a"] if arrives else [])
        assert pools(through) == (["a"] if arrives else [])
        through.dispose()
