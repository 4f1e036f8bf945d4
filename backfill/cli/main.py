"""The entry point: the table of commands, and the one policy for everything that ends a command.

Exit codes are those of interface.md, section 3; an error is one sentence on stderr, a traceback only with `-v`.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import click

from backfill.cli.command import is_verbose
from backfill.cli.lazy import Entry, LazyGroup
from backfill.cli.output import forget_stdout
from backfill.exceptions import BackfillError, Interrupted, UsageError

_RUNNING, _PROCESSES, _HOUSE = "Backfills", "Processes", "Housekeeping"

COMMANDS = {
    "run": Entry(_RUNNING, "backfill.cli.run:run", "Backfill a range of dates, here and now."),
    "submit": Entry(_RUNNING, "backfill.cli.run:submit", "Create a job and leave it to a coordinator."),
    "plan": Entry(_RUNNING, "backfill.cli.plan:plan", "Show what `run` would do, and do none of it."),
    "resume": Entry(_RUNNING, "backfill.cli.run:resume", "Go on with a paused job, also after a crash."),
    "pause": Entry(_RUNNING, "backfill.cli.control:pause", "Start nothing more of a job."),
    "cancel": Entry(_RUNNING, "backfill.cli.control:cancel", "End a job for good, with all that runs of it."),
    "status": Entry(_RUNNING, "backfill.cli.jobs:status", "Show one job: progress, rate, time left, errors."),
    "tasks": Entry(_RUNNING, "backfill.cli.jobs:tasks", "List the task instances of a job."),
    "why": Entry(_RUNNING, "backfill.cli.why:why", "Say why something is not running."),
    "logs": Entry(_RUNNING, "backfill.cli.logs:logs", "Show the log of a task instance."),
    "list": Entry(_RUNNING, "backfill.cli.jobs:list_jobs", "List the jobs, newest first."),
    "clear": Entry(_RUNNING, "backfill.cli.clear:clear", "Put task instances back to the initial state."),
    "up": Entry(_PROCESSES, "backfill.cli.up:up", "Run everything on this machine, in this terminal."),
    "coordinator": Entry(_PROCESSES, "backfill.cli.coordinator:coordinator", "Run submitted jobs, until stopped."),
    "worker": Entry(_PROCESSES, "backfill.cli.worker:worker", "Run a Celery worker, until stopped."),
    "flower": Entry(_PROCESSES, "backfill.cli.flower:flower", "Show workers and task instances in a browser."),
    "dags": Entry(_HOUSE, "backfill.cli.dags:dags", "List DAGs, or show one."),
    "pools": Entry(_HOUSE, "backfill.cli.pools:pools", "List, set and delete pools."),
    "db": Entry(_HOUSE, "backfill.cli.db:db", "Upgrade or check the database schema."),
    "config": Entry(_HOUSE, "backfill.cli.settings:config", "Show the settings and where each comes from."),
    "doctor": Entry(_HOUSE, "backfill.cli.doctor:doctor", "Check database, broker, schema, workers and clocks."),
}


class CommandLine(LazyGroup):
    """The root group: whatever a command raises ends here, as one sentence and an exit code."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the options before the command's name."""
        with _misuse_in_one_sentence():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for; end the process by the policy above where it raises."""
        try:
            with _misuse_in_one_sentence():
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise  # click's own, which its `main` turns into text and exit codes
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  # the last resort of every command
            ctx.exit(_end_with(error, verbose=is_verbose(ctx)))


class _Misuse(click.ClickException):
    """What click found wrong in what was typed."""

    exit_code = UsageError.exit_code


@contextmanager
def _misuse_in_one_sentence() -> Iterator[None]:
    """Leave out the three lines of usage that click puts above what it found wrong; name the way to them where it helps."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise  # no mistake, but a question
    except click.UsageError as error:
        told = error.format_message()
        value_is_named = isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter)
        if error.ctx is not None and not value_is_named and not told.endswith(("?", "?)")):
            told = f"{told.rstrip('.')}; `{error.ctx.command_path} --help` shows what there is."
        raise _Misuse(told) from error


def _end_with(error: BaseException, *, verbose: bool) -> int:
    """Say on stderr what ended the command, with the notes that were added to it, and return its exit code."""
    if isinstance(error, BrokenPipeError):
        forget_stdout()
        return 0
    if verbose and not isinstance(error, KeyboardInterrupt | Interrupted):
        click.echo("".join(traceback.format_exception(error)).rstrip(), err=True)
    for line in (_sentence(error, verbose=verbose), *getattr(error, "__notes__", ())):
        click.echo(line, err=True)
    match error:
        case KeyboardInterrupt():
            return Interrupted.exit_code
        case BackfillError():
            return error.exit_code
        case _:
            return BackfillError.exit_code


def _sentence(error: BaseException, *, verbose: bool) -> str:
    match error:
        case KeyboardInterrupt():
            return "Interrupted."
        case Interrupted():
            return str(error)
        case BackfillError():
            return f"Error: {error}"
        case _:
            more = "" if verbose else "; run the same command with -v to see the traceback"
            return f"Error: An unexpected {type(error).__name__} ended the command: {error}{more}."


@click.group(
    cls=CommandLine,
    entries=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="TARGET is a dag_id found in the DAGs folder, a path/to/file.py, or path/to/file.py:dag_id.",
)
@click.version_option(package_name="backfill", message="%(prog)s %(version)s")
def cli() -> None:
    """Run a DAG over a range of dates: a coordinator, Celery workers, PostgreSQL and Redis."""


def main() -> NoReturn:
    """Run the command line of this process, and exit."""
    # a polite kill ends a command as Ctrl-C does, so that it stops what it started; processes with a protocol of their own
    # for it (the coordinator, a worker) set their handlers later
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # a process that is started with a closed stdout or stderr has None there, which nobody expects
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115  # open as long as the process lives
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115  # the same
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a task's text may exceed what the terminal's encoding can say
            stream.reconfigure(errors="backslashreplace")
    cli.main(prog_name="backfill")


if __name__ == "__main__":
    main()
