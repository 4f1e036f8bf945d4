"""What an operator types, read into values; what cannot be read is named in one sentence with what to write instead."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from backfill.clock import as_utc
from backfill.dag.matching import compiled
from backfill.exceptions import UsageError


class DateParameter(click.ParamType[datetime]):
    """A run date, `2024-01-31` or `2024-01-31T06:00` with or without an offset, as an aware date in UTC (S2.1)."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the date that `value` says."""
        try:
            date = as_utc(value if isinstance(value, datetime) else datetime.fromisoformat(value.strip()))
            _refuse_if_extreme(date)
        except _ExtremeError:
            self.fail(
                f"{value!r} lies outside of the years {_YEARS[0]} to {_YEARS[-1]}; name another date.", param, ctx
            )
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no date; write it as 2024-01-31, 2024-01-31T06:00 or 2024-01-31T06:00+02:00.", param, ctx
            )
        return date


#: Years whose dates have others before and after them, in every time zone and of every timetable.
_YEARS = range(3, 9998)


class _ExtremeError(Exception):
    """Raised for a date at the ends of the calendar."""


def _refuse_if_extreme(date: datetime) -> None:
    if date.year not in _YEARS:
        raise _ExtremeError


class NameParameter(click.ParamType[str]):
    """A name that the database can keep: any text that is one."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return `value` as it is."""
        try:
            _storable(str(value))
        except ValueError:
            self.fail(f"{_shortened(str(value))} is no text in UTF-8; type it again.", param, ctx)
        return str(value)


class ConfParameter(click.ParamType[dict[str, Any]]):
    """A JSON object, the conf of runs."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """Return the object that `value` writes out."""
        try:
            conf = json.loads(value, parse_constant=_no_json, parse_float=_finite)
            _storable(conf)
        except (ValueError, RecursionError) as error:
            why = "it is nested too deeply" if isinstance(error, RecursionError) else error
            self.fail(
                f'{_shortened(value)} is no JSON ({why}); write an object such as \'{{"region": "eu"}}\'.', param, ctx
            )
        if not isinstance(conf, dict):
            self.fail(f'{_shortened(value)} is no JSON object; write one such as \'{{"region": "eu"}}\'.', param, ctx)
        return conf


def _no_json(constant: str) -> None:
    """Refuse what Python's reader takes and PostgreSQL does not."""
    raise ValueError(f"{constant} is no JSON value")


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is too large")
    return value


def _storable(value: object) -> None:
    """Refuse texts that JSON can spell and the database cannot keep: half a surrogate pair, and the character NUL."""
    match value:
        case str() if "\0" in value:
            raise ValueError("a text in it has the character NUL")
        case str() if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError("a text in it is no Unicode")
        case dict():
            for name, member in value.items():
                _storable(name)
                _storable(member)
        case list():
            for member in value:
                _storable(member)
        case _:
            pass


#: Characters of a value that an error repeats.
_SHOWN = 200


def _shortened(value: str) -> str:
    return repr(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…")


class FailuresParameter(click.ParamType[str]):
    """How many task instances may fail: a number, or a percentage of those planned (S9.2)."""

    name = "number or percentage"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value in the form `5` or `5%`."""
        match = re.fullmatch(r"\s*0*([1-9][0-9]{0,8})\s*(%?)\s*", value)
        if match is None or (match[2] and int(match[1]) > 100):  # noqa: PLR2004  # 100 % is all of them
            self.fail(
                f"{_shortened(value)} is no number from 1 and no percentage from 1% to 100%; write 5 or 5%.", param, ctx
            )
        return match[1] + match[2]


class RegexParameter(click.ParamType[str]):
    """A regular expression that compiles."""

    name = "regex"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return `value` as it is."""
        try:
            compiled(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)
        return str(value)


#: Digits of a number that is certainly none of a job.
_LONGEST_JOB = 20


class WholeNumber(click.IntRange):
    """A whole number of a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        try:
            return int(super().convert(value, param, ctx))
        except click.BadParameter:
            span = f"from {self.min}" + ("" if self.max is None else f" to {self.max}")
            self.fail(f"{_shortened(str(value))} is no whole number {span}; write one that is.", param, ctx)


class SecondsParameter(click.FloatRange):
    """Seconds above 0, at most a day."""

    def __init__(self) -> None:
        super().__init__(min=0, max=86400, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number of seconds."""
        try:
            seconds = float(super().convert(value, param, ctx))
        except click.BadParameter:
            seconds = math.nan
        if not math.isfinite(seconds):  # what is not a number lies outside of no range
            self.fail(
                f"{_shortened(str(value))} is no number of seconds above 0 and up to 86400; write one such as 0.5.",
                param,
                ctx,
            )
        return seconds


class PoolParameter(click.ParamType[str]):
    """The name of a pool; an empty one, as of a shell's variable that is not set, would mean every task's own."""

    name = "pool"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return `value` as it is."""
        if not str(value).strip():
            self.fail(f"{value!r} is no name of a pool; name one that `backfill pools list` shows.", param, ctx)
        return NAME.convert(value, param, ctx)


class JobParameter(click.ParamType[int]):
    """The number of a job."""

    name = "job"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        text = str(value)
        if not (text.isascii() and text.isdecimal() and len(text) < _LONGEST_JOB and 0 < int(text) < 2**63):
            self.fail(f"{_shortened(text)} is no number of a job; `backfill list` shows the jobs.", param, ctx)
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
NAME = NameParameter()
CONF = ConfParameter()
FAILURES = FailuresParameter()
REGEX = RegexParameter()
#: A count that makes no sense below one.
COUNT = WholeNumber(min=1, max=1_000_000_000)
#: Worker processes; with 0 of them no worker is started.
PROCESSES = WholeNumber(min=0)
PORT = WholeNumber(min=1, max=65535)
#: Of a page that need not be; with 0 there is none.
METRICS_PORT = WholeNumber(min=0, max=65535)
SECONDS = SecondsParameter()
POOL = PoolParameter()
JOB = JobParameter()
#: The index of a mapped task instance.
MAP_INDEX = WholeNumber(min=0)
