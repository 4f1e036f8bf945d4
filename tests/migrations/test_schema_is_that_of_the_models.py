from __future__ import annotations

from collections.abc import Callable

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

from backfill.migrations import VERSION_TABLE, upgrade
from backfill.models import Base

#: What PostgreSQL itself knows of each table: everything that a schema of ours can contain.
CATALOG = {
    "columns": """
        select c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
               a.attgenerated, a.attcollation, a.attstorage, pg_get_expr(d.adbin, d.adrelid)
        from pg_attribute a
        join pg_class c on c.oid = a.attrelid and c.relkind = 'r' and c.relnamespace = 'public'::regnamespace
        left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where a.attnum > 0 and not a.attisdropped""",
    "constraints": """
        select conrelid::regclass::text, conname, contype, convalidated, pg_get_constraintdef(oid)
        from pg_constraint where connamespace = 'public'::regnamespace""",
    "indexes": """
        select i.indrelid::regclass::text, i.indisunique, i.indisprimary, i.indisvalid, pg_get_indexdef(i.indexrelid)
        from pg_index i join pg_class c on c.oid = i.indexrelid
        where c.relnamespace = 'public'::regnamespace""",
    "tables": """
        select relname, relkind, relpersistence, reloptions from pg_class
        where relnamespace = 'public'::regnamespace and relkind <> 'i'""",
    "triggers": "select tgrelid::regclass::text, tgname from pg_trigger where not tgisinternal",
    "functions": "select proname from pg_proc where pronamespace = 'public'::regnamespace",
    "types": "select typname from pg_type where typnamespace = 'public'::regnamespace and typtype in ('d', 'e', 'r')",
}


def catalog(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        rows = [(name, *row) for name, query in CATALOG.items() for row in connection.execute(text(query))]
    return {str(row) for row in rows if VERSION_TABLE not in str(row)}


def test_upgrading_makes_what_create_all_makes(new_database: Callable[[], Engine]) -> None:
    created, upgraded = new_database(), new_database()
    Base.metadata.create_all(created)
    upgrade(upgraded)
    assert catalog(upgraded) ^ catalog(created) == set()
    for part in ("columns", "constraints", "indexes", "tables"):
        assert any(row.startswith(f"('{part}'") for row in catalog(created)), part


def test_autogenerate_finds_nothing_to_add(empty: Engine) -> None:
    upgrade(empty)
    with empty.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True, "version_table": VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
