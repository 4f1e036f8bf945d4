from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from planted import (
    DAY,
    FIRST_DATE,
    look,
    plant_run,
    plant_running,
    plant_task_instance,
    plant_xcom,
    statements,
    waits_for_a_lock,
)
from sqlalchemy import Engine, update

from backfill.exceptions import UsageError
from backfill.models import task_instance
from backfill.states import TaskInstanceState
from backfill.store.values import encode
from backfill.store.xcoms import XCom, pull, pull_latest, push_if_current


@pytest.mark.parametrize("state", TaskInstanceState)
def test_only_the_running_attempt_can_push(engine: Engine, state: TaskInstanceState) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx), state=state)
        pushed = push_if_current(tx, planted.attempt_id, "k", 1)
        assert pushed == (state == TaskInstanceState.RUNNING)
        assert look(tx, planted)["xcoms"] == ({"k": 1} if pushed else {})


@pytest.mark.parametrize("current", [str(uuid4()), None], ids=["another attempt", "none"])
def test_an_attempt_that_is_not_current_cannot_push(engine: Engine, current: str | None) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx))
        tx.execute(update(task_instance).values(external_executor_id=current))
        assert not push_if_current(tx, planted.attempt_id, "k", 1)
        assert not push_if_current(tx, str(uuid4()), "k", 1)
        assert look(tx, planted)["xcoms"] == {}


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1.5, 2**70, "", "zażółć 🎈", [], [1, [None]], {}, {"a": {"b": [1]}}, "\\u0000", encode("x", [1])],
)
def test_json_comes_back_as_it_went_in_and_replaces_what_was_there(engine: Engine, value: object) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx))
        assert push_if_current(tx, planted.attempt_id, "k", "before")
        with statements(engine) as seen:
            assert push_if_current(tx, planted.attempt_id, "k", value)
        assert len(seen) == 1
        (found,) = pull(tx, dag_run_id=look(tx, planted)["dag_run_id"], task_ids=["load"], key="k")
    assert found == XCom("load", -1, [1] if type(value) is not str and isinstance(value, str) else value)


@pytest.mark.parametrize(("key", "value"), [("k", {1}), ("k", "\x00"), ("a\x00b", 1), ("\ud800", 1)])
def test_what_cannot_be_kept_is_refused_with_its_name(engine: Engine, key: str, value: object) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx))
        with pytest.raises(UsageError, match="XCom"):
            push_if_current(tx, planted.attempt_id, key, value)


def test_a_push_holds_off_a_fence_until_it_is_committed(engine: Engine, wait_until: Callable[..., None]) -> None:
    with engine.begin() as tx:
        planted = plant_running(tx, plant_run(tx))

    def fence() -> None:
        with engine.begin() as tx:
            tx.execute(update(task_instance).values(external_executor_id=None, state="none"))

    with ThreadPoolExecutor(1) as threads, engine.connect() as worker:
        assert push_if_current(worker, planted.attempt_id, "k", 1)
        done = threads.submit(fence)
        wait_until(lambda: waits_for_a_lock(engine), "the fence waits for the push")
        worker.commit()
        done.result(timeout=30)


def _values(found: list[XCom]) -> list[tuple[Any, ...]]:
    return [tuple(one) for one in found]


def test_a_pull_follows_the_order_of_tasks_and_of_indexes(engine: Engine) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        for index in (2, 10, 0):
            mapped = plant_task_instance(tx, run, "mapped", map_index=index)
            plant_xcom(tx, mapped, "return_value", index)
        plain = plant_task_instance(tx, run, "a")
        plant_xcom(tx, plain, "return_value", None)
        plant_xcom(tx, plain, "other", 1)
        plant_task_instance(tx, run, "silent")
        everything = [("mapped", 0, 0), ("mapped", 2, 2), ("mapped", 10, 10), ("a", -1, None)]
        assert _values(pull(tx, dag_run_id=run, task_ids=["mapped", "silent", "a", "nobody"])) == everything
        assert _values(pull(tx, dag_run_id=run, task_ids=["a", "mapped"])) == [everything[3], *everything[:3]]
        assert _values(pull(tx, dag_run_id=run, task_ids=None)) == [everything[3], *everything[:3]]
        assert _values(pull(tx, dag_run_id=run, task_ids=["mapped"], map_indexes=[10, 2, 77])) == everything[1:3]
        assert _values(pull(tx, dag_run_id=run, task_ids=["a"], key="other")) == [("a", -1, 1)]
        assert pull(tx, dag_run_id=run, task_ids=[]) == []
        assert pull(tx, dag_run_id=run + 1, task_ids=None) == []


def test_a_removed_index_is_not_pulled(engine: Engine) -> None:
    with engine.begin() as tx:
        run = plant_run(tx)
        plant_xcom(tx, plant_task_instance(tx, run, state="removed"), "return_value", 1)
        assert pull(tx, dag_run_id=run, task_ids=["load"]) == []
        assert pull_latest(tx, dag_id="sales", until=FIRST_DATE, task_ids=["load"]) == []


def test_the_latest_values_of_a_task_are_those_of_one_run(engine: Engine) -> None:
    with engine.begin() as tx:
        for day, length in ((0, 3), (1, 2), (2, 0), (3, 5)):
            run = plant_run(tx, day)
            for index in range(length):
                plant_xcom(tx, plant_task_instance(tx, run, "mapped", map_index=index), "return_value", [day, index])
            if day == 0:
                plant_xcom(tx, plant_task_instance(tx, run, "once"), "return_value", "old")
        elsewhere = plant_run(tx, 2, dag_id="other")
        plant_xcom(tx, plant_task_instance(tx, elsewhere, "once"), "return_value", "elsewhere")

        def latest(**values: Any) -> list[tuple[Any, ...]]:
            until = FIRST_DATE + 2 * DAY
            return _values(pull_latest(tx, dag_id="sales", until=until, **values))

        assert latest(task_ids=["once", "mapped"]) == [
            ("once", -1, "old"),
            ("mapped", 0, [1, 0]),
            ("mapped", 1, [1, 1]),
        ]
        assert latest(task_ids=["mapped"], map_indexes=[2]) == [("mapped", 2, [0, 2])]
        assert latest(task_ids=["mapped"], key="other") == []
