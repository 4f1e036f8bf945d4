"""`backfill db`: the schema of the database."""

from __future__ import annotations

import click

from backfill import migrations
from backfill.bootstrap import open_runtime
from backfill.cli.command import Group
from backfill.config import load_settings


@click.group(cls=Group)
def db() -> None:
    """Upgrade or check the database schema."""


@db.command()
def upgrade() -> None:
    """Bring the schema up to date; two at once both succeed."""
    settings = load_settings()
    with open_runtime(settings, broker=False, check_schema=False) as runtime:
        migrations.upgrade(runtime.engine, default_pool_slots=settings.core.default_pool_slots)
        version = migrations.current(runtime.engine)
    click.echo(f"The database {version.database!r} has the schema {version.revision}, which is up to date.", err=True)


@db.command()
def check() -> None:
    """Check that the schema is the one this version works with; exit code 2 if not."""
    with open_runtime(load_settings(), broker=False, check_schema=False) as runtime:
        migrations.check(runtime.engine)
        version = migrations.current(runtime.engine)
    click.echo(f"The database {version.database!r} has the schema {version.revision}, which is up to date.", err=True)
