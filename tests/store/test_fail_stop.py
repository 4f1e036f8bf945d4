from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from planted import look, plant_run, plant_running, plant_task_instance, waits_for_a_lock
from sqlalchemy import Engine, update

from backfill.models import task_instance
from backfill.states import TRANSITIONS, TaskInstanceState
from backfill.store.attempts import Stopped, stop_run_after_failure

S = TaskInstanceState
#: What each state becomes (S3.19).
BECOMES = {source: row.targets for row in TRANSITIONS if row.rule == "S3.19" for source in row.sources}


@pytest.mark.parametrize("state", S)
def test_the_rest_of_the_run_is_skipped_and_what_runs_fails(engine: Engine, state: TaskInstanceState) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx), state=state, next_attempt_at=None, error="old")
        before = look(tx, planted)
        stopped = stop_run_after_failure(tx, before["dag_run_id"], spared_task_ids=["extract"], error="stopped")
        row = look(tx, planted)
    if state not in BECOMES:
        assert (stopped, row) == ([], before)
        return
    assert BECOMES[state] == {row["state"]}
    if state == S.RUNNING:
        assert stopped == [Stopped(planted.id, "failed", planted.attempt_id)]
        assert (row["state"], row["error"], row["try_open"]) == ("failed", "stopped", False)
        assert row["start_date"] == before["start_date"] < row["end_date"]
        assert row["duration"] == pytest.approx((row["end_date"] - row["start_date"]).total_seconds())
        attempt = row["attempts"][planted.attempt_id]
        assert (attempt["outcome"], attempt["error"], attempt["end_date"]) == ("failed", "stopped", row["end_date"])
    else:
        assert stopped == [Stopped(planted.id, "skipped", None)]
        assert (row["state"], row["error"], row["try_open"]) == ("skipped", "old", False)
        assert (row["start_date"], row["duration"]) == (row["end_date"], 0)
        assert row["attempts"] == before["attempts"]


def test_the_failed_task_the_teardowns_and_other_runs_are_spared(engine: Engine) -> None:
    with engine.begin() as tx:
        run, other_run = plant_run(tx), plant_run(tx, day=1)
        indexes = [plant_task_instance(tx, run, "load", state="none", map_index=n) for n in range(2)]
        teardown = plant_task_instance(tx, run, "clean_up", state="none")
        elsewhere = plant_task_instance(tx, other_run, "report", state="none")
        hit = plant_task_instance(tx, run, "report", state="none")
        stopped = stop_run_after_failure(tx, run, spared_task_ids=["load", "clean_up"], error="stopped")
        assert [one.task_instance_id for one in stopped] == [hit.id]
        assert {look(tx, one)["state"] for one in (*indexes, teardown, elsewhere)} == {"none"}


def test_a_date_to_wait_for_is_dropped(engine: Engine) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        planted = plant_running(tx, run, state="up_for_retry")
        tx.execute(update(task_instance).values(next_attempt_at=task_instance.c.start_date))
        stop_run_after_failure(tx, run, spared_task_ids=[], error="stopped")
        assert look(tx, planted)["next_attempt_at"] is None


@pytest.mark.parametrize(("became", "ends"), [("running", "failed"), ("success", "success"), ("none", "skipped")])
def test_it_judges_a_row_as_it_is_when_its_lock_is_free(
    engine: Engine, wait_until: Callable[..., None], became: str, ends: str
) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        planted = plant_running(tx, run, state="queued")

    def elsewhere() -> list[Stopped]:
        with engine.begin() as tx:
            return stop_run_after_failure(tx, run, spared_task_ids=[], error="stopped")

    with ThreadPoolExecutor(1) as threads, engine.connect() as worker:
        worker.execute(update(task_instance).values(state=became))
        done = threads.submit(elsewhere)
        wait_until(lambda: waits_for_a_lock(engine), "the stop waits for the worker")
        worker.commit()
        done.result(timeout=30)
    with engine.begin() as tx:
        assert look(tx, planted)["state"] == ends
