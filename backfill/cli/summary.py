"""What is said of a job at its end, and by `backfill status`: counts, errors, and what would help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from rich.table import Table
from rich.text import Text

from backfill.cli.output import Column
from backfill.cli.progress import first_line, run_label
from backfill.cli.tables import STATE_STYLES, show_table
from backfill.cli.terminal import data_console, rate_text
from backfill.clock import duration_text, moment_text

#: Rows shown of each table of errors; `backfill tasks` and JSON have them all.
SHOWN_ERRORS = 50

#: Kinds of errors, causes before consequences (S9.7), and the heading of each table.
_KINDS = {
    "failed": "Failed",
    "run_timed_out": "Runs that timed out",
    "deadlocked": "Deadlocked: these can never run",
    "upstream_failed": "Not run because of that",
}
_RUN_STATES = ("success", "failed", "running")
_TASK_STATES = ("success", "skipped", "failed", "upstream_failed", "running", "waiting", "deadlocked")


def show_summary(report: Mapping[str, Any]) -> None:
    """Print `report`, which has the JSON shape of interface.md, section 3, to stdout for people."""
    console = data_console()
    console.print(_headline(report))
    console.print(_counts(report))
    for kind, heading in _KINDS.items():
        _show_errors([error for error in report["errors"] if error["kind"] == kind], heading)
    for line in _closing_lines(report):
        console.print()
        console.print(Text(line), soft_wrap=True)


def _headline(report: Mapping[str, Any]) -> Text:
    state = str(report["state"])
    line = Text.assemble(
        (f"Job {report['job_id']}", "bold"), f" of {report['dag_id']}: ", (state, STATE_STYLES.get(state, ""))
    )
    start, end = _moment(report["start_date"]), _moment(report["end_date"])
    if start and end:
        line.append(f" after {duration_text(end - start)}")
    elif start:
        line.append(f", since {moment_text(start)}")
    return line


def _counts(report: Mapping[str, Any]) -> Table:
    grid = Table.grid(padding=(0, 2))
    runs, tasks = report["runs"], report["tasks"]
    grid.add_row("  runs", f"{runs.get('finished', 0)} of {runs.get('total', 0)} finished", _states(runs, _RUN_STATES))
    done = tasks.get("total", 0) - tasks.get("waiting", 0) - tasks.get("running", 0) - tasks.get("deadlocked", 0)
    grid.add_row("  task instances", f"{done} of {tasks.get('total', 0)} finished", _states(tasks, _TASK_STATES))
    if report.get("rate"):
        grid.add_row("  rate", rate_text(report["rate"]), _time_left(report.get("eta_seconds")))
    return grid


def _states(counts: Mapping[str, int], names: Sequence[str]) -> Text:
    parts = [Text(f"{counts[name]} {name}", STATE_STYLES.get(name, "")) for name in names if counts.get(name)]
    return Text(", ").join(parts)


def _time_left(seconds: float | None) -> str:
    return "" if seconds is None else f"{duration_text(timedelta(seconds=seconds))} left"


def _show_errors(errors: Sequence[Mapping[str, Any]], heading: str) -> None:
    if not errors:
        return
    columns = [Column("task_id", "task"), Column("date"), Column("try_number", "try", right=True), Column("error")]
    if any(error["map_index"] >= 0 for error in errors):
        columns.insert(1, Column("map_index", "map index", right=True))
    if len({error["dag_id"] for error in errors}) > 1:
        columns.insert(0, Column("dag_id", "dag"))
    rows = [_error_row(error) for error in errors[:SHOWN_ERRORS]]
    columns = [column for column in columns if any(row[column.key] not in {None, ""} for row in rows)]
    data_console().print()
    show_table(rows, columns, f"{heading} ({len(errors)})")
    if (more := len(errors) - SHOWN_ERRORS) > 0:
        data_console().print(Text(f"  and {more} more; `backfill tasks` lists them all"), soft_wrap=True)


def _error_row(error: Mapping[str, Any]) -> dict[str, Any]:
    date = _moment(error.get("logical_date"))
    return {
        **error,
        "date": date or run_label(error["run_id"]),
        "try_number": error["try_number"] or None,
        "map_index": error["map_index"] if error["map_index"] >= 0 else None,
        "error": first_line(error.get("error") or ""),
    }


def _closing_lines(report: Mapping[str, Any]) -> list[str]:
    lines = list(report.get("notes") or ())
    if not_started := report.get("not_started"):
        lines.append(f"Not started: {_dates(not_started)}.")
    if report.get("hint"):
        lines.append(f"Hint: {report['hint']}")
    return lines


def _dates(dates: Sequence[str]) -> str:
    first, last = (moment_text(datetime.fromisoformat(dates[place])) for place in (0, -1))
    return first if len(dates) == 1 else f"{len(dates)} dates, {first} to {last}"


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
