"""The files of the project that are not code, read for tests."""

import shlex
from pathlib import Path
from typing import Any

import yaml

from backfill.cli.main import cli

ROOT = Path(__file__).resolve().parents[3]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(read("compose.yaml"))
    return content


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def own_services() -> dict[str, dict[str, Any]]:
    """Those that run the image of this project."""
    return {name: service for name, service in services().items() if "build" in service}


def seconds(text: str) -> float:
    """What compose and systemd write as a duration, as far as it is used here."""
    return float(text.removesuffix("s"))


def understood(arguments: list[str]) -> str:
    """Have the real command line read `arguments`, and return the name of the command; raises if it cannot."""
    with cli.make_context("backfill", list(arguments)) as group:
        name, command, rest = cli.resolve_command(group, [*group._protected_args, *group.args])
        names = [str(name)]
        while hasattr(command, "resolve_command"):
            with command.make_context(name, rest, parent=group) as inner:
                name, command, rest = command.resolve_command(inner, [*inner._protected_args, *inner.args])
                names.append(str(name))
        assert command is not None
        with command.make_context(name, rest, parent=group):
            return " ".join(names)


def command_of_unit(text: str, key: str = "ExecStart") -> list[str]:
    """The arguments of a systemd unit's command, after the program."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"{key}=")]
    program, *arguments = shlex.split(line.removeprefix(f"{key}="))
    assert Path(program).name == "backfill"
    return arguments
