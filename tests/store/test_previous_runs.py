"""P of S4.9: the run before a run."""

from typing import Any

import pytest
from planted import DAY, FIRST_DATE, plant_date, plant_job, plant_run, plant_task_instance
from sqlalchemy import Connection

from backfill.facts import PreviousRun
from backfill.store.previous import select_previous_runs


def plant_run_with(tx: Connection, day: int, rows: dict[str, str] | None = None, **values: Any) -> int:
    run_id = plant_run(tx, day, **values)
    for task_id, state in (rows or {}).items():
        plant_task_instance(tx, run_id, task_id, state=state)
    return run_id


def previous(tx: Connection, run_id: int, *task_ids: str) -> PreviousRun | None:
    return select_previous_runs(tx, "sales", [run_id], task_ids or ("load",)).get(run_id)


def test_the_first_run_has_none_before_it(tx: Connection) -> None:
    run_id = plant_run(tx, 5)
    plant_run(tx, 6)
    plant_run(tx, 4, dag_id="other")
    assert previous(tx, run_id) is None
    assert select_previous_runs(tx, "sales", [], ["load"]) == {}


def test_it_is_the_latest_earlier_date_however_long_ago(tx: Connection) -> None:
    plant_run_with(tx, 0, {"load": "failed"})
    before = plant_run_with(tx, 3, {"load": "success", "check": "skipped", "other": "failed"})
    run_id = plant_run_with(tx, 9, {"load": "none"})
    assert previous(tx, run_id, "load", "check", "new") == PreviousRun(
        logical_date=FIRST_DATE + 3 * DAY,
        dag_run_id=before,
        driven=False,
        states={"load": ("success",), "check": ("skipped",)},
        seen_before=frozenset({"load", "check"}),
    )


@pytest.mark.parametrize(("run_type", "counts"), [("backfill", True), ("scheduled", True), ("manual", False)])
def test_manual_runs_are_passed_over(tx: Connection, run_type: str, counts: bool) -> None:
    older = plant_run(tx, 0)
    between = plant_run(tx, 1, run_type=run_type)
    found = previous(tx, plant_run(tx, 2))
    assert found is not None
    assert found.dag_run_id == (between if counts else older)


@pytest.mark.parametrize("state", ["queued", "running", "success", "failed"])
def test_a_run_in_any_state_counts(tx: Connection, state: str) -> None:
    before = plant_run(tx, 0, state=state)
    found = previous(tx, plant_run(tx, 1))
    assert found is not None
    assert (found.dag_run_id, found.driven) == (before, False)


def test_all_mapped_rows_count_but_removed_ones(tx: Connection) -> None:
    before = plant_run(tx, 0)
    for map_index, state in enumerate(["success", "failed", "removed"]):
        plant_task_instance(tx, before, map_index=map_index, state=state)
    plant_task_instance(tx, before, "gone", state="removed")
    found = previous(tx, plant_run(tx, 1), "load", "gone")
    assert found is not None
    assert {task: sorted(states) for task, states in found.states.items()} == {"load": ["failed", "success"]}
    assert found.seen_before == {"load"}


def test_a_task_missing_in_it_may_have_been_seen_before(tx: Connection) -> None:
    plant_run_with(tx, 0, {"early": "success", "gone": "removed"})
    plant_run_with(tx, 2)
    plant_run_with(tx, 3, {"by hand": "success"}, run_type="manual")
    run_id = plant_run_with(tx, 4, {"new": "none"})
    plant_run_with(tx, 5, {"late": "none"})
    found = previous(tx, run_id, "early", "gone", "by hand", "new", "late")
    assert found is not None
    assert found.logical_date == FIRST_DATE + 2 * DAY
    assert found.states == {}
    assert found.seen_before == {"early", "by hand"}


def test_a_date_that_an_active_job_has_yet_to_run_counts_without_a_run(tx: Connection) -> None:
    plant_run_with(tx, 0, {"load": "success"})
    plant_date(tx, plant_job(tx, state="paused"), 1, None, active=True)
    plant_date(tx, plant_job(tx, state="success"), 2, None, active=False)
    run_id = plant_run(tx, 3)
    assert previous(tx, run_id) == PreviousRun(
        logical_date=FIRST_DATE + DAY, dag_run_id=None, driven=True, states={}, seen_before=frozenset({"load"})
    )


def test_a_manual_run_counts_once_a_job_is_to_take_it(tx: Connection) -> None:
    plant_run(tx, 0)
    manual = plant_run_with(tx, 1, {"load": "failed"}, run_type="manual", state="failed")
    plant_date(tx, plant_job(tx), 1, None, active=True, action="take")
    found = previous(tx, plant_run(tx, 2))
    assert found is not None
    assert (found.dag_run_id, found.driven, found.states) == (manual, True, {"load": ("failed",)})


@pytest.mark.parametrize(
    ("progress", "active", "driven"),
    [("pending", True, True), ("admitted", True, True), ("finished", True, False), ("admitted", False, False)],
)
def test_a_run_is_driven_while_an_active_job_has_not_finished_with_it(
    tx: Connection, progress: str, active: bool, driven: bool
) -> None:
    before = plant_run(tx, 0)
    plant_date(tx, plant_job(tx), 0, before, progress=progress, active=active)
    found = previous(tx, plant_run(tx, 1))
    assert found is not None
    assert (found.dag_run_id, found.driven) == (before, driven)


def test_a_date_of_which_the_run_was_deleted_after_it_finished_does_not_count(tx: Connection) -> None:
    older = plant_run(tx, 0)
    plant_date(tx, plant_job(tx), 1, None, active=True, progress="finished")
    found = previous(tx, plant_run(tx, 2))
    assert found is not None
    assert found.dag_run_id == older


def test_each_of_many_runs_has_its_own(tx: Connection) -> None:
    runs = [plant_run_with(tx, day, {"load": "success"}) for day in range(4)]
    found = select_previous_runs(tx, "sales", runs, ["load"])
    assert {run_id: p.dag_run_id for run_id, p in found.items()} == dict(zip(runs[1:], runs, strict=False))
    assert {run_id: p.states for run_id, p in select_previous_runs(tx, "sales", runs[1:2], []).items()} == {runs[1]: {}}
