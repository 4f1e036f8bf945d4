"""What an operator types, read into values; what cannot be read is named in one sentence with what to write instead."""

from __future__ import annotations

import json
import re
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from backfill.clock import as_utc


class DateParameter(click.ParamType[datetime]):
    """A run date, `2024-01-31` or `2024-01-31T06:00` with or without an offset, as an aware date in UTC (S2.1)."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the date that `value` says."""
        try:
            return as_utc(value if isinstance(value, datetime) else datetime.fromisoformat(value.strip()))
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no date; write it as 2024-01-31, 2024-01-31T06:00 or 2024-01-31T06:00+02:00.", param, ctx
            )


class ConfParameter(click.ParamType[dict[str, Any]]):
    """A JSON object, the conf of runs."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """Return the object that `value` writes out."""
        try:
            conf = json.loads(value, parse_constant=_no_json)
        except ValueError as error:
            self.fail(f'{value!r} is no JSON ({error}); write an object such as \'{{"region": "eu"}}\'.', param, ctx)
        if not isinstance(conf, dict):
            self.fail(f'{value!r} is no JSON object; write one such as \'{{"region": "eu"}}\'.', param, ctx)
        return conf


def _no_json(constant: str) -> None:
    """Refuse what Python's reader takes and PostgreSQL does not."""
    raise ValueError(f"{constant} is no JSON value")


class FailuresParameter(click.ParamType[str]):
    """How many task instances may fail: a number, or a percentage of those planned (S9.2)."""

    name = "number or percentage"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value in the form `5` or `5%`."""
        match = re.fullmatch(r"\s*0*([1-9][0-9]*)\s*(%?)\s*", value)
        if match is None or (match[2] and int(match[1]) > 100):  # noqa: PLR2004  # 100 % is all of them
            self.fail(f"{value!r} is no number from 1 and no percentage from 1% to 100%; write 5 or 5%.", param, ctx)
        return match[1] + match[2]


class RegexParameter(click.ParamType[str]):
    """A regular expression that compiles."""

    name = "regex"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return `value` as it is."""
        try:
            re.compile(value)
        except re.error as error:
            self.fail(
                f"{value!r} is no regular expression: {error}; correct it, or quote it for the shell.", param, ctx
            )
        return str(value)


class JobParameter(click.ParamType[int]):
    """The number of a job."""

    name = "job"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        text = str(value)
        if not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**63):
            self.fail(f"{text!r} is no number of a job; `backfill list` shows the jobs.", param, ctx)
        return int(text)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002  # click's signature
        """Offer the newest jobs."""
        from backfill.cli.completion import complete_job  # noqa: PLC0415  # only a shell that completes needs it

        return complete_job(incomplete)


W = TypeVar("W", bound=StrEnum)


class WordParameter(click.Choice[W]):
    """One of the words of an enum, as they are written everywhere else."""

    def normalize_choice(self, choice: object, ctx: click.Context | None) -> str:
        """Return the word by which `choice` is known; click would take the member's name in Python."""
        return choice.value if isinstance(choice, StrEnum) else super().normalize_choice(choice, ctx)


DATE = DateParameter()
CONF = ConfParameter()
FAILURES = FailuresParameter()
REGEX = RegexParameter()
#: A count that makes no sense below one.
COUNT = click.IntRange(min=1)
JOB = JobParameter()
#: The index of a mapped task instance.
MAP_INDEX = click.IntRange(min=0)
