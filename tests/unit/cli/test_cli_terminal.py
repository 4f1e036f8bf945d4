"""Texts for people, and what a terminal is."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import pytest

from backfill import clock
from backfill.cli import terminal


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0.0 s"),
        (0.04, "0.0 s"),
        (0.46, "0.5 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (86400 * 3 + 3600 * 4, "3 d 4 h"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert clock.duration_text(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(41.23, "41.2/s"), (1, "1.0/s"), (0.5, "30.0/min"), (0.001, "3.6/h"), (0, "0/s")]
)
def test_a_rate_has_the_unit_that_gives_a_number_above_one(rate: float, text: str) -> None:
    assert terminal.rate_text(rate) == text


def test_midnight_goes_without_saying() -> None:
    assert clock.moment_text(datetime(2024, 1, 2, tzinfo=UTC)) == "2024-01-02"
    assert clock.moment_text(datetime(2024, 1, 2, 6, 0, 1, 500, tzinfo=UTC)) == "2024-01-02 06:00:01"


def test_control_characters_are_written_out() -> None:
    assert terminal.visible("a\x1b[31mb\x07\r\tc\nd") == "a\\x1b[31mb\\x07\\r    c\nd"


@pytest.mark.parametrize(
    ("stdout", "stderr", "environment", "expected"),
    [
        (True, True, {}, True),
        (False, True, {}, False),
        (True, False, {}, False),
        (True, True, {"NO_COLOR": "1"}, False),
        (True, True, {"NO_COLOR": ""}, True),
        (True, True, {"TERM": "dumb"}, False),
    ],
)
def test_colour_and_animation_need_a_terminal_and_no_objection(
    monkeypatch: pytest.MonkeyPatch, stdout: bool, stderr: bool, environment: dict[str, str], expected: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: stdout, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: stderr, raising=False)
    assert terminal.animated() is expected


def test_what_is_no_terminal_gets_no_colour_and_no_wrapping(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.data_console().print("x" * 500, style="red")
    assert capsys.readouterr().out == "x" * 500 + "\n"


def test_a_reader_of_data_that_left_is_told_to_the_caller_and_one_of_notes_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def leave(_: str) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(sys.stdout, "write", leave)
    monkeypatch.setattr(sys.stderr, "write", leave)
    terminal.note_console().print("progress")
    with pytest.raises(BrokenPipeError):
        terminal.data_console().print("data")


def test_the_cursor_is_not_hidden_from_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "animated", lambda: True)
    console = terminal.note_console()
    assert console.show_cursor(False) is False
