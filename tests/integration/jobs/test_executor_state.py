"""`_manage_executor_state` holds what executors report against the rows (S8.1 to S8.4)."""

import logging
from datetime import UTC, datetime, timedelta

import pytest
from playhouse import dag_of

from backfill.states import TaskInstanceState

S = TaskInstanceState
LONG_AGO, GIVEN_UP = datetime(2020, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)
OTHER = "22222222-2222-4222-8222-222222222222"


@pytest.fixture
def at_work(house):
    """A job whose root a has succeeded and whose inner task b is queued."""
    at_work = house.at_work(dag_of("a", "b < a", arguments={"a": {"retries": 1}, "b": {"retries": 1}}))
    at_work.admit()
    at_work.process()
    return at_work


def make_inner_task_queued(house, at_work):
    house.set_rows(at_work.running("a").facts.id, state="success", try_open=False)
    at_work.job._update_counters(at_work.ti_status)
    at_work.process()


def reported(at_work, ti):
    """What `_manage_executor_state` says of `ti`."""
    rows = at_work.job._manage_executor_state(at_work.ti_status.running)
    return [row for row in rows if row.id == ti.facts.id]


@pytest.mark.parametrize("said", [S.FAILED, S.SUCCESS])
@pytest.mark.parametrize("row_says", ["queued", "running"])
@pytest.mark.parametrize("task_id", ["a", "b"])
def test_what_is_over_for_the_executor_but_not_by_its_row_is_tried_again_at_a_root_and_at_an_inner_task(
    house, at_work, task_id, row_says, said
):
    if task_id == "b":
        make_inner_task_queued(house, at_work)
    ti = at_work.running(task_id)
    house.set_rows(ti.facts.id, state=row_says, hostname="host-7")
    at_work.report(ti, said, info="exit code 1")
    (row,) = reported(at_work, ti)
    assert (row.state, row.try_open, row.try_number) == ("up_for_retry", False, 1)
    (error,) = house.rows("error", id=ti.facts.id)
    for part in (f"d.{task_id}", ti.key.run_id, "try 1", f"as {said}", f"says {row_says}", "exit code 1"):
        assert part in error
    assert ("host-7" in error) == (row_says == "running")


def test_the_last_try_fails_for_good(house, at_work):
    ti = at_work.running("a")
    house.set_rows(ti.facts.id, state="running", try_number=2)
    at_work.report(ti, S.FAILED)
    (row,) = reported(at_work, ti)
    assert row.state == "failed"


@pytest.mark.parametrize("state", sorted(set(S) - {S.QUEUED, S.RUNNING}))
@pytest.mark.parametrize("said", [S.FAILED, S.SUCCESS])
def test_a_row_that_is_no_longer_in_flight_decides(house, at_work, state, said):
    ti = at_work.running("a")
    house.set_rows(ti.facts.id, state=state)
    at_work.report(ti, said)
    (row,) = reported(at_work, ti)
    assert (row.state, house.rows("error", id=ti.facts.id)) == (state, [None])


def test_an_event_of_another_attempt_changes_nothing_and_costs_no_query(house, at_work, caplog):
    ti = at_work.running("a")
    at_work.report(ti, S.FAILED, attempt_id=OTHER)
    with caplog.at_level(logging.DEBUG, logger="backfill.jobs.reconcile"):
        assert reported(at_work, ti) == []
    assert house.rows("state", task_id="a") == ["queued"]
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]


def test_an_event_of_an_attempt_that_the_row_has_no_longer_is_stale(house, at_work):
    ti = at_work.running("a")
    house.set_rows(ti.facts.id, state="running", external_executor_id=OTHER)
    at_work.report(ti, S.FAILED)
    (row,) = reported(at_work, ti)
    assert (row.state, row.attempt_id) == ("running", OTHER)


@pytest.mark.parametrize("said", [S.QUEUED, S.RUNNING])
def test_events_of_what_is_not_over_only_inform(house, at_work, said):
    ti = at_work.running("a")
    at_work.report(ti, said)
    assert [row.state for row in reported(at_work, ti)] in ([], ["queued"])
    assert house.rows("state", task_id="a") == ["queued"]


def test_an_event_that_comes_before_the_commit_of_its_row_harms_nothing(house, at_work):
    ti = at_work.running("a")
    with house.engine.connect() as worker:
        worker.begin()
        at_work.report(ti, S.SUCCESS)  # the worker speaks up before its row is written
        (row,) = reported(at_work, ti)
        worker.rollback()
    assert row.state == "up_for_retry"  # as the row stood: the attempt is fenced out and the task tried again
    assert house.rows("try_open", task_id="a") == [False]


def test_a_lost_attempt_goes_back_to_none_with_its_try_open(house, at_work):
    ti = at_work.running("a")
    house.set_rows(ti.facts.id, state="running")
    at_work.report(ti, S.FAILED, infrastructure=True, info="the worker died")
    (row,) = reported(at_work, ti)
    assert (row.state, row.attempt_id, row.try_open, row.infrastructure_failures) == ("none", None, True, 1)


def test_a_lost_attempt_beyond_the_budget_is_an_ordinary_failure(house, at_work):
    ti = at_work.running("a")
    house.set_rows(ti.facts.id, state="running", infrastructure_failures=3)
    at_work.report(ti, S.FAILED, infrastructure=True)
    (row,) = reported(at_work, ti)
    assert (row.state, row.infrastructure_failures) == ("up_for_retry", 3)


def test_what_was_lost_in_company_costs_nothing_also_beyond_the_budget_and_travels_alone_from_then_on(house, at_work):
    ti = at_work.running("a")
    house.set_rows(ti.facts.id, state="running", infrastructure_failures=3)
    at_work.report(ti, S.FAILED, infrastructure=True, alone=True)
    (row,) = reported(at_work, ti)
    assert (row.state, row.attempt_id, row.infrastructure_failures) == ("none", None, 3)
    assert at_work.job.course.travels_alone(row)


def test_what_was_given_back_by_a_process_that_died_travels_alone(house, at_work):
    ti = at_work.running("a")
    house.set_rows(ti.facts.id, state="none", external_executor_id=None)
    at_work.report(ti, S.NONE, alone=True)
    at_work.job._manage_executor_state(at_work.ti_status.running)
    at_work.job._update_counters(at_work.ti_status)
    taken_before = len(at_work.executor.taken)
    at_work.process()
    again = at_work.executor.taken[taken_before:]
    assert [(each.attempt.task_instance_id, each.alone) for each in again] == [(ti.facts.id, True)]


def test_what_was_lost_before_travels_alone_whoever_drives_the_job_now(house, at_work):
    ti = at_work.running("a")
    assert not at_work.job.course.travels_alone(ti.facts)
    assert at_work.job.course.travels_alone(ti.facts._replace(infrastructure_failures=1))


# -- zombies ------------------------------------------------------------------------------------------------------------


def swept(house, *processes):
    """The infrastructure failures of as many zombies, each of the process (host, pid) given, after a sweep."""
    tasks = [f"t{number}" for number in range(len(processes))]
    at_work = house.at_work(dag_of(*tasks))
    at_work.admit()
    at_work.process()
    for task_id, (hostname, pid, *rest) in zip(tasks, processes, strict=True):
        heartbeat_at = rest[0] if rest else LONG_AGO
        ti_id = at_work.running(task_id).facts.id
        house.set_rows(ti_id, state="running", hostname=hostname, pid=pid, heartbeat_at=heartbeat_at)
    at_work.job.course.rhythm._sweep_at = 0.0
    at_work.job._manage_executor_state(at_work.ti_status.running)
    at_work.job._manage_executor_state(at_work.ti_status.running)
    rows = [house.rows("state", "infrastructure_failures", task_id=task_id)[0] for task_id in tasks]
    assert {row[0] for row in rows} == {"none"}
    return [row[1] for row in rows]


def test_of_several_attempts_that_one_process_held_when_it_was_lost_none_is_charged(house):
    assert swept(house, ("h", 1), ("h", 1), ("h", 2), ("other", 1)) == [0, 0, 1, 1]


def test_the_last_that_is_found_of_a_lost_process_is_no_more_to_blame_than_the_first(house):
    at_work = house.at_work(dag_of("a", "b"))
    at_work.admit()
    at_work.process()
    first, last = at_work.running("a").facts, at_work.running("b").facts
    held = {"state": "running", "hostname": "h", "pid": 1}
    house.set_rows(first.id, **held, heartbeat_at=LONG_AGO)
    house.set_rows(last.id, **held, heartbeat_at=datetime.now(UTC))
    for found in (first, last):
        house.set_rows(found.id, heartbeat_at=LONG_AGO)
        at_work.job.course.rhythm._sweep_at = 0.0
        at_work.job._manage_executor_state(at_work.ti_status.running)
    assert house.rows("state", "infrastructure_failures") == [("none", 0), ("none", 0)]


def test_what_a_process_gave_up_itself_was_what_it_ran(house):
    assert swept(house, ("h", 1, GIVEN_UP), ("h", 1, LONG_AGO)) == [1, 1]


def test_zombies_of_no_process_that_anybody_knows_are_charged(house):
    assert swept(house, (None, None), (None, None)) == [1, 1]


def test_what_nobody_reported_of_is_not_looked_at(house, at_work):
    house.set_rows(at_work.running("a").facts.id, state="success")
    assert at_work.job._manage_executor_state(at_work.ti_status.running) == []


def test_a_retry_waits_for_its_delay(house, at_work):
    ti = at_work.running("a")
    at_work.report(ti, S.FAILED)
    (row,) = reported(at_work, ti)
    assert row.next_attempt_at is not None


# -- callbacks that are owed --------------------------------------------------------------------------------------------


def called_for(house, said, *, tries_before=0, **event):
    """What the callbacks of a running task instance with one retry were told, after the executor `said` that it is over."""
    called = []
    callbacks = {
        "on_retry_callback": lambda context: called.append(("retry", context)),
        "on_failure_callback": [lambda context: called.append(("failure", context))],
    }
    at_work = house.at_work(dag_of("a", arguments={"a": {"retries": 1, **callbacks}}))
    at_work.admit()
    at_work.process()
    ti = at_work.running("a")
    house.set_rows(ti.facts.id, state="running", try_number=1 + tries_before)
    at_work.report(ti, said, **event)
    at_work.job._manage_executor_state(at_work.ti_status.running)
    at_work.job._callbacks.end()
    return called


def test_the_retry_callback_is_called_for_an_attempt_that_died_without_a_word(house):
    ((which, context),) = called_for(house, S.FAILED, info="exit code 9")
    assert (which, context["ti"].state, context["ti"].try_number) == ("retry", "up_for_retry", 1)
    assert (context["task"].task_id, context["dag"].dag_id) == ("a", "d")
    assert context["run_id"] == context["dag_run"].run_id == context["ti"].run_id
    assert "exit code 9" in str(context["exception"])


def test_the_failure_callback_is_called_when_no_try_is_left(house):
    ((which, context),) = called_for(house, S.SUCCESS, tries_before=1)
    assert (which, context["ti"].state) == ("failure", "failed")


def test_a_lost_attempt_within_the_budget_calls_nobody(house):
    assert called_for(house, S.FAILED, infrastructure=True) == []


def test_an_attempt_that_is_not_the_rows_calls_nobody(house):
    assert called_for(house, S.FAILED, attempt_id=OTHER) == []


def test_fail_stop_ends_the_rest_of_the_run_also_where_the_coordinator_writes_the_failure(house, monkeypatch):
    at_work = house.at_work(dag_of("a", "b", "c < b", fail_stop=True))
    at_work.admit()
    at_work.process()
    stopped = []
    monkeypatch.setattr(at_work.executor, "terminate", stopped.extend)
    b = at_work.running("b").facts
    house.set_rows(b.id, state="running")
    at_work.report(at_work.running("a"), TaskInstanceState.FAILED)
    at_work.ti_status.observe(at_work.job._manage_executor_state(at_work.ti_status.running))
    at_work.job._update_counters(at_work.ti_status)
    assert house.states() == {"a1": "failed", "b1": "failed", "c1": "skipped"}
    assert stopped == [b.attempt_id]
    assert at_work.ti_status.running == {}


def test_executors_are_let_catch_up_in_each_round(at_work, monkeypatch):
    rounds = []
    monkeypatch.setattr(at_work.executor, "catch_up", lambda: rounds.append("a round"))
    at_work.job._manage_executor_state(at_work.ti_status.running)
    assert rounds == ["a round"]


# -- the sweep ----------------------------------------------------------------------------------------------------------


def queued_long_ago(house, at_work):
    """A queued task instance whose message nobody has taken for hours."""
    ti = at_work.running("a")
    house.set_rows(ti.facts.id, queued_at=datetime.now(UTC) - timedelta(hours=2))
    at_work.job.course.rhythm._sweep_at = 0
    return ti


def test_what_nobody_claimed_is_lost_if_no_message_waits(house, at_work):
    ti = queued_long_ago(house, at_work)
    at_work.executor.held.clear()
    rows = at_work.job._manage_executor_state(at_work.ti_status.running)
    assert {row.state for row in rows if row.id == ti.facts.id} == {"queued", "none"}  # as it was, and as it is
    assert house.rows("state", "infrastructure_failures", task_id="a") == [("none", 1)]


def test_what_is_claimed_while_its_message_is_looked_for_is_not_lost(house, at_work, monkeypatch):
    ti = queued_long_ago(house, at_work)

    def look(_attempt_ids):
        house.set_rows(ti.facts.id, state="running", heartbeat_at=datetime.now(UTC))
        return set()

    monkeypatch.setattr(at_work.executor, "holds", look)
    at_work.job._manage_executor_state(at_work.ti_status.running)
    assert house.rows("state", "external_executor_id", task_id="a") == [("running", ti.facts.attempt_id)]
