"""`backfill config`: the settings that hold here."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click

from backfill.cli.command import Group
from backfill.cli.output import Column, Format, output_option, show_rows
from backfill.config import SECRETS, Settings, load_settings
from backfill.store.database import mask_url

_COLUMNS = (Column("key"), Column("value"), Column("origin"))
#: Of secrets that are URLs all but the password is shown.
_URLS = frozenset({"database.url", "celery.broker_url"})


@click.group(cls=Group)
def config() -> None:
    """Show the settings and where each comes from."""


@config.command()
@output_option
def show(form: Format) -> None:
    """Show every setting, its value, and where the value comes from; secrets are masked."""
    show_rows(settings_rows(load_settings()), _COLUMNS, form)


def settings_rows(settings: Settings) -> list[dict[str, object]]:
    """Return key, value and origin of every setting; nothing secret is in them."""
    return [
        {"key": name, "value": _shown(name, value), "origin": settings.origins.get(name, "default")}
        for name, value in settings.items()
    ]


def _shown(name: str, value: object) -> object:
    match value:
        case timedelta():
            return value.total_seconds()
        case Path():
            return str(value)
        case str() if value and name in _URLS:
            return mask_url(value)
        case str() if value and name in SECRETS:
            return "***"
        case _:
            return value
