"""The settings of this process as the environment of one that it starts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from backfill.config import Settings

_PREFIX = "BACKFILL__"


def settings_environment(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` in which `load_settings` finds exactly `settings`, whatever file or folder it looks at.

    Variables that set another value, also those that name a file with a secret, are left out.
    """
    others = {name: value for name, value in environ.items() if not name.startswith(_PREFIX)}
    return others | {_variable(name): _text(value) for name, value in settings.items()}


def _variable(name: str) -> str:
    return _PREFIX + name.replace(".", "__").upper()


def _text(value: object) -> str:
    return str(value.total_seconds()) if isinstance(value, timedelta) else str(value)
