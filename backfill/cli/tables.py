"""Tables for people, on stdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from rich import box
from rich.table import Table
from rich.text import Text

from backfill.cli.output import Column, as_text
from backfill.cli.terminal import data_console, visible
from backfill.clock import as_utc, moment_text

#: Colours of state words; the rest keep the terminal's own.
STATE_STYLES = {
    "success": "green",
    "failed": "bold red",
    "upstream_failed": "dark_orange",
    "deadlocked": "bold magenta",
    "run_timed_out": "bold red",
    "running": "cyan",
    "queued": "bright_black",
    "paused": "yellow",
    "cancelled": "yellow",
    "skipped": "bright_magenta",
    "up_for_retry": "yellow",
    "ok": "green",
    "warning": "yellow",
}


def cell(value: object) -> Text:
    """Return `value` as a table's cell; a state word gets its colour."""
    if isinstance(value, datetime):
        return Text(moment_text(as_utc(value)))
    text = visible(as_text(value))
    return Text(text, style=STATE_STYLES.get(text, ""))


def show_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], title: str | None = None) -> None:
    """Print `rows` to stdout, of each the values of `columns`; long texts fold, nothing is cut."""
    console = data_console()
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.right else "left"
        table.add_column(column.title or column.key, justify=justify, overflow="fold", no_wrap=column.whole)
    for row in rows:
        table.add_row(*(cell(row.get(column.key)) for column in columns))
    if title:
        console.print(title, style="bold", soft_wrap=True)
    console.print(table)
