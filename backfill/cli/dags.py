"""`backfill dags`: what is in the DAGs folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from backfill.cli.command import Group
from backfill.cli.completion import complete_target
from backfill.cli.output import Column, Format, output_option, show_record, show_rows
from backfill.cli.target import find_target, subdir_option
from backfill.config import load_settings
from backfill.dag import DAG
from backfill.dag.loader import LoadedDag, load_folder

_LIST_COLUMNS = (
    Column("dag_id", "dag"),
    Column("schedule"),
    Column("tasks", right=True),
    Column("start_date", "start"),
    Column("tags"),
    Column("file"),
)
_TASK_COLUMNS = (
    Column("task_id", "task"),
    Column("operator"),
    Column("upstream", "runs after"),
    Column("trigger_rule", "trigger rule"),
    Column("retries", right=True),
    Column("pool"),
    Column("depends_on_past", "depends on past"),
)


@click.group(cls=Group)
def dags() -> None:
    """List DAGs, or show one."""


@dags.command("list")
@subdir_option
@output_option
def list_dags(subdir: Path | None, form: Format) -> None:
    """List the DAGs of the DAGs folder; files that cannot be loaded are named on stderr."""
    folder = subdir or load_settings().core.dags_folder
    contents = load_folder(folder)
    for error in contents.errors:
        click.echo(f"Warning: {error}", err=True)
    rows = [_row(loaded) for _, loaded in sorted(contents.dags.items())]
    show_rows(rows, _LIST_COLUMNS, form, empty=f"There is no DAG in {folder}.")


@dags.command()
@click.argument("target", metavar="TARGET", shell_complete=complete_target)
@subdir_option
@output_option
def show(target: str, subdir: Path | None, form: Format) -> None:
    """Show one DAG: its schedule, its limits, and its tasks in the order in which they can run."""
    loaded = find_target(target, subdir, load_settings())
    record = _row(loaded) | _limits(loaded.dag) | {"tasks": _tasks(loaded.dag)}
    show_record(record, form, as_table=lambda: _show_tables(record))


def _row(loaded: LoadedDag) -> dict[str, Any]:
    dag = loaded.dag
    return {
        "dag_id": dag.dag_id,
        "schedule": dag.timetable.summary,
        "start_date": dag.start_date,
        "end_date": dag.end_date,
        "tasks": len(dag.task_dict),
        "tags": sorted(dag.tags),
        "file": str(loaded.file),
    }


def _limits(dag: DAG) -> dict[str, Any]:
    return {
        "max_active_runs": dag.max_active_runs,
        "max_active_tasks": dag.max_active_tasks,
        "dagrun_timeout": dag.dagrun_timeout,
        "fail_stop": dag.fail_stop,
    }


def _tasks(dag: DAG) -> list[dict[str, Any]]:
    return [
        {
            "task_id": task.task_id,
            "operator": task.operator_name,
            "upstream": sorted(task.upstream_task_ids),
            "downstream": sorted(task.downstream_task_ids),
            "trigger_rule": str(task.trigger_rule),
            "retries": task.retries,
            "pool": task.pool,
            "depends_on_past": task.depends_on_past,
            "mapped": task.is_mapped,
        }
        for task in (dag.task_dict[task_id] for task_id in dag.topological_order())
    ]


def _show_tables(record: dict[str, Any]) -> None:
    about = [{"key": key, "value": value} for key, value in record.items() if key != "tasks"]
    show_rows(about, (Column("key", ""), Column("value", "")), Format.TABLE)
    show_rows(record["tasks"], _TASK_COLUMNS, Format.TABLE, empty="It has no tasks.")
