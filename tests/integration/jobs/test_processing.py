"""`_process_backfill_task_instances`: what dependencies decide is settled, what is ready is queued and sent (S4, S5, S7)."""

import pytest
from playhouse import dag_of
from sqlalchemy.orm import Session

from backfill.executors import Unsent
from backfill.store import pools
from backfill.telemetry import Dispatched


def started(house, dag, days=1, **request):
    at_work = house.at_work(dag, days, **request)
    at_work.admit()
    return at_work


def test_ready_ones_are_queued_under_fresh_attempt_ids_and_sent(house):
    at_work = started(house, dag_of("a", "b < a", "c"))
    at_work.process()
    assert house.states() == {"a1": "queued", "b1": "none", "c1": "queued"}
    sent = {each.attempt.attempt_id for each in at_work.executor.taken}
    assert set(house.rows("external_executor_id", state="queued")) == sent
    assert len(sent) == 2
    assert {key.task_id for key in at_work.ti_status.running} == {"a", "c"}
    assert (
        house.rows("try_number", "try_open", "queued_by_job_id", "executor", state="queued")
        == [(1, True, at_work.job.id, "silent")] * 2
    )
    assert [len(event.keys) for event in house.events if isinstance(event, Dispatched)] == [2]


def test_the_next_one_goes_when_the_one_before_it_is_done(house):
    at_work = started(house, dag_of("a", "b < a"))
    at_work.process()
    house.set_rows(at_work.running("a").facts.id, state="success", try_open=False)
    at_work.job._update_counters(at_work.ti_status)
    at_work.process()
    assert at_work.executor.order() == ["a1", "b1"]


def test_two_dates_and_levels_go_by_level_and_then_by_date(house):
    at_work = started(house, dag_of("a", "b < a", "c < b"), days=2)
    for _ in range(3):
        at_work.process()
        house.set_rows([ti.facts.id for ti in at_work.ti_status.running.values()], state="success", try_open=False)
        at_work.job._update_counters(at_work.ti_status)
    assert at_work.executor.order() == ["a1", "a2", "b1", "b2", "c1", "c2"]


def test_backwards_the_last_date_goes_first(house):
    at_work = started(house, dag_of("a"), days=3, run_backwards=True)
    at_work.process()
    assert at_work.executor.order() == ["a3", "a2", "a1"]


def test_the_more_urgent_goes_first_whatever_its_date(house):
    dag = dag_of("low", "high", arguments={"high": {"priority_weight": 10}}, max_active_tasks=3)
    at_work = started(house, dag, days=2)
    at_work.process()
    assert at_work.executor.order() == ["high1", "high2", "low1"]


def test_what_finds_no_place_is_scheduled_and_holds_nothing_else_back(house):
    with house.engine.begin() as tx:
        pools.set_pool(tx, "small", 2)
    tasks = {"big": {"pool": "small", "pool_slots": 2}, "one": {"pool": "small"}, "free": {}}
    dag = dag_of("one", "big", "free", arguments={**tasks, "one": {"pool": "small", "priority_weight": 5}})
    at_work = started(house, dag)
    at_work.process()
    assert house.states() == {"one1": "queued", "big1": "scheduled", "free1": "queued"}


@pytest.mark.parametrize(
    ("arguments", "given", "in_flight"),
    [
        ({}, {"max_active_tasks": 2}, 2),
        ({"max_active_tis_per_dag": 3}, {}, 3),
        ({"max_active_tis_per_dagrun": 1}, {}, 4),
        ({"pool": "four", "pool_slots": 3}, {}, 1),
        ({"pool": "closed"}, {}, 0),
        ({"pool": "endless", "pool_slots": 50}, {}, 4),
    ],
)
def test_no_limit_is_exceeded(house, arguments, given, in_flight):
    with house.engine.begin() as tx:
        for name, slots in {"four": 4, "closed": 0, "endless": -1}.items():
            pools.set_pool(tx, name, slots)
    at_work = started(house, dag_of("a", arguments={"a": arguments}, **given), days=4)
    at_work.process()
    assert len(at_work.executor.taken) == in_flight
    assert house.rows("state").count("scheduled") == 4 - in_flight


def test_what_the_broker_could_not_take_is_taken_back_at_no_cost_and_sent_later(house):
    at_work = started(house, dag_of("a"))
    at_work.executor.refuses = lambda queued: Unsent(queued.attempt.attempt_id, "no route", broker_away=True)
    at_work.process()
    assert house.rows("state", "try_number", "external_executor_id", "infrastructure_failures") == [
        ("none", 1, None, 0)
    ]
    at_work.executor.refuses = lambda queued: None
    at_work.job.course.rhythm.broker_answered()
    at_work.process()
    assert house.rows("state", "try_number") == [("queued", 1)]


def test_what_an_executor_rejects_is_an_infrastructure_failure(house):
    at_work = started(house, dag_of("a"))
    at_work.executor.refuses = lambda queued: Unsent(queued.attempt.attempt_id, "too large", broker_away=False)
    at_work.process()
    ((state, lost, error),) = house.rows("state", "infrastructure_failures", "error")
    assert (state, lost) == ("none", 1)
    assert "too large" in error


def test_the_pool_of_the_job_stands_in_the_row_and_counts(house):
    with house.engine.begin() as tx:
        pools.set_pool(tx, "mine", 1)
    at_work = started(house, dag_of("a", "b"), pool="mine")
    at_work.process()
    assert house.rows("pool") == ["mine", "mine"]
    assert sorted(house.rows("state")) == ["queued", "scheduled"]


def test_nothing_is_sent_while_the_job_is_paused(house):
    at_work = started(house, dag_of("a"))
    at_work.lease.control = at_work.lease.control._replace(state="paused")
    at_work.process()
    assert at_work.executor.taken == []


def test_an_edit_from_outside_wins_over_a_decision(house):
    at_work = started(house, dag_of("a", "b < a"))
    house.set_rows(house.rows("id", task_id="a"), state="success")  # by hand, before it was sent
    at_work.process()
    assert at_work.executor.taken == []
    at_work.process()
    assert at_work.executor.order() == ["b1"]


def test_a_session_of_the_caller_takes_the_writes(house):
    at_work = started(house, dag_of("a"))
    with Session(house.engine) as session:
        at_work.job._process_backfill_task_instances(at_work.ti_status, at_work.executor, None, None, session)
    assert house.states() == {"a1": "queued"}
