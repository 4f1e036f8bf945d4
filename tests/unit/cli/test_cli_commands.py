"""The table of commands, and what is loaded for it."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from backfill.cli.main import COMMANDS, cli

HEAVY = ("sqlalchemy", "celery", "rich", "redis", "yaml", "flower")


def loaded_after(*arguments: str) -> set[str]:
    """Return which of the heavy packages a fresh process has loaded after `backfill <arguments>`."""
    code = (
        "import sys\n"
        "from backfill.cli.main import cli\n"
        f"try: cli.main({list(arguments)!r}, prog_name='backfill')\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(eval(done.stderr.splitlines()[-1]))


def test_help_loads_no_command() -> None:
    assert loaded_after("--help") == set()


def test_an_unknown_command_loads_no_command() -> None:
    assert loaded_after("rum") == set()


def test_completion_of_commands_loads_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_BACKFILL_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "backfill re")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert loaded_after() == set()


def test_completion_offers_commands_and_their_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_BACKFILL_COMPLETE", "zsh_complete")
    monkeypatch.setenv("COMP_WORDS", "backfill")
    monkeypatch.setenv("COMP_CWORD", "1")
    completed = CliRunner().invoke(cli, prog_name="backfill")
    assert "submit\nCreate a job and leave it to a coordinator.\n" in completed.output


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_of_a_command_what_the_command_says_of_itself(name: str) -> None:
    command = COMMANDS[name].load()
    assert command.name == name
    assert command.get_short_help_str(limit=200) == COMMANDS[name].help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_verbose_and_explains_itself(name: str) -> None:
    for command in commands_below(COMMANDS[name].load()):
        assert command.help
        assert any("--verbose" in parameter.opts for parameter in command.params)
        assert all(option.help for option in command.params if isinstance(option, click.Option))


def commands_below(command: click.Command) -> list[click.Command]:
    return list(command.commands.values()) if isinstance(command, click.Group) else [command]


def test_a_near_miss_is_named() -> None:
    missed = CliRunner().invoke(cli, ["statsu"], prog_name="backfill")
    assert missed.exit_code == 2
    assert "No such command 'statsu'." in missed.stderr
    assert "Did you mean 'status'?" in missed.stderr


def test_help_names_every_command_below_a_heading() -> None:
    told = CliRunner().invoke(cli, ["--help"], prog_name="backfill").stdout
    assert all(f"\n  {name} " in told for name in COMMANDS)
    assert told.index("Backfills:") < told.index("Processes:") < told.index("Housekeeping:")
