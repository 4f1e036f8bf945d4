"""`backfill why`: what holds a task instance, or a job (S11.6)."""

from __future__ import annotations

import re
from datetime import datetime
from typing import assert_never

import click
from rich.table import Table
from rich.text import Text

from backfill.bootstrap import open_runtime
from backfill.cli.command import Command
from backfill.cli.output import Format, output_option, show_record
from backfill.cli.parameters import DATE, JOB, MAP_INDEX
from backfill.cli.terminal import data_console, visible
from backfill.config import load_settings
from backfill.exceptions import UsageError
from backfill.jobs.why import JobAnswer, Question, RunAnswer, TaskAnswer

#: How a date begins, and hardly a task id.
_LIKE_A_DATE = re.compile(r"\d{4}-\d\d-\d\d($|[T ])")


@click.command(cls=Command)
@click.argument("job_id", metavar="JOB", type=JOB)
@click.argument("task_id", metavar="[TASK]", required=False)
@click.argument("logical_date", metavar="[DATE]", type=DATE, required=False)
@click.option("--map-index", metavar="I", type=MAP_INDEX, help="Index of a mapped task instance.")
@output_option
def why(job_id: int, task_id: str | None, logical_date: datetime | None, map_index: int | None, form: Format) -> None:
    """Say why something is not running.

    For TASK at DATE the first thing that holds it: what it waits for, the limit that has no room and who takes it up, the date of its
    retry, or its place in the order. For DATE alone the same of all tasks of its run that are not finished. For a job, or one task of it,
    how many task instances are held by what, and why no more dates are admitted. A task of a subdag is named with the one that stands for it: part.load. Works from any terminal, also where nothing drives
    the job.
    """
    date_alone = _date_in_place_of_task(task_id) if logical_date is None else None
    if map_index is not None and logical_date is None:
        asked = task_id if task_id and date_alone is None else "TASK"
        raise UsageError(
            f"--map-index {map_index} needs a task and a date: backfill why {job_id} {asked} DATE --map-index {map_index}."
        )
    with open_runtime(load_settings(), broker=False) as runtime:
        inquirer = runtime.inquirer()
        answer: TaskAnswer | RunAnswer | JobAnswer
        if date_alone is not None:
            answer = inquirer.why_run(job_id, date_alone)
        else:
            question = None if logical_date is None else Question(task_id or "", logical_date, map_index)
            answer = inquirer.why(job_id, question, task_id)
    show_record(answer.to_json(), form, as_table=lambda: _show(answer))


def _date_in_place_of_task(word: str | None) -> datetime | None:
    """Return the date that stands where a task may stand; None for anything else."""
    return DATE.convert(word, None, None) if word is not None and _LIKE_A_DATE.match(word) else None


def _show(answer: TaskAnswer | RunAnswer | JobAnswer) -> None:
    match answer:
        case TaskAnswer():
            _say(answer.answer, *answer.remarks)
        case RunAnswer():
            _say(answer.answer, *answer.remarks, *([""] if answer.tasks else []))
            _say(*(f"  {task.answer}" for task in answer.tasks))
        case JobAnswer():
            _show_job(answer)
        case unknown:
            assert_never(unknown)


def _show_job(answer: JobAnswer) -> None:
    console = data_console()
    _say(*answer.sentences, *answer.notes)
    if answer.reasons:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(justify="right")
        grid.add_column(overflow="fold")
        for reason in answer.reasons:
            verb = "is" if reason.count == 1 else "are"
            grid.add_row(f"  {reason.count}", Text(visible(f"{verb} {reason.what}: {reason.example}")))
        console.print()
        console.print(grid)
    dates = answer.dates
    console.print()
    _say(
        f"Dates: {dates.finished} of {dates.total} finished, {dates.in_window} running, {dates.not_admitted} not admitted.",
        *([dates.why] if dates.why and dates.why not in answer.sentences else []),
    )


def _say(*sentences: str) -> None:
    console = data_console()
    for sentence in sentences:
        console.print(Text(visible(sentence)))
