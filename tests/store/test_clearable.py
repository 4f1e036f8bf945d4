"""What a clear of a range finds to clear (S3.26)."""

from datetime import UTC, datetime, timedelta

import pytest
from planted import DAY, FIRST_DATE, plant_run, plant_running, plant_task_instance
from sqlalchemy import Connection

from backfill.states import TaskInstanceState
from backfill.store.clearable import Clearable, select_clearable

ANY = frozenset(TaskInstanceState) - {TaskInstanceState.NONE, TaskInstanceState.REMOVED}
BAD = frozenset({TaskInstanceState.FAILED, TaskInstanceState.UPSTREAM_FAILED})


def found(tx: Connection, days: tuple[int, int] = (0, 9), **narrowed: object) -> list[Clearable]:
    given = {"task_ids": {"load"}, "states": ANY, "companions": {}, "companion_states": ANY, **narrowed}
    start, end = (FIRST_DATE + day * DAY for day in days)
    return select_clearable(tx, "sales", start, end, heartbeat_timeout=timedelta(minutes=1), **given)  # type: ignore[arg-type]


def test_both_ends_of_the_range_and_runs_of_any_type_count_and_those_of_other_dags_do_not(tx: Connection) -> None:
    types = ["backfill", "manual", "scheduled", "manual", "manual"]
    rows = [
        plant_task_instance(tx, plant_run(tx, day, run_type=run_type), state="success")
        for day, run_type in enumerate(types)
    ]
    plant_task_instance(tx, plant_run(tx, 1, dag_id="stock"), state="success")
    assert [row.id for row in found(tx, (1, 3))] == [row.id for row in rows[1:4]]


def test_only_tasks_and_states_that_were_asked_for_are_found(tx: Connection) -> None:
    run_id = plant_run(tx)
    rows = {
        state: plant_task_instance(tx, run_id, map_index=index, state=state).id
        for index, state in enumerate(TaskInstanceState)
    }
    plant_task_instance(tx, run_id, "pull", state="failed")
    assert {row.id for row in found(tx)} == {rows[state] for state in ANY}
    assert {row.id for row in found(tx, states=BAD)} == {rows[state] for state in BAD}


def test_a_setup_comes_with_the_task_that_needs_it_in_its_run_only_and_once(tx: Connection) -> None:
    good, bad = plant_run(tx, 0), plant_run(tx, 1)
    for run_id, state in ((good, "success"), (bad, "failed")):
        plant_task_instance(tx, run_id, "setup", state="success")
        for index in range(2):
            plant_task_instance(tx, run_id, "load", map_index=index, state=state)
    rows = found(tx, task_ids={"load", "setup"}, states=BAD, companions={"load": {"setup"}, "setup": {"teardown"}})
    assert [(row.dag_run_id, row.task_id, row.companion) for row in rows] == [
        (bad, "setup", True),
        (bad, "load", False),
        (bad, "load", False),
    ]
    assert all(not row.companion for row in found(tx, task_ids={"load", "setup"}, companions={"load": {"setup"}}))


def test_a_setup_in_the_initial_state_is_not_found(tx: Connection) -> None:
    run_id = plant_run(tx)
    plant_task_instance(tx, run_id, "setup", state="none")
    plant_task_instance(tx, run_id, "load", state="failed")
    assert [row.task_id for row in found(tx, companions={"load": {"setup"}})] == ["load"]


@pytest.mark.parametrize(("heartbeat_at", "alive"), [(datetime.now(UTC) + timedelta(hours=1), True), (None, False)])
def test_what_runs_is_alive_while_it_gives_its_heartbeat_and_then_needs_no_setup(
    tx: Connection, heartbeat_at: datetime | None, alive: bool
) -> None:
    run_id = plant_run(tx)
    plant_task_instance(tx, run_id, "setup", state="success")
    plant_running(tx, run_id, heartbeat_at=heartbeat_at)
    rows = {row.task_id: row.alive for row in found(tx, companions={"load": {"setup"}})}
    assert rows == {"load": True} if alive else {"load": False, "setup": False}
