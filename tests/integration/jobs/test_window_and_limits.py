"""The window slides, and no limit is ever exceeded, also by two jobs at once (S2.13, S5)."""

import threading
from collections import Counter
from contextlib import contextmanager

import pytest
from playhouse import FIRST, dag_of
from sqlalchemy import event as sqlalchemy_event, text

from backfill.keys import TaskInstanceKey
from backfill.store import pools
from backfill.store.task_instances import select_facts
from backfill.telemetry import Progress, RunAdmitted, RunSettled, TaskInstanceEnded
from backfill.testing.script import Script, ScriptedExecutor


def finish(house, at_work, *keys):
    """Let task instances, named like `a1`, succeed."""
    for ti in list(at_work.ti_status.running.values()):
        run = at_work.job.course.window.run(ti.facts.dag_run_id)
        if f"{ti.key.task_id}{run.logical_date.day}" in keys:
            house.set_rows(ti.facts.id, state="success", try_open=False)
    at_work.job._update_counters(at_work.ti_status)
    at_work.job._settle_runs(at_work.ti_status, None)


def step(at_work):
    at_work.admit()
    at_work.process()


@pytest.fixture
def small_portions(monkeypatch):
    """Let one round of the loop do no more than two task instances' worth of anything."""
    for module in ("admission", "base_job", "dispatch", "reconcile"):
        monkeypatch.setattr(f"backfill.jobs.{module}.PORTION", 2)


def test_no_more_is_sent_than_executors_have_an_appetite_for_and_the_rest_once_they_have(house, monkeypatch):
    at_work = house.at_work(dag_of("a", "b", "c", "d"), days=2)
    wanted = {"most": 3}
    monkeypatch.setattr(at_work.executor, "appetite", lambda in_flight: wanted["most"] and wanted["most"] - in_flight)
    step(at_work)
    assert Counter(house.states().values()) == {"queued": 3, "scheduled": 5}
    step(at_work)  # nothing was reported: they have what they want
    assert Counter(house.states().values()) == {"queued": 3, "scheduled": 5}
    wanted["most"] = None
    at_work.job.course.rhythm.dispatch.end()  # it looks again after a while, or when something has ended
    step(at_work)
    assert Counter(house.states().values()) == {"queued": 8}


@pytest.mark.parametrize(("end", "next_one"), [("success", 1), ("failed", 0)])
def test_the_next_date_comes_in_with_the_end_of_a_run_unless_a_failure_stops_the_job(house, end, next_one):
    at_work = house.at_work(dag_of("a", max_active_runs=1), days=2)
    step(at_work)
    sent = []
    sqlalchemy_event.listen(house.engine, "commit", lambda _: sent.append("commit"))
    house.set_rows(at_work.running("a").facts.id, state=end, try_open=False)
    at_work.job._update_counters(at_work.ti_status)
    before = len(sent)
    assert at_work.job._settle_runs(at_work.ti_status, None)
    assert [run.logical_date.day for run in at_work.ti_status.active_runs.values()] == [2] * next_one
    assert len(sent) == before + 1
    assert len(at_work.dates()) == 1 - next_one


def test_an_end_that_dispatch_counted_before_it_was_heard_of_brings_no_second_look(house):
    at_work = house.at_work(dag_of("a", "b", "c", "d", max_active_tasks=2), days=1)
    course = at_work.job.course
    step(at_work)
    unheard, running = sorted(at_work.ti_status.running.values(), key=lambda ti: ti.facts.id)
    house.set_rows(unheard.facts.id, state="success", try_open=False)
    course.rhythm.dispatch.end()
    at_work.process()
    assert at_work.executor.order() == ["a1", "b1", "c1"]
    for ti, looks in ((unheard, False), (running, True)):
        house.set_rows(ti.facts.id, state="success", try_open=False)
        at_work.job._books.observe(
            at_work.ti_status, at_work.workplace.read(lambda tx, ti=ti: select_facts(tx, [ti.facts.id]))
        )
        assert at_work.job._dispatcher.worth_a_look() is looks


# -- portions -----------------------------------------------------------------------------------------------------------


def test_a_job_done_in_small_portions_comes_to_the_same_end(house, small_portions):
    dag = dag_of("a", "b < a", "c < a", "d < b c", max_active_runs=3, arguments={"b": {"retries": 1}})
    report = house.play(dag, days=7, outcomes={"b": {"*": ["failed"]}, "c": {"2024-01-03": "skipped"}})
    assert report.state == "success"
    assert report.tasks["success"] == 26
    assert report.tasks["skipped"] == 2
    admitted = [event.run_id for event in house.events if isinstance(event, RunAdmitted)]
    assert admitted == sorted(admitted)


def test_what_is_left_for_the_next_portion_is_sent_in_order_and_not_held_back(house, small_portions):
    at_work = house.at_work(dag_of("a", "b", "c", "d", "e"), days=1)
    at_work.admit()
    for sent, waiting in ((2, 3), (4, 1), (5, 0)):
        at_work.job.course.rhythm.begin_round()
        at_work.process()
        assert at_work.executor.order() == ["a1", "b1", "c1", "d1", "e1"][:sent]
        assert house.rows("state") == ["queued"] * sent + ["none"] * waiting
    assert at_work.job.course.rhythm.due_in() > 0


def test_the_loop_goes_on_at_once_after_a_portion(house, small_portions):
    at_work = house.at_work(dag_of("a", "b", "c"), days=4)
    at_work.admit()
    assert len(house.runs()) == 1
    assert at_work.job.course.rhythm.due_in() == 0
    at_work.job.course.rhythm.begin_round()
    at_work.admit()
    assert sorted(house.runs()) == [1, 2]


def test_a_sweep_in_portions_sees_every_run(house, small_portions):
    at_work = house.at_work(dag_of("a", "b"), days=3)
    for _ in range(3):
        at_work.admit()
    house.set_rows(house.rows("id"), state="success")
    rhythm, reconciler = at_work.job.course.rhythm, at_work.job._reconciler
    reconciler.begin_sweep()
    for left in (True, True, False):
        rhythm.begin_round()
        assert len(reconciler.sweep_on()) == 2
        assert (rhythm.due_in() == 0) is left
    assert reconciler.sweep_on() == []


# -- the window ---------------------------------------------------------------------------------------------------------


def test_a_run_that_finishes_frees_its_place_for_the_next_date_while_a_slow_one_runs_on(house):
    at_work = house.at_work(dag_of("a", max_active_runs=2), days=5)
    step(at_work)
    assert house.runs() == {1: "running", 2: "running"}
    for number in range(2, 5):
        finish(house, at_work, f"a{number}")
        step(at_work)
    assert house.runs() == {1: "running", 2: "success", 3: "success", 4: "success", 5: "running"}


def test_dates_are_admitted_strictly_in_order(house):
    house.play(dag_of("a", max_active_runs=2), days=6)
    admitted = [event.run_id for event in house.events if isinstance(event, RunAdmitted)]
    assert admitted == sorted(admitted)
    assert len(admitted) == 6


def test_backwards_dates_are_admitted_strictly_descending(house):
    house.play(dag_of("a", max_active_runs=2), days=6, run_backwards=True)
    admitted = [event.run_id for event in house.events if isinstance(event, RunAdmitted)]
    assert admitted == sorted(admitted, reverse=True)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_never_more_runs_are_active_than_allowed(house, limit):
    house.play(dag_of("a", "b < a", max_active_runs=limit), days=6)
    active, most = 0, 0
    for event in house.events:
        active += isinstance(event, RunAdmitted) - isinstance(event, RunSettled)
        most = max(most, active)
    assert most == limit


def test_a_foreign_running_run_takes_a_place_until_it_ends(house):
    house.plant_run(20, {}, state="running")
    at_work = house.at_work(dag_of("a", max_active_runs=2), days=3)
    step(at_work)
    assert house.runs() == {1: "running", 20: "running"}
    house.set_run(20, state="success")
    at_work.job.course.rhythm.admission.end()  # the delay is over
    step(at_work)
    assert house.runs() == {1: "running", 2: "running", 20: "success"}


# -- progress -----------------------------------------------------------------------------------------------------------


def total(numbers):
    return numbers.waiting + numbers.running + numbers.succeeded + numbers.failed + numbers.skipped + numbers.deadlocked


def test_progress_adds_up_at_any_time(house):
    """Four dates of three tasks: in the window, before it, after it, whatever becomes of them."""
    at_work = house.at_work(dag_of("a", "b < a", "c < b", max_active_runs=2), days=4)
    course, seen = at_work.job.course, []
    course.throttle.lets_through = lambda content: True
    ends = iter(["success", "skipped", "failed", "success", "running", "success", "success"] * 5)
    at_work.job.course.policy._continue = True
    for _ in range(30):
        step(at_work)
        at_work.job._log_progress(at_work.ti_status)
        for ti in list(at_work.ti_status.running.values())[:1]:
            house.set_rows(ti.facts.id, state=next(ends), try_open=False)
        at_work.job._update_counters(at_work.ti_status)
        at_work.job._log_progress(at_work.ti_status)
        at_work.job._settle_runs(at_work.ti_status, None)
        at_work.job._log_progress(at_work.ti_status)
    seen = [event for event in house.events if isinstance(event, Progress)]
    assert {total(numbers) for numbers in seen} == {12}
    assert (seen[0].running, seen[-1].runs_finished, seen[-1].waiting) == (2, 4, 0)


def test_progress_adds_up_where_a_run_is_stuck(house):
    dag = dag_of("a", "b < a", max_active_runs=1, arguments={"a": {"depends_on_past": True}})
    house.play(dag, days=3, outcomes={"a": {"2024-01-01": "failed"}}, continue_on_failures=True)
    seen = [event for event in house.events if isinstance(event, Progress)]
    assert {total(numbers) for numbers in seen} == {6}
    assert (seen[-1].deadlocked, seen[-1].failed) == (4, 2)


def test_progress_is_told_on_change_only(house):
    at_work = house.at_work(dag_of("a"))
    step(at_work)
    for _ in range(5):
        at_work.job._log_progress(at_work.ti_status)
    assert sum(isinstance(event, Progress) for event in house.events) == 1


def test_what_ended_is_told_once(house):
    house.play(dag_of("a", "b < a"), days=2, outcomes={"a": {"2024-01-02": "failed"}})
    ended = [(event.key, event.state) for event in house.events if isinstance(event, TaskInstanceEnded)]
    assert len(ended) == len({key for key, _ in ended}) == 4
    assert all(isinstance(key, TaskInstanceKey) for key, _ in ended)


# -- two jobs at once ---------------------------------------------------------------------------------------------------

# What any observer of the database may see at one instant.
_IN_FLIGHT = text("select coalesce(sum(pool_slots), 0) from task_instance where state in ('queued', 'running')")
_RUNNING_RUNS = text("select count(*) from dag_run where state = 'running'")


class WatchedExecutor(ScriptedExecutor):
    """Looks at the database whenever something is queued, before it plays it."""

    def __init__(self, engine, script, look):
        super().__init__(engine, script)
        self._look = look

    def queue_task_instances(self, attempts):
        self._look()
        return super().queue_task_instances(attempts)


@contextmanager
def observed(house, query):
    """The greatest value of `query` that an observer sees, who looks all the time and whenever something is queued."""
    seen, stop = [], threading.Event()

    def look():
        with house.engine.connect() as tx:
            seen.append(tx.execute(query).scalar_one())

    def watch():
        while not stop.wait(0.002):
            look()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen, look
    finally:
        stop.set()
        watcher.join()


def drive_together(casts):
    reports = {}

    def drive(number, cast):
        reports[number] = cast.drive()

    threads = [threading.Thread(target=drive, args=pair) for pair in enumerate(casts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return [reports[number] for number in range(len(casts))]


def test_a_pool_of_one_slot_serves_two_jobs_and_is_never_exceeded(house):
    with house.engine.begin() as tx:
        pools.set_pool(tx, "one", 1)
    with observed(house, _IN_FLIGHT) as (seen, look):
        casts = []
        for dag_id in ("x", "y"):
            dag = dag_of("a", "b < a", "c", dag_id=dag_id, arguments={name: {"pool": "one"} for name in "abc"})
            casts.append(house.put_on(dag, WatchedExecutor(house.engine, Script(dag, {}), look), 4))
        reports = drive_together(casts)
    assert [(report.state, report.tasks["success"]) for report in reports] == [("success", 12)] * 2
    assert max(seen) == 1


def test_two_jobs_of_one_dag_share_max_active_tasks_and_max_active_runs(house):
    def dag():
        return dag_of("a", "b", "c", max_active_tasks=2, max_active_runs=3)

    with observed(house, _IN_FLIGHT) as (in_flight, look), observed(house, _RUNNING_RUNS) as (running, look_at_runs):

        def look_at_both():
            look()
            look_at_runs()

        casts = [
            house.put_on(one, WatchedExecutor(house.engine, Script(one, {}), look_at_both), days)
            for one, days in ((dag(), (1, 5)), (dag(), (6, 10)))
        ]
        reports = drive_together(casts)
    assert [(report.state, report.tasks["success"]) for report in reports] == [("success", 15)] * 2
    assert max(in_flight) == 2
    assert max(running) == 3


def test_nobody_sees_a_run_without_the_task_instances_that_it_is_going_to_have(house):
    at_work = house.at_work(dag_of("a", "b < a"), days=2)
    with house.engine.begin() as tx:
        at_work.job.course.admission.admit_next(tx)
    assert house.states() == dict.fromkeys(["a1", "b1", "a2", "b2"], "none")


def test_adjoining_jobs_keep_the_order_of_the_past(house):
    dag = dag_of("a", arguments={"a": {"depends_on_past": True}})
    first = house.put_on(dag, ScriptedExecutor(house.engine, Script(dag, {})), (1, 3))
    second = house.put_on(dag, ScriptedExecutor(house.engine, Script(dag, {})), (4, 6))
    reports = drive_together([second, first])
    assert [report.state for report in reports] == ["success", "success"]
    starts = house.rows("start_date")
    assert starts == sorted(starts)
    assert len(starts) == 6
    assert starts[0] > FIRST
