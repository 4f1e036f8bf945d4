"""Every behaviour that the rules demand a test for has one, which is there under its name."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
from section_14 import SECTION_14

TESTS = Path(__file__).resolve().parent.parent
CLAUSES = [(line, clause) for line, clauses in SECTION_14.items() for clause in clauses]


@cache
def names_in(module: str) -> frozenset[str]:
    """Return the tests of a module, `integration/jobs/orphans` for `integration/jobs/test_orphans.py`."""
    folder, _, name = module.rpartition("/")
    tree = ast.parse((TESTS / folder / f"test_{name}.py").read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize(("line", "clause"), CLAUSES)
def test_a_behaviour_has_a_test_that_is_there(line: str, clause: str) -> None:
    references = SECTION_14[line][clause]
    assert references
    for reference in references:
        module, _, name = reference.partition("::")
        assert f"test_{name}" in names_in(module), reference
