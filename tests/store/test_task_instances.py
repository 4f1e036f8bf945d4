"""Task instances as the coordinator reads, settles and queues them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from planted import (
    look,
    plant_attempt,
    plant_job,
    plant_run,
    plant_running,
    plant_task_instance,
    plant_xcom,
    statements,
)
from sqlalchemy import Connection, Engine, insert, select, text
from sqlalchemy.orm import Session

from backfill.facts import TaskInstanceFacts
from backfill.models import dag, slot_pool
from backfill.states import TaskInstanceState
from backfill.store.recovery import reset_orphans
from backfill.store.task_instances import (
    OccupancyRow,
    QueueRequest,
    lock_limits,
    queue_if_idle,
    schedule_if_idle,
    select_facts,
    select_facts_of_runs,
    select_occupancy,
    settle_if_idle,
    take_back_if_queued,
    unschedule_if_scheduled,
)

SOON = datetime(2030, 1, 1, tzinfo=UTC)


def request(ti_id: int, pool: str = "default_pool", executor: str = "celery") -> QueueRequest:
    return QueueRequest(ti_id, str(uuid4()), pool, executor)


# -- reading ------------------------------------------------------------------------------------------------------------


def test_a_row_is_read_as_facts(tx: Connection) -> None:
    run_id = plant_run(tx)
    row = plant_task_instance(
        tx,
        run_id,
        "branch",
        map_index=4,
        state="up_for_retry",
        try_number=2,
        max_tries=3,
        try_open=False,
        next_attempt_at=SOON,
        infrastructure_failures=1,
        skips=["left", "right"],
    )
    assert select_facts(tx, [row.id]) == [
        TaskInstanceFacts(
            id=row.id,
            dag_run_id=run_id,
            task_id="branch",
            map_index=4,
            state="up_for_retry",
            try_number=2,
            max_tries=3,
            try_open=False,
            attempt_id=row.attempt_id,
            next_attempt_at=SOON,
            infrastructure_failures=1,
            skips=("left", "right"),
        )
    ]
    assert isinstance(select_facts(tx, [row.id])[0].attempt_id, str)


@pytest.mark.parametrize(("stored", "read"), [(None, None), ([], ()), (["a"], ("a",))])
def test_no_decision_is_told_from_the_decision_to_skip_nothing(tx: Connection, stored: Any, read: Any) -> None:
    row = plant_task_instance(tx, plant_run(tx), skips=stored)
    assert [facts.skips for facts in select_facts(tx, [row.id])] == [read]


def test_rows_are_read_by_id_or_run_by_run(tx: Connection) -> None:
    first, second, third = plant_run(tx, 0), plant_run(tx, 1), plant_run(tx, 2)
    rows = [plant_task_instance(tx, run, name, state="removed") for run in (second, first, third) for name in "ab"]
    assert [f.id for f in select_facts(tx, [rows[1].id, rows[0].id, 0])] == [rows[0].id, rows[1].id]
    assert [f.id for f in select_facts_of_runs(tx, [second, first])] == [rows[i].id for i in (2, 3, 0, 1)]
    assert select_facts(tx, []) == select_facts_of_runs(tx, []) == []


def test_a_session_serves_as_well_as_a_connection(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        job_id = plant_job(session.connection())
        run_id = plant_run(session.connection(), job_id=job_id)
        row = plant_task_instance(session.connection(), run_id, state="none")
        assert [facts.id for facts in queue_if_idle(session, job_id, [request(row.id)])] == [row.id]
        assert [facts.state for facts in select_facts(session, [row.id])] == ["queued"]
        assert reset_orphans(session, job_id, timedelta(seconds=30), held=[]) == 1


# -- limits -------------------------------------------------------------------------------------------------------------


def test_the_sizes_of_pools_are_read_under_the_lock(tx: Connection) -> None:
    tx.execute(insert(slot_pool).values([{"pool": "wide", "slots": -1}, {"pool": "closed", "slots": 0}]))
    pools = ["wide", "closed", "default_pool", "gone", "wide"]
    assert lock_limits(tx, ["sales"], pools) == {"wide": -1, "closed": 0, "default_pool": 128}
    assert lock_limits(tx, [], []) == {}


def test_a_dag_that_has_no_row_to_lock_gets_one(tx: Connection) -> None:
    tx.execute(insert(dag).values(dag_id="b", fileloc="b.py"))
    lock_limits(tx, ["a", "b", "a"], [])
    assert tx.execute(select(dag.c.dag_id, dag.c.fileloc).order_by(dag.c.dag_id)).all() == [("a", None), ("b", "b.py")]


def test_occupancy_is_what_is_in_flight_in_the_dags_or_in_the_pools(tx: Connection) -> None:
    mine, other = plant_run(tx, 0), plant_run(tx, 0, dag_id="other")
    for map_index, state in enumerate(TaskInstanceState):
        plant_task_instance(tx, mine, "mapped", map_index=map_index, state=state, pool_slots=3, queued_by_job_id=7)
    plant_task_instance(tx, mine, "elsewhere", pool="hers")
    plant_task_instance(tx, other, "here")
    plant_task_instance(tx, other, "neither", pool="hers")
    expected = {
        OccupancyRow("default_pool", "sales", "mapped", mine, 2, 6, 7),
        OccupancyRow("hers", "sales", "elsewhere", mine, 1, 1, None),
        OccupancyRow("default_pool", "other", "here", other, 1, 1, None),
    }
    assert set(select_occupancy(tx, ["sales"], ["default_pool"])) == expected
    assert select_occupancy(tx, [], []) == []


def test_a_subdag_takes_no_place_of_its_own(tx: Connection) -> None:
    run_id = plant_run(tx)
    plant_task_instance(tx, run_id, "sub", state="running", operator="SubDagOperator", external_executor_id=None)
    plant_task_instance(tx, run_id, "by hand", state="running", external_executor_id=None)
    assert [row.task_id for row in select_occupancy(tx, ["sales"], [])] == ["by hand"]


# -- dispatch -----------------------------------------------------------------------------------------------------------


def test_a_place_is_taken_with_all_that_dispatch_writes(tx: Connection) -> None:
    job_id = plant_job(tx)
    run_id = plant_run(tx, job_id=job_id)
    row = plant_task_instance(
        tx,
        run_id,
        state="up_for_retry",
        try_open=False,
        next_attempt_at=SOON,
        hostname="h",
        pid=1,
        heartbeat_at=SOON,
        skips=["x"],
        error="the last one",
    )
    asked = request(row.id, "other_pool", "local")
    [facts] = queue_if_idle(tx, job_id, [asked])
    now = look(tx, row)
    assert facts == select_facts(tx, [row.id])[0]
    assert (facts.state, facts.attempt_id, facts.try_number, facts.try_open) == ("queued", asked.attempt_id, 2, True)
    assert (now["pool"], now["executor"], now["queued_by_job_id"]) == ("other_pool", "local", job_id)
    assert (now["next_attempt_at"], now["hostname"], now["pid"], now["heartbeat_at"]) == (None, None, None, None)
    assert now["queued_at"] is not None
    assert now["error"] == "the last one"


def test_an_open_try_goes_on_and_a_closed_one_is_followed_by_the_next(tx: Connection) -> None:
    job_id = plant_job(tx)
    run_id = plant_run(tx, job_id=job_id)
    opened = plant_task_instance(tx, run_id, "open", state="up_for_reschedule", try_number=3, try_open=True)
    fresh = plant_task_instance(tx, run_id, "fresh", state="none", try_number=0, try_open=False)
    queued = queue_if_idle(tx, job_id, [request(opened.id), request(fresh.id)])
    assert {facts.task_id: facts.try_number for facts in queued} == {"open": 3, "fresh": 1}


def test_what_waits_is_scheduled_beside_what_is_queued_also_when_nothing_can_be_queued(tx: Connection) -> None:
    job_id = plant_job(tx)
    run_id = plant_run(tx, job_id=job_id)
    goes, *waits = [plant_task_instance(tx, run_id, name, state="none") for name in ("goes", "waits", "done")]
    settle_if_idle(tx, [(waits[1].id, TaskInstanceState.SUCCESS)])
    changed = queue_if_idle(tx, job_id, [request(goes.id)], waiting=[row.id for row in waits])
    assert {facts.task_id: facts.state for facts in changed} == {"goes": "queued", "waits": "scheduled"}
    late = plant_task_instance(tx, run_id, "late", state="up_for_retry")
    changed = queue_if_idle(tx, job_id, [request(goes.id)], waiting=[late.id])
    assert {facts.task_id: facts.state for facts in changed} == {"late": "scheduled"}


def test_a_try_stays_open_until_an_attempt_ends_it(tx: Connection) -> None:
    job_id = plant_job(tx)
    row = plant_task_instance(tx, plant_run(tx, job_id=job_id), state="none", try_number=0, try_open=False)
    for _ in range(2):
        asked = request(row.id)
        assert [f.try_number for f in queue_if_idle(tx, job_id, [asked])] == [1]
        assert take_back_if_queued(tx, [(row.id, asked.attempt_id)]) == {row.id}
        assert [(f.state, f.attempt_id, f.try_open) for f in select_facts(tx, [row.id])] == [("none", None, True)]
    schedule_if_idle(tx, [row.id])
    unschedule_if_scheduled(tx, [row.id])
    assert settle_if_idle(tx, [(row.id, TaskInstanceState.SUCCESS)]) == {row.id}
    assert [(f.try_number, f.try_open) for f in select_facts(tx, [row.id])] == [(1, False)]


@pytest.mark.parametrize("state", ["queued", "paused", "success", "failed", "deadlocked", "cancelled"])
def test_a_job_that_is_not_running_queues_nothing(tx: Connection, state: str) -> None:
    job_id = plant_job(tx, state=state)
    row = plant_task_instance(tx, plant_run(tx, job_id=job_id), state="none")
    assert queue_if_idle(tx, job_id, [request(row.id)]) == []


def test_nothing_is_queued_in_runs_that_are_not_running_under_the_job(tx: Connection) -> None:
    job_id, other = plant_job(tx), plant_job(tx)
    runs = [
        plant_run(tx, 0, job_id=job_id),
        plant_run(tx, 1, job_id=job_id, state="failed"),
        plant_run(tx, 2, job_id=job_id, state="queued"),
        plant_run(tx, 3, job_id=other),
        plant_run(tx, 4),
    ]
    rows = [plant_task_instance(tx, run, state="scheduled") for run in runs]
    assert [f.id for f in queue_if_idle(tx, job_id, [request(row.id) for row in rows])] == [rows[0].id]


def test_a_thousand_places_are_taken_in_one_statement(engine: Engine) -> None:
    with engine.begin() as tx:
        job_id = plant_job(tx)
        run_ids = [plant_run(tx, day, job_id=job_id) for day in range(10)]
        tx.execute(
            text(
                "insert into task_instance (dag_run_id, dag_id, run_id, task_id, pool, queue) "
                "select r.id, r.dag_id, r.run_id, 't' || i, 'default_pool', 'q' from dag_run r, generate_series(1, 100) i"
            )
        )
        ids = [facts.id for facts in select_facts_of_runs(tx, run_ids)]
        asked = {ti_id: request(ti_id) for ti_id in reversed(ids)}
        with statements(engine) as seen:
            queued = queue_if_idle(tx, job_id, asked.values())
        assert len(seen) == 1
    assert {facts.id: facts.attempt_id for facts in queued} == {i: asked[i].attempt_id for i in ids}


# -- what dependencies decide -------------------------------------------------------------------------------------------


def test_settling_writes_start_and_end_as_now(tx: Connection) -> None:
    row = plant_running(
        tx, plant_run(tx), state="up_for_retry", skips=["a"], error="of old", next_attempt_at=SOON, hostname="h"
    )
    settle_if_idle(tx, [(row.id, TaskInstanceState.SKIPPED)])
    now = look(tx, row)
    assert now["start_date"] == now["end_date"] > datetime.now(UTC) - timedelta(minutes=1)
    assert (now["state"], now["duration"], now["try_number"], now["try_open"]) == ("skipped", 0, 1, False)
    assert (now["external_executor_id"], now["skips"], now["next_attempt_at"], now["hostname"]) == (
        None,
        None,
        None,
        None,
    )
    assert now["error"] == "of old"


def test_each_gets_its_own_state_and_text(tx: Connection) -> None:
    run_id = plant_run(tx)
    rows = [plant_task_instance(tx, run_id, name, state="none", try_number=0, try_open=False) for name in "abcd"]
    decisions = [
        (rows[0].id, TaskInstanceState.SUCCESS),
        (rows[2].id, TaskInstanceState.UPSTREAM_FAILED),
        (rows[1].id, TaskInstanceState.SKIPPED),
    ]
    assert settle_if_idle(tx, decisions, errors={rows[2].id: "no \x00 source"}) == {row.id for row in rows[:3]}
    found = [look(tx, row) for row in rows]
    assert [(f["state"], f["try_number"], f["error"]) for f in found] == [
        ("success", 1, None),
        ("skipped", 0, None),
        ("upstream_failed", 0, "no � source"),
        ("none", 0, None),
    ]


def test_what_did_not_run_has_returned_nothing(tx: Connection) -> None:
    run_id = plant_run(tx)
    decisions = (TaskInstanceState.SUCCESS, TaskInstanceState.SKIPPED, TaskInstanceState.UPSTREAM_FAILED)
    rows = {state: plant_task_instance(tx, run_id, state, state="none") for state in decisions}
    for row in rows.values():
        plant_xcom(tx, row, "return_value", [1])
    settle_if_idle(tx, [(row.id, state) for state, row in rows.items()])
    assert [len(look(tx, rows[state])["xcoms"]) for state in decisions] == [1, 0, 0]


def test_a_history_is_left_alone_by_what_runs_nothing(tx: Connection) -> None:
    row = plant_task_instance(tx, plant_run(tx), state="none")
    plant_attempt(tx, row)
    before = look(tx, row)["attempts"]
    settle_if_idle(tx, [(row.id, TaskInstanceState.SUCCESS)])
    assert look(tx, row)["attempts"] == before
