"""Expansion of mapped tasks (S4.7)."""

from typing import Any

import pytest
from planted import look, plant_run, plant_task_instance, plant_xcom, statements
from sqlalchemy import Connection, Engine, text

from backfill.facts import TaskInstanceFacts
from backfill.store.alignment import TaskTemplate
from backfill.store.mapping import expand_mapping, return_values_lengths

TEMPLATE = TaskTemplate("each", -1, 2, "p", 3, "q", "local", "Op", 5, dynamic=True)


def expand(tx: Connection, run_id: int, length: int) -> dict[int, str]:
    return {row.map_index: row.state for row in whole(tx, run_id, length)}


def whole(tx: Connection, run_id: int, length: int, at_once: int = 2000) -> list[TaskInstanceFacts]:
    rows = expand_mapping(tx, run_id, TEMPLATE, length, at_once=at_once)
    assert rows is not None
    return rows


def plant_rows(tx: Connection, rows: dict[int, str]) -> int:
    run_id = plant_run(tx)
    for map_index, state in rows.items():
        plant_task_instance(tx, run_id, "each", map_index=map_index, state=state)
    return run_id


def test_the_row_becomes_index_0_and_the_others_are_created(tx: Connection) -> None:
    run_id = plant_run(tx)
    row = plant_task_instance(tx, run_id, "each", state="scheduled", try_number=1, try_open=True)
    other = plant_task_instance(tx, run_id, "other", state="none")
    rows = whole(tx, run_id, 3)
    assert [(r.map_index, r.state, r.try_number, r.try_open, r.max_tries) for r in rows] == [
        (0, "scheduled", 1, True, 0),
        (1, "none", 0, False, 2),
        (2, "none", 0, False, 2),
    ]
    assert rows[0].id == row.id
    made = look(tx, type(row)(rows[2].id, ""))
    assert (made["dag_id"], made["run_id"], made["pool"], made["pool_slots"]) == (
        "sales", "backfill__2024-01-01T00:00:00+00:00", "p", 3,
    )  # fmt: skip
    assert (made["queue"], made["executor"], made["operator"], made["priority_weight"]) == ("q", "local", "Op", 5)
    assert look(tx, other)["map_index"] == -1


@pytest.mark.parametrize(
    ("before", "length", "after"),
    [
        ({-1: "none"}, 1, {0: "none"}),
        ({-1: "none"}, 0, {-1: "none"}),
        ({-1: "up_for_retry"}, 2, {0: "up_for_retry", 1: "none"}),
        ({}, 2, {0: "none", 1: "none"}),
        # it grows
        ({0: "success"}, 3, {0: "success", 1: "none", 2: "none"}),
        ({0: "success", 1: "removed"}, 2, {0: "success", 1: "none"}),
        # it shrinks
        ({0: "none", 1: "failed", 2: "scheduled"}, 1, {0: "none", 1: "removed", 2: "removed"}),
        ({0: "none", 1: "running", 2: "queued"}, 1, {0: "none", 1: "running", 2: "queued"}),
        # to nothing and back
        ({0: "success", 1: "none"}, 0, {-1: "none", 0: "removed", 1: "removed"}),
        ({-1: "removed", 0: "none"}, 0, {-1: "none", 0: "removed"}),
        ({-1: "none", 0: "removed"}, 1, {-1: "removed", 0: "none"}),
        ({-1: "removed"}, 1, {-1: "removed", 0: "none"}),
        # what is no longer idle does not change its index
        ({-1: "skipped", 1: "none"}, 2, {-1: "removed", 0: "none", 1: "none"}),
        ({-1: "running"}, 1, {-1: "running", 0: "none"}),
        # what somebody ended before there was any index has come to its end
        ({-1: "success"}, 1, {-1: "success"}),
        ({-1: "failed"}, 5, {-1: "failed"}),
        ({-1: "skipped", 0: "removed"}, 2, {-1: "skipped", 0: "removed"}),
        ({-1: "upstream_failed"}, 0, {-1: "upstream_failed"}),
    ],
)
def test_whatever_rows_there_are(tx: Connection, before: dict[int, str], length: int, after: dict[int, str]) -> None:
    run_id = plant_rows(tx, before)
    assert expand(tx, run_id, length) == after
    assert expand(tx, run_id, length) == after


def test_an_index_that_is_back_has_all_its_tries_ahead(tx: Connection) -> None:
    run_id = plant_run(tx)
    plant_task_instance(tx, run_id, "each", map_index=0, state="removed", try_number=3, max_tries=0, try_open=True)
    [row] = whole(tx, run_id, 1)
    assert (row.state, row.try_number, row.max_tries, row.try_open) == ("none", 3, 5, False)


def test_a_thousand_rows_are_made_in_one_statement_and_read_in_another(engine: Engine) -> None:
    with engine.begin() as tx:
        run_id = plant_rows(tx, {-1: "none"})
        with statements(engine) as seen:
            assert len(expand(tx, run_id, 1024)) == 1024
        assert len(seen) == 2


def test_more_rows_than_go_at_once_come_in_portions_and_index_0_with_the_last(tx: Connection) -> None:
    run_id = plant_rows(tx, {-1: "none"})
    for there in ([-1, 1, 2], [-1, 1, 2, 3, 4], [-1, 1, 2, 3, 4, 5]):
        assert expand_mapping(tx, run_id, TEMPLATE, 6, at_once=2) is None
        asked = text("select map_index from task_instance where dag_run_id = :run_id order by map_index")
        assert tx.execute(asked, {"run_id": run_id}).scalars().all() == there
    assert [row.map_index for row in whole(tx, run_id, 6, at_once=2)] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("before", "length"),
    [
        ({0: "success", 1: "success"}, 6),  # it grows
        ({0: "success", 1: "success", 2: "removed"}, 6),
        ({-1: "none", 1: "none", 2: "none"}, 2),  # the source has run again, and gave less
        ({-1: "none", 1: "none", 4: "none"}, 6),  # somebody deleted some
        ({-1: "success"}, 6),  # by hand
        ({-1: "success", 1: "removed"}, 6),
        ({}, 6),
    ],
)
def test_portions_come_to_what_one_statement_comes_to(tx: Connection, before: dict[int, str], length: int) -> None:
    in_portions, at_once = plant_rows(tx, before), plant_run(tx, 1)
    for map_index, state in before.items():
        plant_task_instance(tx, at_once, "each", map_index=map_index, state=state)
    while expand_mapping(tx, in_portions, TEMPLATE, length, at_once=2) is None:
        pass
    assert expand(tx, in_portions, length) == expand(tx, at_once, length)


@pytest.mark.parametrize(
    ("value", "length"),
    [([1, 2, 3], 3), ([], 0), ({"a": 1, "b": [1]}, 2), ({}, 0), ("text", None), (7, None), (None, None)],
)
def test_the_length_of_what_a_task_returned(tx: Connection, value: Any, length: int | None) -> None:
    run_id = plant_run(tx)
    plant_xcom(tx, plant_task_instance(tx, run_id, "source", state="success"), "return_value", value)
    expected = {} if length is None else {("source", "return_value"): length}
    assert return_values_lengths(tx, run_id, ["source"]) == expected


def test_an_expanded_source_counts_the_values_that_were_pushed(tx: Connection) -> None:
    run_id = plant_run(tx)
    for map_index, state in enumerate(["success", "success", "failed", "removed"]):
        row = plant_task_instance(tx, run_id, "source", map_index=map_index, state=state)
        if map_index in {1, 3}:
            plant_xcom(tx, row, "return_value", [1] * 9)
            plant_xcom(tx, row, "rows", 5)
    assert return_values_lengths(tx, run_id, ["source"]) == {("source", "return_value"): 1, ("source", "rows"): 1}


def test_an_expanded_source_of_which_nothing_was_pushed_has_length_0(tx: Connection) -> None:
    run_id = plant_run(tx)
    plant_task_instance(tx, run_id, "source", map_index=0, state="success")
    assert return_values_lengths(tx, run_id, ["source"]) == {("source", "return_value"): 0}


def test_only_the_tasks_asked_for_in_this_run_count(tx: Connection) -> None:
    run_id, other = plant_run(tx), plant_run(tx, 1)
    plant_xcom(tx, plant_task_instance(tx, run_id, "a", state="success"), "key", [1])
    plant_xcom(tx, plant_task_instance(tx, run_id, "b", state="success"), "key", [1])
    plant_xcom(tx, plant_task_instance(tx, other, "a", state="success"), "key", [1, 2])
    plant_task_instance(tx, run_id, "c", state="success")
    assert return_values_lengths(tx, run_id, ["a", "c"]) == {("a", "key"): 1}
    assert return_values_lengths(tx, run_id, []) == {}
