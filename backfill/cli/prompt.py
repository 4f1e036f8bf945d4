"""Questions to the operator: asked on stderr, answered from the terminal, or by `-y`."""

from __future__ import annotations

import sys

import click

from backfill.exceptions import Declined, UsageError

yes_option = click.option("-y", "--yes", is_flag=True, help="Answer every prompt with yes.")


def confirm(question: str, *, yes: bool) -> None:
    """Ask `question` and return if the answer is yes; with `yes` it is that already.

    Raises `Declined` for any other answer, `UsageError` where nobody can be asked.
    """
    if yes:
        click.echo(question, err=True)
        return
    if not somebody_answers():
        raise UsageError(f"{question} There is no terminal to answer that from; give -y to say yes.")
    click.echo(f"{question} Go on? [y/N] ", err=True, nl=False)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Declined("You did not say yes; nothing was changed.")


def somebody_answers() -> bool:
    """Tell whether a person sees a question and can answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()
