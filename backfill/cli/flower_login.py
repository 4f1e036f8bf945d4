"""Where Flower is, and how to get in."""

from __future__ import annotations

from backfill.config import Settings, generated_secret

#: File in `core.home` that keeps the password made at first use.
PASSWORD_FILE = "flower_password"  # noqa: S105  # a file's name


def password(settings: Settings) -> str:
    """Return Flower's password, made at first use where none is configured."""
    return settings.flower.password or generated_secret(settings.core.home / PASSWORD_FILE)


def invitation(settings: Settings) -> str:
    """Return where Flower is, who may log in, and where the password stands."""
    keeper = "flower.password of the settings" if settings.flower.password else settings.core.home / PASSWORD_FILE
    return f"Flower: http://{settings.flower.address}:{settings.flower.port} (user {settings.flower.user}, password: see {keeper})"
