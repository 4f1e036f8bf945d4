"""How a plan is shown: dates in groups with counts, the limits, the estimate; every task instance with `-v`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from typing import Any

from rich.text import Text

from backfill.cli.output import Column, Format, show_data, show_rows
from backfill.cli.tables import show_table
from backfill.cli.terminal import data_console, visible
from backfill.clock import duration_text, moment_text

_LOTS = {"run": "run", "done": "done", "rerun": "rerun", "left_out": "left out", "blocked": "blocked"}
_ACTIONS = {"create": "create", "take": "take", "clear": "clear", "done": "count as done", "left_out": "left out"}
_TASK_COLUMNS = tuple(
    Column(key, title)
    for key, title in (
        ("logical_date", "date"),
        ("dag_id", "dag"),
        ("task_id", "task"),
        ("map_index", "map index"),
        ("action", None),
        ("state", "state now"),
        ("why", None),
    )
)
_LIMIT_COLUMNS = (
    Column("limit"),
    Column("of"),
    Column("value", right=True),
    Column("in_use", "in use", right=True),
    Column("wanted", right=True),
    Column("binds"),
)


def show_plan(plan: Mapping[str, Any], form: Format, *, every_task_instance: bool) -> None:
    """Print a plan, which has the JSON shape of docs/cli.md, to stdout; plain lines are its task instances."""
    match form:
        case Format.JSON | Format.YAML:
            show_data(plan, form)
        case Format.PLAIN:
            show_rows(plan["task_instances"], _task_columns(plan), form)
        case Format.TABLE:
            _show_tables(plan, every_task_instance=every_task_instance)


def _show_tables(plan: Mapping[str, Any], *, every_task_instance: bool) -> None:
    console = data_console()
    console.print(Text(_headline(plan)), soft_wrap=True)
    if every_task_instance:
        shown = [key for key in ("map_index", "state", "why") if any(_told(row, key) for row in plan["task_instances"])]
        keys = {"logical_date", "dag_id", "task_id", "action", *shown}
        columns = [column for column in _task_columns(plan) if column.key in keys]
        rows = [{**row, "action": _LOTS[row["action"]]} for row in plan["task_instances"]]
        _section("Task instances", rows, columns)
    else:
        _section("Dates", list(_groups(plan)), _date_columns(plan))
        _section("Blocked", _causes(plan, "blocked"), (Column("task"), Column("number", right=True), Column("why")))
    _section("Limits", plan["limits"], _LIMIT_COLUMNS)
    for line in _closing_lines(plan):
        console.print()
        console.print(Text(line), soft_wrap=True)
    if "templates" in plan:
        _show_templates(plan)


def _task_columns(plan: Mapping[str, Any]) -> list[Column]:
    """Return the columns of task instances; that of the DAG only where there are subdags."""
    several = any(row["dag_id"] != plan["dag_id"] for row in plan["task_instances"])
    return [column for column in _TASK_COLUMNS if several or column.key != "dag_id"]


def _section(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> None:
    if rows:
        data_console().print()
        show_table(rows, columns, title)


def _headline(plan: Mapping[str, Any]) -> str:
    runs, tasks = plan["runs"], plan["tasks"]
    return (
        f"Plan of {plan['dag_id']}: {_number(runs['total'], 'date')} ({_listed(runs, _ACTIONS)}), "
        f"{_number(tasks['total'], 'task instance')} ({_listed(tasks, _LOTS)})"
    )


def _number(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _listed(counts: Mapping[str, int], words: Mapping[str, str]) -> str:
    return ", ".join(f"{counts[key]} {word}" for key, word in words.items() if counts[key]) or "none"


def _told(row: Mapping[str, Any], key: str) -> bool:
    return row[key] is not None and row[key] != -1


def _groups(plan: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row for each stretch of dates at which the same happens."""
    alike = groupby(plan["dates"], key=lambda date: (date["action"], date["why"], date["tasks"]))
    for (action, why, tasks), group in alike:
        dates = [moment_text(date["logical_date"]) for date in group]
        yield {
            **tasks,
            "dates": dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}",
            "number": len(dates),
            "happens": _ACTIONS[action],
            "why": why,
        }


def _date_columns(plan: Mapping[str, Any]) -> list[Column]:
    lots = [Column(lot, title, right=True) for lot, title in _LOTS.items() if plan["tasks"][lot]]
    why = [Column("why")] if any(date["why"] for date in plan["dates"]) else []
    return [Column("dates"), Column("number", right=True), Column("happens"), *lots, *why]


def _causes(plan: Mapping[str, Any], action: str) -> list[dict[str, Any]]:
    """Return for each task how many of its task instances have this fate, and why the first of them does."""
    found: dict[str, dict[str, Any]] = {}
    for row in plan["task_instances"]:
        if row["action"] == action:
            name = _name(plan, row)
            entry = found.setdefault(name, {"task": name, "number": 0, "why": row["why"]})
            entry["number"] += 1
    return list(found.values())


def _name(plan: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Return the id of a task, with the DAG's before it if that is a subdag."""
    own = row["dag_id"] == plan["dag_id"]
    return str(row["task_id"]) if own else f"{row['dag_id']}.{row['task_id']}"


def _closing_lines(plan: Mapping[str, Any]) -> Iterator[str]:
    yield from plan["notes"]
    if plan["tasks_not_chosen"]:
        yield f"Not chosen: {', '.join(plan['tasks_not_chosen'])}."
    estimate = plan["estimate"]
    if estimate["seconds"] == 0 and estimate["by"] is None:
        yield "Estimate: no task instance needs a worker."
    elif estimate["seconds"] is None:
        yield "Estimate: none, as no task has a history."
    else:
        time = duration_text(timedelta(seconds=estimate["seconds"]))
        without = f"; without history: {', '.join(estimate['without_history'])}" if estimate["without_history"] else ""
        yield f"Estimate: {time} or more, by {estimate['by']}{without}."


# -- template fields ----------------------------------------------------------------------------------------------------


def _show_templates(plan: Mapping[str, Any]) -> None:
    console, templates = data_console(), plan["templates"]
    console.print()
    if templates["logical_date"] is None:
        console.print("No date is to be run: there are no template fields to render.")
        return
    console.print(f"Template fields for {moment_text(templates['logical_date'])}", style="bold")
    for task in templates["tasks"]:
        index = f"[{task['map_index']}]" if task["map_index"] >= 0 else ""
        console.print(Text(f"  {visible(_name(plan, task))}{index}"), soft_wrap=True)
        for line in _field_lines(task):
            console.print(Text(f"    {line}"), soft_wrap=True)


def _field_lines(task: Mapping[str, Any]) -> Iterator[str]:
    if task["error"] is not None:
        yield f"Error: {visible(task['error'])}"
    elif task["note"] is not None:
        yield task["note"]
    elif not task["fields"]:
        yield "no template fields"
    for field, value in task["fields"].items():
        first, *others = visible(str(value)).split("\n")
        yield f"{field}: {first}"
        yield from (f"  {line}" for line in others)
