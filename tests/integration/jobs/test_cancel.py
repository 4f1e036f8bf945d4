"""How a job that is at work is cancelled (S11.5)."""

from __future__ import annotations

import pytest
from playhouse import SilentExecutor, dag_of

from backfill.exceptions import Interrupted
from backfill.jobs.cancel import STOPPED, Cancellation
from backfill.states import TaskInstanceState as S
from backfill.telemetry import Dispatched, Note


@pytest.fixture
def at_work(house):
    """A job whose task `a` is queued and `b` runs; both would be retried."""
    at_work = house.at_work(dag_of("a", "b", "c < a b", arguments={"a": {"retries": 2}, "b": {"retries": 2}}))
    at_work.admit()
    at_work.process()
    house.set_rows(at_work.running("b").facts.id, state="running")
    return at_work


@pytest.fixture
def orders(at_work, monkeypatch):
    """What the executor was asked, as (order, attempt ids)."""
    asked = []
    for order in ("revoke", "terminate"):
        monkeypatch.setattr(at_work.executor, order, lambda ids, order=order: asked.append((order, set(ids))))
    return asked


def cancelled(at_work, when_it_waits=lambda: None):
    """Cancel the job, and return its report; something happens each time that it has waited for what runs."""
    at_work.workplace.mailbox.wake()  # it need not wait for its heartbeat
    return Cancellation(at_work.job.id, at_work.workplace, check=when_it_waits).carry_out()


@pytest.mark.parametrize("written", ["failed", "success", "up_for_retry", "up_for_reschedule"])
def test_what_a_stopped_attempt_writes_by_itself_counts_but_nothing_is_tried_again(house, at_work, orders, written):
    a, b = at_work.running("a").facts, at_work.running("b").facts
    report = cancelled(at_work, lambda: house.set_rows(b.id, state=written))
    ends = {"up_for_retry": "failed", "up_for_reschedule": "none"}
    assert house.states() == {"a1": "none", "b1": ends.get(written, written), "c1": "none"}
    assert orders[:2] == [("revoke", {a.attempt_id}), ("terminate", {b.attempt_id})]
    assert not any(ids for _, ids in orders[2:])
    assert (report.state, report.exit_code, house.runs()) == ("cancelled", 4, {1: "failed"})


def test_it_tells_how_many_are_still_to_stop(house, at_work):
    a, b = at_work.running("a").facts, at_work.running("b").facts
    house.set_rows([a.id, b.id], state="running")
    stops = iter([a.id, b.id])
    cancelled(at_work, lambda: [house.set_rows(next(stops), state="failed"), at_work.workplace.mailbox.wake()])
    assert [event.text for event in house.events if isinstance(event, Note)][-2:] == [
        f"Job {at_work.job.id} is being cancelled: 2 running task instances are told to stop.",
        "Waiting for 1 running task instance to stop.",
    ]


def test_an_attempt_whose_process_is_lost_has_failed_and_is_not_sent_again(house, at_work):
    b = at_work.running("b")
    at_work.report(b, S.FAILED, infrastructure=True)
    cancelled(at_work)
    assert house.rows("state", "error", "try_number", id=b.facts.id) == [("failed", STOPPED, 1)]


def test_it_waits_for_what_runs_and_may_be_broken_off_meanwhile(house, at_work):
    at_work.report(at_work.running("b"), S.RUNNING)
    at_work.job.control.interrupt("SIGINT")
    with pytest.raises(Interrupted):
        cancelled(at_work, at_work.job.control.check)
    assert house.states() == {"a1": "none", "b1": "running", "c1": "none"}
    assert house.runs() == {1: "running"}


def when(cast, kind, act):
    """Have `act` called when the first event of that kind is told."""
    waiting = [act]

    def listen(event):
        if isinstance(event, kind) and waiting:
            waiting.pop()()

    cast.workplace.telemetry.subscribe(listen)


def write(house, change):
    with house.engine.begin() as tx:
        tx.exec_driver_sql(f"update job set {change}")


def test_a_run_that_is_closed_by_a_cancel_calls_nobody(house):
    called = []
    dag = dag_of("a", on_failure_callback=called.append, on_success_callback=called.append)
    cast = house.put_on(dag, SilentExecutor(), days=3)
    when(cast, Dispatched, lambda: write(house, "cancel_requested = true"))
    report = cast.drive()
    assert (report.state, called) == ("cancelled", [])
    assert house.states() == {"a1": "none", "a2": "none", "a3": "none"}
    assert set(house.runs().values()) == {"failed"}


def test_a_cancel_comes_before_a_failure_or_a_pause(house):
    cast = house.put_on(dag_of("a"), SilentExecutor())
    when(cast, Dispatched, lambda: write(house, "cancel_requested = true, state = 'paused'"))
    assert cast.drive().state == "cancelled"


def test_a_job_that_was_paused_before_its_drive_began_starts_nothing(house):
    executor = SilentExecutor()
    cast = house.put_on(dag_of("a"), executor)
    write(house, "state = 'paused'")
    when(cast, Note, lambda: cast.job.control.interrupt("a test"))
    with pytest.raises(Interrupted):
        cast.drive()
    assert (executor.taken, house.runs()) == ([], {})
