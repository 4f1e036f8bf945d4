"""The generated parts of `docs/cli.md` and `docs/configuration.md`: `python -m backfill.cli.reference --check` or `--write`.

They stand between two marks in pages that are otherwise written by hand, so that prose and reference cannot drift apart.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import click

from backfill import config
from backfill.cli.main import cli
from backfill.config import SECRETS, Settings

DOCS = Path(__file__).parents[2] / "docs"
#: Columns of the help texts in the pages.
_WIDTH = 100


@click.command()
@click.option("--write", "write", is_flag=True, help="Bring the pages up to date.")
@click.option("--check", "check", is_flag=True, help="Fail if a page is not up to date.")
@click.option(
    "--docs", type=click.Path(exists=True, file_okay=False, path_type=Path), default=DOCS, help="Their folder."
)
def main(write: bool, check: bool, docs: Path) -> None:
    """Write or check the reference pages."""
    if write == check:
        raise click.UsageError("Give either --write or --check.")
    stale = list(stale_pages(docs))
    for path, text in stale:
        if write:
            path.write_text(text, encoding="utf-8")
        click.echo(f"{path.name} {'is written' if write else 'is out of date'}", err=True)
    if stale and check:
        raise click.ClickException("Run `python -m backfill.cli.reference --write` and commit what it changes.")


def stale_pages(docs: Path) -> Iterator[tuple[Path, str]]:
    """Yield each page whose generated part is out of date, with the text that it should have."""
    for name, generated in (("cli.md", commands_reference()), ("configuration.md", settings_reference())):
        path = docs / name
        present = path.read_text(encoding="utf-8")
        text = _put_between_marks(present, generated)
        if text != present:
            yield path, text


_MARKED = re.compile(r"(<!-- generated -->\n).*?(<!-- end of what is generated -->)", re.DOTALL)


def _put_between_marks(page: str, generated: str) -> str:
    if not _MARKED.search(page):
        raise click.ClickException("A page has lost its marks; put <!-- generated --> and its end back in.")
    return _MARKED.sub(lambda found: f"{found[1]}\n{generated}\n{found[2]}", page)


def commands_reference() -> str:
    """Return the help of every command, as Markdown."""
    return "\n\n".join(
        f"### `{path}`\n\n```text\n{text}\n```"
        for path, text in _help_texts(cli, cli.make_context("backfill", [], resilient_parsing=True))
    )


def _help_texts(command: click.Command, ctx: click.Context) -> Iterator[tuple[str, str]]:
    ctx.terminal_width = ctx.max_content_width = _WIDTH
    yield ctx.command_path, "\n".join(line.rstrip() for line in command.get_help(ctx).splitlines())
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            assert child is not None
            yield from _help_texts(child, click.Context(child, parent=ctx, info_name=name))


def settings_reference() -> str:
    """Return a table of the settings for each section, as Markdown."""
    comments = _comments()
    values = dict(Settings().items())
    return "\n\n".join(
        "\n".join(
            [
                f"### `[{section.name}]`",
                "",
                inspect.getdoc(getattr(config, f"{section.name.capitalize()}Settings")) or "",
                "",
                "| key | default | environment variable | |",
                "| --- | --- | --- | --- |",
                *(
                    _row(name, value, comments[name])
                    for name, value in values.items()
                    if name.startswith(f"{section.name}.")
                ),
            ]
        )
        for section in fields(Settings)
        if section.name != "origins"
    )


def _row(name: str, value: object, comment: str) -> str:
    variable = f"`BACKFILL__{name.replace('.', '__').upper()}`"
    if name in SECRETS:
        variable += " or `…_FILE`"
    return f"| `{name}` | {_default(value)} | {variable} | {comment} |"


def _default(value: object) -> str:
    match value:
        case timedelta():
            return f"{value.total_seconds():g} s"
        case Path():
            return f"`{_without_home(value)}`"
        case bool():
            return f"`{str(value).lower()}`"
        case "":
            return "empty"
        case _:
            return f"`{value}`"


def _without_home(path: Path) -> str:
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else f"{path}"


def _comments() -> dict[str, str]:
    """Return for each `section.key` the `#:` lines above it in the source of `backfill.config`."""
    source = inspect.getsource(config)
    lines = source.splitlines()
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Settings") and node.name != "Settings":
            section = node.name.removesuffix("Settings").lower()
            for statement in node.body:
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                    found[f"{section}.{statement.target.id}"] = _comment_above(lines, statement.lineno - 1)
    return found


#: Readers of the page do not have the rules by number.
_RULE = re.compile(r" \(S\d+(\.\d+)?\)")


def _comment_above(lines: list[str], place: int) -> str:
    above: list[str] = []
    while (line := lines[place - 1 - len(above)].strip()).startswith("#:"):
        above.insert(0, line.removeprefix("#:").strip())
    return _RULE.sub("", " ".join(above))


if __name__ == "__main__":
    main()
