from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event, text

import backfill
from backfill import migrations
from backfill.exceptions import SchemaMismatch, UsageError
from backfill.migrations import HEAD, REVISIONS, VERSION_TABLE, Age, check, current, upgrade


def execute(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))


def pools(engine: Engine) -> list[tuple[str, int]]:
    with engine.connect() as connection:
        return [(row.pool, row.slots) for row in connection.execute(text("select pool, slots from slot_pool"))]


def test_the_list_of_versions_is_that_of_the_scripts() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == REVISIONS


def test_an_empty_database_is_older_and_the_upgrade_makes_it_current(empty: Engine) -> None:
    assert (current(empty).revision, current(empty).age) == (None, Age.OLDER)
    upgrade(empty)
    assert (current(empty).revision, current(empty).age) == (HEAD, Age.CURRENT)
    check(empty)


def test_the_default_pool_gets_the_size_that_was_asked_for_and_keeps_it(empty: Engine) -> None:
    upgrade(empty, default_pool_slots=7)
    upgrade(empty, default_pool_slots=9)
    assert pools(empty) == [("default_pool", 7)]


def test_without_a_wish_the_default_pool_has_128_slots(empty: Engine) -> None:
    upgrade(empty)
    assert pools(empty) == [("default_pool", 128)]


def test_two_upgrades_at_once_both_succeed(empty: Engine) -> None:
    start = Barrier(2)

    def run() -> None:
        engine = create_engine(empty.url)
        start.wait(timeout=30)
        upgrade(engine)
        engine.dispose()

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(run) for _ in range(2)]:
            done.result(timeout=60)
    check(empty)
    assert pools(empty) == [("default_pool", 128)]


def test_an_upgrade_waits_for_another_one_longer_than_for_a_row(
    empty: Engine, wait_until: Callable[..., object]
) -> None:
    impatient = create_engine(empty.url, connect_args={"options": "-c lock_timeout=1ms"})
    waiting = text("select exists (select from pg_locks where locktype = 'advisory' and not granted)")
    with ThreadPoolExecutor(1) as threads, empty.connect() as watcher:
        with empty.begin() as holder:
            holder.execute(migrations._TAKE_LOCK)
            done = threads.submit(upgrade, impatient)
            wait_until(lambda: watcher.execute(waiting).scalar_one(), description="the upgrade waits for the lock")
        done.result(timeout=60)
    impatient.dispose()
    check(empty)


def test_an_upgrade_that_fails_leaves_nothing_behind(empty: Engine) -> None:
    with pytest.raises(Exception, match="ck_slot_pool_slots"):
        upgrade(empty, default_pool_slots=-2)
    assert current(empty).revision is None
    upgrade(empty)
    check(empty)


def test_a_missing_schema_is_named_with_the_remedy(empty: Engine) -> None:
    with pytest.raises(SchemaMismatch, match=r"has no schema yet.*run `backfill db upgrade`"):
        check(empty)


def test_an_older_schema_is_named_with_the_remedy(empty: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade(empty)
    monkeypatch.setattr(migrations, "REVISIONS", (*REVISIONS, "later"))
    monkeypatch.setattr(migrations, "HEAD", "later")
    with pytest.raises(SchemaMismatch, match=f"the older schema {HEAD}, .* needs later: run `backfill db upgrade`"):
        check(empty)


@pytest.mark.parametrize("command", [check, upgrade])
def test_a_newer_schema_is_refused_with_the_remedy(empty: Engine, command: Callable[[Engine], None]) -> None:
    upgrade(empty)
    execute(empty, f"update {VERSION_TABLE} set version_num = '7777'")
    with pytest.raises(SchemaMismatch, match=r"the schema 7777, which is newer than .*: install a newer backfill"):
        command(empty)
    assert current(empty).revision == "7777"


def test_a_database_of_another_program_is_left_alone(empty: Engine) -> None:
    execute(empty, "create table dag_run (id int)")
    execute(empty, "create table alembic_version (version_num text)")
    execute(empty, "insert into alembic_version values ('4a5b6c')")
    with pytest.raises(SchemaMismatch, match="a table 'dag_run' that is not backfill's"):
        upgrade(empty)
    execute(empty, f"do $$ begin assert to_regclass('{VERSION_TABLE}') is null; end $$")


def test_a_user_without_the_right_to_make_tables_is_told_so(restricted: Engine) -> None:
    with pytest.raises(UsageError, match="may not make tables in"):
        upgrade(restricted)


def test_an_upgrade_with_nothing_to_do_costs_two_statements(empty: Engine) -> None:
    upgrade(empty)
    statements: list[str] = []
    event.listen(empty, "before_cursor_execute", lambda *args: statements.append(args[2]))
    upgrade(empty)
    assert len(statements) <= 2


def test_an_upgrade_with_nothing_to_do_does_not_load_alembic(empty: Engine) -> None:
    upgrade(empty)
    url = empty.url.render_as_string(hide_password=False)
    program = (
        "import sys, sqlalchemy, backfill.migrations as m\n"
        "m.upgrade(sqlalchemy.create_engine(sys.argv[1]))\n"
        "m.check(sqlalchemy.create_engine(sys.argv[1]))\n"
        "sys.exit('alembic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, url], check=True, timeout=60)


def test_the_scripts_come_along_wherever_the_package_is_installed(empty: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "site 100%packages"
    shutil.copytree(Path(backfill.__file__).parent, folder / "backfill", ignore=shutil.ignore_patterns("__pycache__"))
    url = empty.url.render_as_string(hide_password=False)
    program = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "import sqlalchemy, backfill.migrations as m\n"
        "assert m.__file__.startswith(sys.argv[2]), m.__file__\n"
        "m.upgrade(sqlalchemy.create_engine(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", program, url, str(folder)], check=True, timeout=60, cwd=tmp_path)
    check(empty)
