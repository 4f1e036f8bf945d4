"""The reference pages are generated, and those of this checkout are up to date."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from backfill.cli import reference
from backfill.cli.main import COMMANDS
from backfill.cli.reference import DOCS, commands_reference, main, settings_reference
from backfill.config import Settings


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """Return a copy of the pages."""
    for name in ("cli.md", "configuration.md"):
        shutil.copy(DOCS / name, tmp_path)
    return tmp_path


def test_the_pages_of_this_checkout_are_up_to_date() -> None:
    checked = CliRunner().invoke(main, ["--check"])
    assert checked.exit_code == 0, checked.stderr


def test_a_page_that_is_out_of_date_is_found_and_written(docs: Path) -> None:
    page = docs / "configuration.md"
    right = page.read_text()
    page.write_text(right.replace("`core.parallelism`", "`core.paralelism`"))
    checked = CliRunner().invoke(main, ["--check", "--docs", str(docs)])
    assert checked.exit_code == 1
    assert checked.stderr.splitlines()[0] == "configuration.md is out of date"
    written = CliRunner().invoke(main, ["--write", "--docs", str(docs)])
    assert (written.exit_code, written.stderr) == (0, "configuration.md is written\n")
    assert page.read_text() == right


def test_a_page_without_marks_is_refused(docs: Path) -> None:
    (docs / "cli.md").write_text("# The command line\n")
    checked = CliRunner().invoke(main, ["--check", "--docs", str(docs)])
    assert checked.exit_code == 1
    assert "lost its marks" in checked.stderr


@pytest.mark.parametrize("arguments", [[], ["--check", "--write"]])
def test_one_of_check_and_write_is_asked_for(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, arguments).exit_code == 2


def test_every_command_is_described() -> None:
    page = commands_reference()
    assert all(f"### `backfill {name}`" in page for name in COMMANDS)
    assert "### `backfill pools set`" in page
    assert "-B, --run-backwards" in page


def test_every_setting_is_described_and_no_default_depends_on_this_machine() -> None:
    rows = [line for line in settings_reference().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [name for name, _ in Settings().items()]
    assert all(row.split(" | ")[-1].strip(" |") for row in rows)
    assert str(Path.home()) not in settings_reference()


def test_rules_are_named_by_their_words_not_their_numbers() -> None:
    assert "(S" not in settings_reference()
    assert reference._RULE.sub("", "found dead (S8.4), never (S12).") == "found dead, never."
