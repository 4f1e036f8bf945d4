"""What every command has in common: `-v`, which shows the traceback of whatever ends the command."""

from __future__ import annotations

from typing import Any

import click

_VERBOSE = "backfill.verbose"


def _remember(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[_VERBOSE] = True


def is_verbose(ctx: click.Context) -> bool:
    """Tell whether `-v` was given to the command that `ctx`, or a context below it, belongs to."""
    return bool(ctx.meta.get(_VERBOSE))


log_format_option = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    help="Form of what is written to stderr.  [default: logging.format]",
)


class Command(click.Command):
    """A command that takes `-v/--verbose`; `verbose_help` says what more that does than show tracebacks."""

    def __init__(self, *args: Any, verbose_help: str = "Show the traceback of an error.", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["-v", "--verbose"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_remember,
                help=verbose_help,
            )
        )


class Group(click.Group):
    """A group whose commands are of the class above."""

    command_class = Command
