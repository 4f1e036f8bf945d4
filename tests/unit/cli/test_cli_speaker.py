"""Lines of several processes in one terminal."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from backfill.cli.up import Speaker


def spoken(*lines: tuple[str, str], as_json: bool = False, colour: bool = False) -> str:
    out = StringIO()
    console = Console(
        file=out, width=40, force_terminal=colour, color_system="standard" if colour else None, markup=False
    )
    speaker = Speaker(as_json=as_json, console=console)
    for name, line in lines:
        speaker.say(name, line)
    return out.getvalue()


def test_each_line_bears_the_name_of_its_process_and_none_is_cut() -> None:
    text = "a line that is longer than the terminal is wide"
    assert spoken(("worker", text), ("coordinator", "short")) == f"worker      │ {text}\ncoordinator │ short\n"


def test_what_would_move_the_cursor_is_made_visible() -> None:
    assert spoken(("flower", "\x1b[2Jgone [bold]")) == "flower      │ \\x1b[2Jgone [bold]\n"


def test_names_are_coloured_on_a_terminal_alone() -> None:
    assert "\x1b[36mcoordinator │ \x1b[0m" in spoken(("coordinator", "x"), colour=True)
    assert "\x1b" not in spoken(("coordinator", "x"))


def test_json_is_passed_on_as_it_is_and_other_lines_bear_the_name() -> None:
    lines = (("worker", '{"level": "info"}'), ("worker", "Worker x listens"))
    assert spoken(*lines, as_json=True) == '{"level": "info"}\nworker      │ Worker x listens\n'
