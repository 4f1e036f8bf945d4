"""`backfill clear`: task instances of a range go back to the initial state (S3.26)."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from backfill.bootstrap import open_runtime
from backfill.cli.command import Command
from backfill.cli.completion import complete_target
from backfill.cli.flags import date_options, given_range
from backfill.cli.output import Format, output_option, show_record
from backfill.cli.parameters import REGEX
from backfill.cli.prompt import confirm, yes_option
from backfill.cli.target import find_target, subdir_option
from backfill.clock import moment_text
from backfill.config import load_settings
from backfill.jobs.clear import ClearCount, ClearScope, clear as clear_in, clear_scope, count_clearable
from backfill.store.database import repeat


@click.command(cls=Command)
@click.argument("target", metavar="TARGET", shell_complete=complete_target)
@date_options
@click.option("-t", "--task-regex", type=REGEX, help="Only tasks whose id matches.")
@click.option("-u", "--upstream", is_flag=True, help="Also all tasks upstream of those that match.")
@click.option("-d", "--downstream", is_flag=True, help="Also all tasks downstream of those that match.")
@click.option("-f", "--only-failed", is_flag=True, help="Only what is failed or upstream_failed.")
@yes_option
@subdir_option
@output_option
def clear(
    *,
    target: str,
    start_date: datetime | None,
    end_date: datetime | None,
    yes: bool,
    subdir: Path | None,
    form: Format,
    **which: Any,
) -> None:
    """Put task instances back to the initial state.

    In runs of any type from -s to -e, both included, after naming their number and asking. With a task go its setups and teardowns.
    Subdags go with their tasks, and with what is cleared of a subdag the task that stands for it, and all downstream of that.
    They have all their retries again and keep the history of earlier tries. What runs is left alone. Finished runs become queued:
    an active job that had finished them takes them again, else the next `backfill run` over their dates does.
    """
    start, end = given_range(start_date, end_date)
    settings = load_settings()
    scope = clear_scope(find_target(target, subdir, settings).dag, start, end, **which)
    timeout = settings.task.heartbeat_timeout
    with open_runtime(settings, broker=False) as runtime:
        done = repeat(runtime.engine, lambda tx: count_clearable(tx, scope, timeout))
        if done.task_instances:
            confirm(clear_question(scope, done), yes=yes)
            done = repeat(runtime.engine, lambda tx: clear_in(tx, scope, timeout))
    record = {
        "dag_id": scope.dag.dag_id,
        "task_instances": done.task_instances,
        "runs": done.runs,
        "left_running": done.left_running,
        "tasks": {name: done.tasks[name] for name in _in_order(scope, done)},
    }
    show_record(record, form, as_table=lambda: click.echo(_told(scope, done)))


def _in_order(scope: ClearScope, done: ClearCount) -> list[str]:
    """Return what was cleared: the tasks of the DAG in topological order, then those of its subdags and of DAGs above it."""
    own = [task_id for task_id in scope.dag.topological_order() if done.tasks[task_id]]
    return own + sorted(name for name in done.tasks if name not in own and done.tasks[name])


def clear_question(scope: ClearScope, count: ClearCount) -> str:
    """Return what is said before the question whether that shall be done."""
    return f"This clears {count} of DAG {scope.dag.dag_id!r}{_range(scope)}.{_left(count)}"


def _told(scope: ClearScope, done: ClearCount) -> str:
    if not done.task_instances:
        return f"There is nothing to clear in DAG {scope.dag.dag_id!r}{_range(scope)}.{_left(done)}"
    return f"Cleared {done} of DAG {scope.dag.dag_id!r}.{_left(done)}"


def _range(scope: ClearScope) -> str:
    start, end = moment_text(scope.start), moment_text(scope.end)
    return f" at {start}" if start == end else f" from {start} to {end}"


def _left(count: ClearCount) -> str:
    if not count.left_running:
        return ""
    left = "1 that runs is" if count.left_running == 1 else f"{count.left_running} that run are"
    return f" {left} left alone."
