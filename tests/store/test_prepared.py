"""What a connection sends again and again it has planned once, and nothing depends on that."""

from collections.abc import Iterator
from typing import Any

import pytest
from planted import statements
from sqlalchemy import Connection, Engine, event, text

from backfill.store.database import create_engine, repeat
from backfill.store.statements import named, statement

ADD = statement("select cast(:left as int) + cast(:right as int) as total, :word || '%' as word")
NAMED = named(statement("select 'a', cast(:numbers as int[])"), "letter", "numbers")


@pytest.fixture
def own(engine: Engine) -> Iterator[Engine]:
    """An engine with one connection, which has sent nothing yet."""
    own = create_engine(engine.url.render_as_string(hide_password=False), application_name="prepared", pool_size=1)
    yield own
    own.dispose()


def sent(engine: Engine) -> list[str]:
    """A list that grows by the first word of each statement."""
    words: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *args: words.append(args[2].split()[0]))
    return words


def add(tx: Connection, left: int | None = 2, word: str = "it's 5 ") -> Any:
    return tx.execute(ADD, {"left": left, "right": 3, "word": word}).one()


def test_the_second_time_a_statement_is_prepared_and_from_then_on_called_by_name(own: Engine) -> None:
    words = sent(own)
    with own.begin() as tx:
        assert [add(tx), add(tx, left=7), add(tx, left=None)] == [(5, "it's 5 %"), (10, "it's 5 %"), (None, "it's 5 %")]
    with own.begin() as tx:
        assert add(tx, word=":x %(y)s %") == (5, ":x %(y)s %%")
    assert words == ["select", "prepare", "execute", "execute", "execute"]


def test_rows_have_names_and_lists_come_back_as_they_went_in(own: Engine) -> None:
    with own.begin() as tx:
        for numbers in ([1, None], [], [7]):
            row = tx.execute(NAMED, {"numbers": numbers}).one()
            assert (row.letter, row.numbers) == ("a", numbers)


def test_what_is_no_statement_of_the_store_is_sent_as_it_is(own: Engine) -> None:
    words = sent(own)
    with own.begin() as tx:
        for _ in range(3):
            tx.execute(text("select 1"))
    assert words == ["select"] * 3


def test_each_connection_prepares_for_itself(own: Engine) -> None:
    words = sent(own)
    with own.begin() as tx, own.begin() as other:
        for each in (tx, tx, other, other):
            add(each)
    assert words == ["select", "prepare", "execute", "select", "prepare", "execute"]


def test_a_session_that_forgot_what_was_prepared_costs_one_repetition(own: Engine) -> None:
    with own.begin() as tx:
        for _ in range(2):
            add(tx)
        tx.exec_driver_sql("deallocate all")  # as another session of a pooler, which never heard of it
    words = sent(own)
    calls = 0

    def work(tx: Connection) -> Any:
        nonlocal calls
        calls += 1
        return add(tx)

    assert repeat(own, work, wait=lambda _: None) == (5, "it's 5 %")
    assert calls == 2
    assert repeat(own, work) == repeat(own, work) == (5, "it's 5 %")
    assert words == ["execute", "select", "select", "select"]


def test_a_session_in_which_another_client_has_prepared_it_costs_one_repetition(own: Engine) -> None:
    with own.begin() as tx:
        for _ in range(2):
            add(tx)
    with own.connect() as tx:
        tx.info.clear()  # as if this client were a new one, and the pooler's session had seen the old one
    words = sent(own)
    for _ in range(3):
        assert repeat(own, add, wait=lambda _: None) == (5, "it's 5 %")
    assert words == ["select", "prepare", "select", "select"]


def test_a_plan_that_a_migration_made_wrong_costs_one_repetition(own: Engine) -> None:
    select_all = statement("select * from slot_pool where pool = :pool")
    with own.begin() as tx:
        for _ in range(2):
            tx.execute(select_all, {"pool": "default_pool"}).all()
    with own.begin() as tx:
        tx.exec_driver_sql("alter table slot_pool add column more text")
    try:
        found = repeat(own, lambda tx: tx.execute(select_all, {"pool": "default_pool"}).one(), wait=lambda _: None)
        assert found.more is None
    finally:
        with own.begin() as tx:
            tx.exec_driver_sql("alter table slot_pool drop column more")


def test_those_who_count_statements_see_them_in_full(own: Engine) -> None:
    with statements(own) as seen, own.begin() as tx:
        for _ in range(3):
            add(tx)
    assert len(seen) == 3
    assert all(each.startswith("select cast(%(left)s as int)") for each in seen)
