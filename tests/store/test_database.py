"""URLs, engines and transactions that are repeated."""

from datetime import UTC, datetime, timedelta
from typing import Never
from unittest import mock

import psycopg2
import pytest
from planted import plant_job
from sqlalchemy import Connection, Engine, func, select, text
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError

from backfill.exceptions import ConfigError, LeaseLost, ServiceUnavailable
from backfill.models import job
from backfill.store.database import (
    autocommitting,
    create_engine,
    database_now,
    is_passing,
    mask_url,
    normalise_url,
    repeat,
    server_name,
)


class Pauses(list[float]):
    """Takes the place of `time.sleep`."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def failure(
    sqlstate: str | None, words: str = "", error_class: type[Exception] = psycopg2.OperationalError
) -> DBAPIError:
    class Original(error_class):
        pgcode = sqlstate

    return OperationalError("select", {}, Original(words))


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_every_usual_scheme_means_psycopg2(scheme: str) -> None:
    assert normalise_url(f"{scheme}://u:p@h:5/d?a=b") == "postgresql+psycopg2://u:p@h:5/d?a=b"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mysql://bob:secret@h/d",
        "bob:secret@h/d",
        "host=h password=secret",
        "host=h password='se cret'",
        "postgresql+asyncpg://bob:secret@h/d",
        "postgresql://bob:secret@h:port/d",
        "postgresql://bob:se@cret@h/d",
        "postgresql://bob:se@cr/et@h/d",
    ],
)
def test_a_url_of_another_kind_is_refused_in_one_sentence_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        normalise_url(url)
    assert "correct `database.url`" in str(raised.value)
    assert not any(part in str(raised.value) for part in ("secret", "se@", "cret", "cr/et"))


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://bob:secret@h/d", "postgresql://bob:***@h/d"),
        ("postgresql://bob@h/d", "postgresql://bob@h/d"),
        ("postgresql://bob@/d?host=/run", "postgresql://bob@/d?host=/run"),
        (
            "postgresql://h/d?user=bob&password=secret&sslmode=require",
            "postgresql://h/d?user=bob&password=***&sslmode=require",
        ),
        ("postgresql://h/d?sslpassword=secret", "postgresql://h/d?sslpassword=***"),
        ("postgresql://:secret@h/d", "postgresql://:***@h/d"),
        ("bob:se@cret@h", "bob:***@h"),
    ],
)
def test_passwords_are_masked(url: str, masked: str) -> None:
    assert mask_url(url) == masked


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://bob:secret@h:5433/d", "h:5433/d"),
        ("postgresql://bob:secret@h", "h"),
        ("postgresql://bob@/d?host=/run/pg&password=secret", "/run/pg/d"),
        ("postgresql:///d", "localhost/d"),
        ("postgresql:///d?host=a&host=b", "a,b/d"),
    ],
)
def test_a_server_is_named_by_host_and_database(url: str, name: str) -> None:
    assert server_name(normalise_url(url)) == name


def test_a_connection_has_its_name_its_limits_and_utc(database_url: str) -> None:
    engine = create_engine(f"{database_url}&options=-c%20geqo=off", application_name="coordinator " * 9)
    with engine.connect() as connection:
        row = connection.execute(
            select(
                *(
                    func.current_setting(name)
                    for name in (
                        "application_name",
                        "timezone",
                        "idle_in_transaction_session_timeout",
                        "lock_timeout",
                        "jit",
                        "geqo",
                    )
                )
            )
        ).one()
    engine.dispose()
    assert row == (("coordinator " * 9)[:63], "UTC", "15s", "10s", "off", "off")


@pytest.mark.parametrize("code", ["40P01", "40001", "08006", "57P01", "57P03", "53300", "55P03", "25P03", "25006"])
def test_errors_that_pass_by_themselves(code: str) -> None:
    assert is_passing(failure(code))


@pytest.mark.parametrize("code", ["23505", "42P01", "22P02", "42501", "57014"])
def test_errors_that_stay(code: str) -> None:
    assert not is_passing(failure(code))


@pytest.mark.parametrize(
    ("words", "passing"),
    [
        ("connection refused", True),
        ("FATAL: the database system is starting up", True),
        ("server closed the connection unexpectedly", True),
        ('FATAL: password authentication failed for user "x"', False),
        ('FATAL: database "x" does not exist', False),
    ],
)
def test_a_connection_that_fails_is_judged_by_its_words(words: str, passing: bool) -> None:
    assert is_passing(failure(None, words)) is passing


def test_what_is_no_database_error_never_passes() -> None:
    assert not is_passing(LeaseLost("x"))


def test_work_is_committed_once(engine: Engine) -> None:
    job_id = repeat(engine, plant_job)
    with engine.connect() as other:
        assert other.execute(select(job.c.id)).scalars().all() == [job_id]


def test_the_whole_transaction_is_repeated_after_a_passing_error(engine: Engine) -> None:
    pauses, calls = Pauses(), iter(range(9))

    def work(tx: Connection) -> None:
        plant_job(tx)
        if next(calls) < 3:
            raise failure("40P01")

    repeat(engine, work, wait=pauses)
    with engine.connect() as other:
        assert other.execute(select(func.count()).select_from(job)).scalar_one() == 1
    assert len(pauses) == 3
    assert pauses == sorted(pauses)


def test_a_connection_killed_within_the_transaction_is_replaced(engine: Engine) -> None:
    calls = iter(range(9))

    def work(tx: Connection) -> int:
        if next(calls) == 0:
            tx.execute(text("select pg_terminate_backend(pg_backend_pid())"))
        return tx.execute(text("select 7")).scalar_one()

    assert repeat(engine, work, wait=Pauses()) == 7


def test_the_patience_ends_with_an_error_that_names_the_server_but_no_secret(engine: Engine) -> None:
    pauses = Pauses()

    def work(tx: Connection) -> Never:
        raise failure("40P01", "deadlock detected\nDETAIL: many lines")

    with pytest.raises(ServiceUnavailable, match=r"in 6 attempts \(deadlock detected\); check that it runs") as raised:
        repeat(engine, work, wait=pauses)
    assert len(pauses) == 5
    assert raised.value.exit_code == 69


def test_a_server_that_does_not_answer_is_named_masked() -> None:
    engine = create_engine("postgresql://bob:secret@127.0.0.1:1/d?password=hidden", application_name="test")
    with pytest.raises(ServiceUnavailable, match=r"127\.0\.0\.1:1/d") as raised:
        repeat(engine, database_now, attempts=2, wait=Pauses())
    assert "secret" not in str(raised.value)
    assert "hidden" not in str(raised.value)


def test_a_server_that_refuses_us_is_not_asked_again(database_url: str) -> None:
    pauses = Pauses()
    engine = create_engine(database_url.replace("/test_", "/no_such_"), application_name="test")
    with pytest.raises(ServiceUnavailable, match="refused the connection"):
        repeat(engine, database_now, wait=pauses)
    assert pauses == []


def test_an_unknown_option_in_the_url_is_a_mistake_in_the_settings(database_url: str) -> None:
    engine = create_engine(f"{database_url}&colour=blue", application_name="test")
    with pytest.raises(ConfigError, match="colour"):
        repeat(engine, database_now, wait=Pauses())


def test_other_errors_pass_through_and_undo_the_work(engine: Engine) -> None:
    def work(tx: Connection) -> Never:
        plant_job(tx)
        raise LeaseLost("lost")

    with pytest.raises(LeaseLost):
        repeat(engine, work, wait=Pauses())
    with pytest.raises(DBAPIError):
        repeat(engine, lambda tx: tx.execute(text("select 1/0")), wait=Pauses())
    with engine.connect() as other:
        assert other.execute(select(func.count()).select_from(job)).scalar_one() == 0


def test_the_databases_clock_tells_aware_utc(engine: Engine) -> None:
    with engine.connect() as tx:
        first, second = database_now(tx), database_now(tx)
    assert first < second
    assert first.utcoffset() == timedelta(0)
    assert abs(first - datetime.now(UTC)) < timedelta(minutes=1)


def backend(engine: Engine) -> int:
    with engine.connect() as tx:
        return tx.execute(text("select pg_backend_pid()")).scalar_one()


def test_a_connection_that_died_while_it_rested_is_replaced_before_anybody_uses_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = backend(engine)
    killer = create_engine(engine.url.render_as_string(hide_password=False), application_name="killer")
    with killer.begin() as tx:
        tx.execute(text("select pg_terminate_backend(:pid, 30000)"), {"pid": first})
    killer.dispose()
    monkeypatch.setattr("backfill.store.database.REST", timedelta(0))
    assert backend(engine) != first


def test_a_connection_used_just_now_is_used_again_without_a_question(engine: Engine) -> None:
    backend(engine)
    asked = mock.Mock(wraps=engine.dialect.do_ping)
    with mock.patch.object(engine.dialect, "do_ping", asked):
        backend(engine)
    assert not asked.called


def test_a_read_by_itself_sends_its_statement_and_nothing_else(engine: Engine) -> None:
    own = create_engine(engine.url.render_as_string(hide_password=False), application_name="reader")
    last = text("select query from pg_stat_activity where application_name = 'reader'")
    for _ in range(2):
        with autocommitting(own).begin() as tx:
            tx.execute(text("select 'read'"))
        with engine.connect() as tx:
            assert tx.execute(last).scalar_one() == "select 'read'"
        with own.begin() as tx:
            assert tx.execute(text("select count(*) from job")).scalar_one() == 0
    with own.connect() as tx:
        tx.execute(
            text("insert into slot_pool (pool, slots) values ('undone', 1)")
        )  # rolled back, as no commit follows
    with engine.connect() as tx:
        assert tx.execute(text("select count(*) from slot_pool where pool = 'undone'")).scalar_one() == 0
    own.dispose()


def test_statements_that_commit_by_themselves_stand_when_a_later_one_fails(engine: Engine) -> None:
    with autocommitting(engine).begin() as tx:
        tx.execute(text("insert into slot_pool (pool, slots) values ('kept', 1)"))
        with pytest.raises(ProgrammingError):
            tx.execute(text("select nonsense"))
    with engine.begin() as tx:
        assert tx.execute(text("select slots from slot_pool where pool = 'kept'")).scalar_one() == 1
