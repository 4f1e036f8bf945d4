"""docs/reliability.md names what there is."""

from __future__ import annotations

import re
from pathlib import Path

from chaos_catalogue import FAULTS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()


def test_each_test_that_the_page_names_is_there() -> None:
    there = {
        name for file in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 10
    assert named <= there


def test_its_table_has_a_line_for_each_fault_in_which_nothing_went_wrong() -> None:
    heading, _, *lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in PAGE.partition("<!-- table -->")[2].splitlines()
        if line.startswith("|")
    ]
    rows = [dict(zip(heading, line, strict=True)) for line in lines]
    assert {row["fault"] for row in rows} >= {fault.name for fault in FAULTS}
    for row in rows:
        assert [row[column] for column in ("run twice", "overlapping", "lost", "differing")] == ["0"] * 4, row["fault"]
