"""`-o`: the same data as a table for people, as JSON or YAML for programs, or as plain lines for `cut` and `awk`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, assert_never

import click

from backfill.cli.parameters import WordParameter
from backfill.clock import as_utc


class Format(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    PLAIN = "plain"


#: Forms in which several records are one list.
_NESTED = frozenset({Format.JSON, Format.YAML})

output_option = click.option(
    "-o",
    "--output",
    "form",
    type=WordParameter(Format),
    default=Format.TABLE,
    help="Form of what is printed to stdout; plain is one line per row, values separated by tabs.  [default: table]",
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: the key of its values, and its heading (the key, unless given)."""

    key: str
    title: str | None = None
    #: Numbers stand to the right.
    right: bool = False
    #: Its values stay on one line; where there is too little room the others fold.
    whole: bool = False


def show_rows(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], form: Format, *, empty: str = "Nothing to show."
) -> None:
    """Print `rows` to stdout. JSON and YAML hold every key, the other forms the given columns; `empty` is said on stderr."""
    if not rows and form is Format.TABLE:
        click.echo(empty, err=True)
        return
    match form:
        case Format.JSON | Format.YAML:
            show_data(list(rows), form)
        case Format.PLAIN:
            _show_plain([c.key for c in columns], ([row.get(c.key) for c in columns] for row in rows))
        case Format.TABLE:
            from backfill.cli.tables import show_table  # noqa: PLC0415  # start-up time: only people need rich

            show_table(rows, columns)
        case unknown:
            assert_never(unknown)


def show_record(record: Mapping[str, Any], form: Format, as_table: Callable[[], None]) -> None:
    """Print one record to stdout: nested as it is for programs, `as_table` for people, flat as `key value` in plain lines."""
    match form:
        case Format.JSON | Format.YAML:
            show_data(record, form)
        case Format.PLAIN:
            _show_plain(None, _flat(record))
        case Format.TABLE:
            as_table()
        case unknown:
            assert_never(unknown)


#: Prints a record: its data, and how it is shown to people.
Show = Callable[[Mapping[str, Any], Callable[[], None]], None]


def showing_now(form: Format) -> Show:
    """Return what prints one record at once, as `show_record` does."""
    return lambda record, as_table: show_record(record, form, as_table)


@contextmanager
def showing_each(form: Format) -> Iterator[Show]:
    """Yield what prints records as they come, as `show_record` does; JSON and YAML are one list at the end, however that comes."""
    kept: list[Mapping[str, Any]] = []

    def show(record: Mapping[str, Any], as_table: Callable[[], None]) -> None:
        if form in _NESTED:
            kept.append(record)
        else:
            show_record(record, form, as_table)

    try:
        yield show
    finally:
        if form in _NESTED:
            with unread_is_no_error():
                show_data(kept, form)


@contextmanager
def unread_is_no_error() -> Iterator[None]:
    """Let a command go on that prints within the context, also where the reader of stdout has left."""
    try:
        yield
    except BrokenPipeError:
        forget_stdout()


def show_data(data: object, form: Format) -> None:
    """Print `data` as JSON, or as YAML if that is the form."""
    text = json.dumps(data, indent=2, default=_as_json)
    if form is Format.YAML:
        import yaml  # noqa: PLC0415  # start-up time: few ask for it

        text = yaml.safe_dump(json.loads(text), sort_keys=False, allow_unicode=True).rstrip()
    click.echo(text)


def as_text(value: object) -> str:
    """Return one value for a line of plain output or a cell of a table without a form of its own."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.3f}".rstrip("0").rstrip(".")
        case list() | tuple() | set() | frozenset():
            return ", ".join(map(as_text, value))
        case dict():
            return json.dumps(value, default=_as_json)
        case _:
            converted = _as_json(value) if isinstance(value, (datetime, timedelta, Path)) else value
            return str(converted)


def forget_stdout() -> None:
    """Let stdout lead nowhere: its reader has left, which is no error, and Python flushes it once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _as_json(value: object) -> object:
    match value:
        case datetime():
            return as_utc(value).isoformat()
        case timedelta():
            return value.total_seconds()
        case set() | frozenset():
            return sorted(value)
        case Path():
            return str(value)
        case _:
            raise TypeError(f"{type(value).__name__} has no JSON form")


def _show_plain(keys: Sequence[str] | None, rows: Iterable[Iterable[object]]) -> None:
    lines = ["\t".join(" ".join(as_text(value).split()) for value in row) for row in rows]
    if keys is not None:
        lines.insert(0, "\t".join(keys))
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, object]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
