"""However a command ends: one sentence on stderr and the right exit code."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from backfill.cli.command import Command
from backfill.cli.lazy import Entry
from backfill.cli.main import CommandLine
from backfill.exceptions import (
    BackfillError,
    DagNotFound,
    Interrupted,
    JobHeld,
    RefusedError,
    ServiceUnavailable,
    UsageError,
)


@pytest.fixture
def end_with(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs a command which raises."""

    def end(error: BaseException, *arguments: str) -> Result:
        @click.command(cls=Command)
        def fail() -> None:
            raise error

        module = ModuleType("failing")
        module.fail = fail  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "failing", module)
        line = CommandLine("backfill", entries={"fail": Entry("Tests", "failing:fail", "Fail.")})
        return CliRunner().invoke(line, ["fail", *arguments], prog_name="backfill")

    return end


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BackfillError("a."), 1),
        (UsageError("a."), 2),
        (DagNotFound("a."), 2),
        (RefusedError("a."), 5),
        (ServiceUnavailable("a."), 69),
        (JobHeld("a."), 75),
    ],
)
def test_an_error_by_design_is_one_sentence_and_its_exit_code(end_with: Any, error: BackfillError, code: int) -> None:
    ended = end_with(error)
    assert (ended.exit_code, ended.stdout, ended.stderr) == (code, "", "Error: a.\n")


def test_verbose_puts_the_traceback_before_the_sentence(end_with: Any) -> None:
    ended = end_with(UsageError("The pool 'x' does not exist."), "-v")
    assert ended.exit_code == 2
    assert ended.stderr.startswith("Traceback (most recent call last):")
    assert ended.stderr.endswith("\nError: The pool 'x' does not exist.\n")


def test_an_unexpected_error_names_its_type_and_the_way_to_its_traceback(end_with: Any) -> None:
    ended = end_with(KeyError("slots"))
    assert ended.exit_code == 1
    assert ended.stderr == (
        "Error: An unexpected KeyError ended the command: 'slots'; run the same command with -v to see the traceback.\n"
    )


def test_the_traceback_of_an_unexpected_error_is_shown_with_verbose(end_with: Any) -> None:
    ended = end_with(KeyError("slots"), "--verbose")
    assert "Traceback" in ended.stderr
    assert ended.stderr.endswith("Error: An unexpected KeyError ended the command: 'slots'.\n")


def test_an_interrupt_of_the_keyboard_exits_130(end_with: Any) -> None:
    ended = end_with(KeyboardInterrupt())
    assert (ended.exit_code, ended.stderr) == (130, "Interrupted.\n")


def test_an_interrupted_job_says_so_without_calling_it_an_error(end_with: Any) -> None:
    ended = end_with(Interrupted("The job was interrupted by SIGINT."))
    assert (ended.exit_code, ended.stderr) == (130, "The job was interrupted by SIGINT.\n")


def test_a_reader_that_leaves_is_no_error() -> None:
    program = [sys.executable, "-m", "backfill", "config", "show", "-o", "json"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        told = process.stderr.read()
    assert (process.returncode, told) == (0, "")


def test_a_closed_stdout_is_no_error() -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m backfill --version >&-"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
