"""A run's task instances in line with the DAG (S2.12)."""

from typing import Any

from planted import plant_run, plant_task_instance, statements
from sqlalchemy import Connection, Engine, select

from backfill.models import task_instance
from backfill.states import FINISHED, IDLE, TaskInstanceState
from backfill.store.alignment import TaskTemplate, align_task_instances
from backfill.store.task_instances import select_facts_of_runs


def template(task_id: str, map_index: int = -1, *, dynamic: bool = False, **values: Any) -> TaskTemplate:
    return TaskTemplate(
        **{
            "task_id": task_id,
            "map_index": map_index,
            "max_tries": 2,
            "pool": "default_pool",
            "pool_slots": 1,
            "queue": "backfill",
            "executor": "celery",
            "operator": "PythonOperator",
            "priority_weight": 1,
            "dynamic": dynamic,
            **values,
        }
    )


def rows(tx: Connection, run_id: int) -> dict[tuple[str, int], Any]:
    found = tx.execute(select(task_instance).where(task_instance.c.dag_run_id == run_id).order_by(task_instance.c.id))
    return {(row.task_id, row.map_index): row for row in found}


def states(tx: Connection, run_id: int) -> dict[tuple[str, int], str]:
    return {key: row.state for key, row in rows(tx, run_id).items()}


def test_missing_rows_are_created_with_all_that_the_task_says(tx: Connection) -> None:
    run_id = plant_run(tx)
    b = template(
        "b", 1, max_tries=3, pool="p", pool_slots=4, queue="q", executor="local", operator="Op", priority_weight=7
    )
    align_task_instances(tx, [run_id], [template("z"), b])
    found = rows(tx, run_id)
    assert list(found) == [("z", -1), ("b", 1)]
    row = found["b", 1]
    assert (row.dag_id, row.run_id, row.state, row.try_number, row.try_open) == (
        "sales", "backfill__2024-01-01T00:00:00+00:00", "none", 0, False,
    )  # fmt: skip
    assert (row.max_tries, row.pool, row.pool_slots, row.queue, row.executor, row.operator, row.priority_weight) == (
        3, "p", 4, "q", "local", "Op", 7,
    )  # fmt: skip


def test_many_new_runs_are_aligned_in_one_statement_and_those_that_have_rows_in_two(engine: Engine) -> None:
    with engine.begin() as tx:
        run_ids = [plant_run(tx, day) for day in range(64)]
        with statements(engine) as seen:
            rows = align_task_instances(tx, run_ids[::-1], [template(f"t{i}") for i in range(100)])
        assert len(seen) == 1
        assert rows == [row for run_id in run_ids[::-1] for row in select_facts_of_runs(tx, [run_id])]
        with statements(engine) as seen:
            assert align_task_instances(tx, run_ids, [template(f"t{i}") for i in range(100)]) is None
        assert len(seen) == 2
        found = tx.execute(
            select(task_instance.c.dag_run_id, task_instance.c.task_id).order_by(task_instance.c.id)
        ).all()
    assert found == [(run_id, f"t{i}") for run_id in run_ids[::-1] for i in range(100)]


def test_nothing_changes_when_all_is_in_line(tx: Connection) -> None:
    run_id = plant_run(tx)
    templates = [template("a"), template("b", 0), template("b", 1), template("c", dynamic=True)]
    align_task_instances(tx, [run_id], templates)
    before = rows(tx, run_id)
    align_task_instances(tx, [run_id], templates)
    align_task_instances(tx, [], [])
    assert rows(tx, run_id) == before


def test_rows_of_vanished_tasks_are_removed_unless_in_flight(tx: Connection) -> None:
    run_id = plant_run(tx)
    for state in TaskInstanceState:
        plant_task_instance(tx, run_id, state, state=state)
    align_task_instances(tx, [run_id], [])
    assert states(tx, run_id) == {(s, -1): "removed" if s in IDLE | FINISHED else s for s in TaskInstanceState}


def test_of_a_subset_surplus_indexes_are_removed_and_all_other_tasks_left_alone(tx: Connection) -> None:
    run_id, other = plant_run(tx), plant_run(tx, 1)
    for map_index in range(-1, 4):
        plant_task_instance(tx, run_id, "a", map_index=map_index, state="success")
    plant_task_instance(tx, run_id, "not chosen", state="failed")
    plant_task_instance(tx, run_id, "gone from the dag", state="skipped")
    plant_task_instance(tx, other, "gone", state="none")
    align_task_instances(tx, [run_id], [template("a", 0), template("a", 1)], is_subset=True)
    assert states(tx, run_id) == {
        ("a", -1): "removed",
        ("a", 0): "success",
        ("a", 1): "success",
        ("a", 2): "removed",
        ("a", 3): "removed",
        ("not chosen", -1): "failed",
        ("gone from the dag", -1): "skipped",
    }
    assert states(tx, other) == {("gone", -1): "none"}


def test_a_removed_row_whose_task_is_back_has_all_its_tries_ahead(tx: Connection) -> None:
    run_id = plant_run(tx)
    plant_task_instance(tx, run_id, "a", state="removed", try_number=3, max_tries=1, pool="old", try_open=True)
    align_task_instances(tx, [run_id], [template("a")])
    row = rows(tx, run_id)["a", -1]
    assert (row.state, row.try_number, row.max_tries, row.try_open, row.pool) == ("none", 3, 5, False, "default_pool")


def test_idle_rows_take_over_where_and_how_they_run(tx: Connection) -> None:
    run_id = plant_run(tx)
    for state in TaskInstanceState:
        plant_task_instance(tx, run_id, state, state=state, max_tries=9, next_attempt_at=None)
    align_task_instances(
        tx, [run_id], [template(s, pool="new", pool_slots=3, priority_weight=5) for s in TaskInstanceState]
    )
    found = rows(tx, run_id)
    for state in TaskInstanceState:
        row = found[state, -1]
        changes = state in IDLE or state == TaskInstanceState.REMOVED
        assert (row.pool, row.pool_slots, row.priority_weight) == (("new", 3, 5) if changes else ("default_pool", 1, 1))
        if state != TaskInstanceState.REMOVED:
            assert (row.state, row.max_tries, row.try_open) == (state, 9, True)


def test_an_expanded_mapping_is_kept_as_it_is(tx: Connection) -> None:
    run_id = plant_run(tx)
    for map_index, state in enumerate(["success", "none", "removed"]):
        plant_task_instance(tx, run_id, "a", map_index=map_index, state=state)
    align_task_instances(tx, [run_id], [template("a", dynamic=True)])
    assert states(tx, run_id) == {("a", 0): "success", ("a", 1): "none", ("a", 2): "removed"}


def test_a_mapping_that_is_back_starts_unexpanded(tx: Connection) -> None:
    run_id = plant_run(tx)
    for map_index in range(2):
        plant_task_instance(tx, run_id, "a", map_index=map_index, state="removed")
    align_task_instances(tx, [run_id], [template("a", dynamic=True)])
    assert states(tx, run_id) == {("a", -1): "none", ("a", 0): "removed", ("a", 1): "removed"}


def test_a_mapping_that_became_plain_gives_way(tx: Connection) -> None:
    run_id = plant_run(tx)
    for map_index, state in enumerate(["success", "running"]):
        plant_task_instance(tx, run_id, "a", map_index=map_index, state=state)
    align_task_instances(tx, [run_id], [template("a")])
    assert states(tx, run_id) == {("a", -1): "none", ("a", 0): "removed", ("a", 1): "running"}
