from __future__ import annotations

from datetime import timedelta

from planted import DAY, FIRST_DATE, plant_run, plant_task_instance
from sqlalchemy import Engine

from backfill.store.context import PreviousSuccess, count_expanded, find_run, select_previous_success


def test_the_previous_success_is_the_latest_earlier_one_of_the_dag(engine: Engine) -> None:
    with engine.begin() as tx:
        for day, state in enumerate(["success", "success", "failed", "running", "success"]):
            plant_run(tx, day, state=state)
        plant_run(tx, 2, dag_id="other", state="success")
        date = FIRST_DATE + DAY
        found = select_previous_success(tx, "sales", FIRST_DATE + 4 * DAY)
        assert found == PreviousSuccess(date, date, date + DAY, date + timedelta(hours=30), None)
        assert select_previous_success(tx, "sales", FIRST_DATE) is None


def test_expanded_indexes_are_counted_without_removed_ones(engine: Engine) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        plant_task_instance(tx, run, "mapped", map_index=-1)
        assert count_expanded(tx, run, "mapped") == 0
        for index, state in enumerate(["success", "none", "removed"]):
            plant_task_instance(tx, run, "mapped", map_index=index, state=state)
        plant_task_instance(tx, run, "other", map_index=0)
        assert count_expanded(tx, run, "mapped") == 2


def test_a_run_is_found_by_its_id_or_its_date(engine: Engine) -> None:
    with engine.begin() as tx:
        first, second = plant_run(tx), plant_run(tx, 1)
        plant_run(tx, 1, dag_id="other")
        assert find_run(tx, "sales", run_id="backfill__2024-01-01T00:00:00+00:00") == first
        assert find_run(tx, "sales", logical_date=FIRST_DATE + DAY) == second
        assert find_run(tx, "sales", run_id="nobody", logical_date=FIRST_DATE) is None
        assert find_run(tx, "sales", logical_date=FIRST_DATE + 2 * DAY) is None
        assert find_run(tx, "sales") is None
