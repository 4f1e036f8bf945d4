"""Secrets that a worker knows never reach a task's log, nor the error that is kept with its row."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import parse_qs, quote, unquote, urlsplit

from backfill.config import SECRETS, Settings

#: Secrets shorter than this are not masked: they would blot out ordinary words without protecting anything.
SHORTEST_SECRET = 4
#: Of a secret of several lines, a shorter line is not masked by itself: it may be a bracket and a few spaces.
SHORTEST_LINE = 8
MASK = "***"


class Masker:
    """Replaces every secret that it knows by `***`, also where it stands quoted in a URL, in JSON or in the `repr` of a value."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._forms: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None
        self.learn(secrets)

    def __call__(self, text: str) -> str:
        """Return `text` without secrets."""
        return text if self._pattern is None else self._pattern.sub(MASK, text)

    def learn(self, secrets: Iterable[str]) -> None:
        """Replace these as well from now on."""
        forms = {form for secret in secrets for form in _forms(secret) if len(form) >= SHORTEST_SECRET}
        if forms <= self._forms:
            return
        self._forms |= forms
        longest_first = sorted(self._forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def copy(self) -> Masker:
        """Return one that knows the same; what it learns stays its own."""
        other = Masker(())
        other._forms, other._pattern = self._forms, self._pattern
        return other


def _forms(secret: str) -> Iterator[str]:
    """Yield how `secret` may be written; the lines of a key alone as well, for what is printed is masked line by line."""
    plain = unquote(secret)
    with contextlib.suppress(UnicodeEncodeError):  # half a character of an environment that is no UTF-8: no URL has it
        yield from (quote(secret, safe=""), quote(plain, safe=""))
    for form in (secret, plain):
        yield from (form, repr(form)[1:-1], json.dumps(form)[1:-1], json.dumps(form, ensure_ascii=False)[1:-1])
    if "\n" in secret:
        yield from (line.strip() for line in secret.splitlines() if len(line.strip()) >= SHORTEST_LINE)


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
