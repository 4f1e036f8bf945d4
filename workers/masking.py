"""Secrets of the settings never reach a task's log."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qs, quote, unquote, urlsplit

from backfill.config import SECRETS, Settings

#: Secrets shorter than this are not masked: they would blot out ordinary words without protecting anything.
SHORTEST_SECRET = 4
MASK = "***"


class Masker:
    """Replaces every secret that it knows by `***`, also where it stands quoted in a URL."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in (secret, quote(secret, safe=""), unquote(secret))}
        longest_first = sorted((form for form in forms if len(form) >= SHORTEST_SECRET), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, text: str) -> str:
        """Return `text` without secrets."""
        return text if self._pattern is None else self._pattern.sub(MASK, text)


def secrets_of(settings: Settings) -> set[str]:
    """Return the values of `settings` that no log may show: keys, passwords, and passwords within URLs."""
    values = {str(value) for name, value in settings.items() if name in SECRETS and value}
    urls = {value for value in values if "://" in value}
    return (values - urls).union(*map(_passwords, urls)) if urls else values


def _passwords(url: str) -> set[str]:
    try:
        parts = urlsplit(url)
        inline = parts.password
    except ValueError:
        return {url}
    return {secret for secret in (inline, *parse_qs(parts.query).get("password", ())) if secret}
