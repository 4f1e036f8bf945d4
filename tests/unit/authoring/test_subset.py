from __future__ import annotations

import pytest

from backfill import DAG, chain
from backfill.dag.subset import chosen_tasks
from backfill.exceptions import UsageError
from backfill.operators import EmptyOperator


@pytest.fixture
def wide(dag: DAG) -> DAG:
    """Build s → extract → transform → load → t and extract → report, with a setup s, its teardown t, and a setup u without."""
    s, extract, transform, load, report, t, u, after = (
        EmptyOperator(task_id=name, dag=dag)
        for name in ("s", "extract", "transform", "load", "report", "t", "u", "after")
    )
    chain(s, extract, transform, load)
    extract >> report >> after
    u.as_setup() >> transform
    load >> t.as_teardown(setups=s)
    return dag


def test_without_a_regex_all_tasks_are_chosen(wide: DAG) -> None:
    assert chosen_tasks(wide, None, ignore_dependencies=False) == set(wide.task_ids)
    assert chosen_tasks(wide, None, ignore_dependencies=True) == set(wide.task_ids)


def test_matches_are_searched_and_bring_what_is_upstream_and_its_teardowns(wide: DAG) -> None:
    assert chosen_tasks(wide, "port$", ignore_dependencies=False) == {"report", "extract", "s", "t"}
    assert chosen_tasks(wide, "trans", ignore_dependencies=False) == {"transform", "extract", "s", "u", "t"}


def test_ignoring_dependencies_keeps_the_relevant_setups_and_teardowns_only(wide: DAG) -> None:
    assert chosen_tasks(wide, "^transform$", ignore_dependencies=True) == {"transform", "s", "u", "t"}
    assert chosen_tasks(wide, "^report$", ignore_dependencies=True) == {"report"}
    assert chosen_tasks(wide, "^s$", ignore_dependencies=True) == {"s", "t"}


def test_a_regex_that_matches_nothing_names_the_tasks(wide: DAG) -> None:
    with pytest.raises(UsageError, match="No task of the DAG 'd' matches 'nothing'; its tasks are s, extract"):
        chosen_tasks(wide, "nothing", ignore_dependencies=False)


def test_a_regex_that_cannot_be_read_is_named(wide: DAG) -> None:
    with pytest.raises(UsageError, match=r"'\(' is no regular expression: missing \)"):
        chosen_tasks(wide, "(", ignore_dependencies=False)
