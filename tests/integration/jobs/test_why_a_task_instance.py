"""What `why` answers for a task instance in each state, and for each thing that may hold it (S11.6)."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from interview import Interview
from playhouse import Playhouse, dag_of, day

from backfill import DAG, task
from backfill.exceptions import ServiceUnavailable, UsageError
from backfill.jobs.why.answers import Held
from backfill.store import pools

AGE = r"[0-9.]+ s"


def at_work(house: Playhouse, dag: DAG, days: int = 1, *, process: bool = True, **request):
    """Return a job whose dates are admitted and whose ready task instances are queued, and an interview about it."""
    work = house.at_work(dag, days, **request)
    work.admit()
    if process:
        work.process()
    return work, Interview(house, work.job.id, dag)


def set_state(house: Playhouse, task_id: str, state: str, **values) -> None:
    house.set_rows(house.rows("id", task_id=task_id), state=state, **values)


def make_pool(house: Playhouse, name: str, slots: int) -> None:
    with house.engine.begin() as tx:
        pools.set_pool(tx, name, slots)


# -- dependencies -----------------------------------------------------------------------------------------------------------


def test_what_waits_for_others_of_its_run_names_them_and_the_rule(house: Playhouse) -> None:
    _, ask = at_work(house, dag_of("a", "b < a"))
    answer = ask.about("b")
    assert answer.answer == "b of 2024-01-01 waits for a (queued), by its trigger rule all_success."
    assert (answer.held_by, answer.line, answer.state, answer.remarks) == (Held.UPSTREAM, 5, "none", ())
    assert [awaited.task_id for awaited in answer.waits_for] == ["a"]


def test_what_waits_for_many_names_the_first_and_counts_the_others(house: Playhouse) -> None:
    _, ask = at_work(house, dag_of("a", "b", "c", "d", "e", "z < a b c d e"), process=False)
    assert ask.said("z").startswith(
        "z of 2024-01-01 waits for a (not started), b (not started), c (not started) and 2 more"
    )


def test_what_waits_for_the_run_before_names_its_date(house: Playhouse) -> None:
    dag = dag_of("a", arguments={"a": {"depends_on_past": True}})
    _, ask = at_work(house, dag, days=2)
    answer = ask.about("a", 2)
    assert answer.answer == "a of 2024-01-02 waits for the run before, by depends_on_past: a of 2024-01-01 (queued)."
    assert (answer.held_by, answer.line) == (Held.PAST, 6)


def test_what_can_never_run_says_so_and_names_the_ways_out(house: Playhouse) -> None:
    dag = dag_of("a", "b < a", arguments={"a": {"depends_on_past": True}})
    house.plant_run(1, {"a": "failed", "b": "success"}, state="failed")
    work = house.at_work(dag, (2, 2))
    work.admit()
    ask = Interview(house, work.job.id, dag)
    answer = ask.about("a", 2)
    assert answer.answer == "a of 2024-01-02 can never run: it waits for a of 2024-01-01 (failed)."
    assert answer.held_by is Held.BLOCKED
    assert "--ignore-first-depends-on-past" in answer.remarks[0]
    assert ask.said("b", 2) == "b of 2024-01-02 can never run: it waits for a (not started)."


def test_what_is_about_to_be_settled_says_so(house: Playhouse) -> None:
    _, ask = at_work(house, dag_of("a", "b < a"), process=False)
    set_state(house, "a", "failed")
    assert ask.said("b") == "b of 2024-01-01 is about to become upstream_failed."


# -- limits -----------------------------------------------------------------------------------------------------------------


def test_a_full_pool_is_named_with_those_that_take_its_slots(house: Playhouse) -> None:
    make_pool(house, "db", 3)
    arguments = {"a": {"pool": "db", "pool_slots": 2, "priority_weight": 9}, "b": {"pool": "db", "pool_slots": 2}}
    other, _ = at_work(house, dag_of("a", dag_id="other", arguments=arguments))
    set_state(house, "a", "running", start_date=day(1))
    _, ask = at_work(house, dag_of("b", arguments=arguments))
    answer = ask.about("b")
    assert re.fullmatch(
        r"b of 2024-01-01 waits for 2 places in pool 'db': 2 of 3 slots are taken by "
        r"other\.a of 2024-01-01 \(2 slots, running for .*\)\.",
        answer.answer,
    )
    assert (answer.held_by, answer.limits, answer.rank) == (Held.LIMIT, ("pool",), 0)
    assert [each.job_id for each in answer.occupied_by] == [other.job.id]
    make_pool(house, "db", 0)
    assert "pool 'db', which is closed; `backfill pools set db SLOTS` opens it." in ask.said("b")
    make_pool(house, "db", 1)
    assert ask.said("b") == "b of 2024-01-01 can never run: it waits for pool 'db' (1 slots)."


@pytest.mark.parametrize(
    ("limits", "of_task", "told"),
    [
        ({"max_active_tasks": 1}, {}, "max_active_tasks of 1 of DAG 'd'"),
        ({}, {"max_active_tis_per_dag": 1}, "max_active_tis_per_dag of 1 of task 'a'"),
    ],
)
def test_a_limit_of_the_dag_or_task_is_named_with_its_value(house: Playhouse, limits, of_task, told: str) -> None:
    _, ask = at_work(house, dag_of("a", arguments={"a": of_task}, **limits), days=3)
    answer = ask.about("a", 2)
    assert re.fullmatch(
        rf"a of 2024-01-02 waits for a place under {told}, taken by d\.a of 2024-01-01 \(queued for {AGE}\)\.",
        answer.answer,
    )
    assert ask.about("a", 3).remarks == ("1 ready task instance goes before it, by priority, date and topology.",)


def test_the_limit_of_the_coordinator_is_named(house: Playhouse) -> None:
    _, ask = at_work(house, dag_of("a"), days=2, max_active_runs=2)
    house.set_rows(house.rows("id")[1], state="none")
    answer = ask.with_settings(core__parallelism=1).about("a", 2)
    assert answer.answer.startswith("a of 2024-01-02 waits for a place under core.parallelism of 1, taken by d.a of")


def test_what_is_ready_tells_its_place_in_the_order(house: Playhouse) -> None:
    dag = dag_of("a", "b", "c", arguments={"c": {"priority_weight": 5}})
    _, ask = at_work(house, dag, process=False)
    assert ask.said("c") == "c of 2024-01-01 is ready, and none goes before it."
    answer = ask.about("b")
    assert answer.answer.startswith("b of 2024-01-01 is ready. 2 ready task instances go before it, by priority")
    assert (answer.held_by, answer.rank) == (Held.TURN, 2)


# -- dates ------------------------------------------------------------------------------------------------------------------


def test_a_retry_tells_when_it_is_due_and_what_went_wrong(house: Playhouse) -> None:
    work, ask = at_work(house, dag_of("a", arguments={"a": {"retries": 2}}))
    due = work.lease.now() + timedelta(minutes=5)
    set_state(house, "a", "up_for_retry", next_attempt_at=due, try_number=1, error="\nValueError: no\nmore")
    answer = ask.about("a")
    assert answer.answer.startswith("a of 2024-01-01 failed and is tried again at ")
    assert answer.answer.endswith(": try 1 of 3 is over.")
    assert (answer.held_by, answer.due, answer.remarks) == (Held.RETRY, due, ("The error: ValueError: no",))
    set_state(house, "a", "up_for_reschedule", next_attempt_at=due)
    assert ask.about("a").held_by is Held.RESCHEDULE


# -- in flight --------------------------------------------------------------------------------------------------------------


def test_what_runs_tells_since_when_where_and_its_sign_of_life(house: Playhouse) -> None:
    work, ask = at_work(house, dag_of("a"))
    now = work.lease.now()
    host = {"hostname": "backfill-7@far", "pid": 99}
    set_state(house, "a", "running", start_date=now, heartbeat_at=now, **host)
    answer = ask.about("a")
    assert re.fullmatch(
        rf"a of 2024-01-01 is running since .* UTC \(for {AGE}\) on backfill-7@far, process 99: try 1 of 1\.",
        answer.answer,
    )
    assert re.fullmatch(rf"Its worker was heard of {AGE} ago\.", answer.remarks[0])
    assert answer.remarks[1] == f"`backfill logs {ask.job_id} a 2024-01-01 --follow` shows its log as it grows."
    set_state(house, "a", "running", heartbeat_at=now - timedelta(seconds=90))
    assert "it counts as lost, and it is sent again" in ask.about("a").remarks[0]
    set_state(house, "a", "running", infrastructure_failures=3)
    assert "it counts as lost, and it counts as failed" in ask.about("a").remarks[0]


def test_what_waits_for_a_worker_tells_of_its_queue(house: Playhouse, broker_url: str) -> None:
    _, ask = at_work(house, dag_of("a", arguments={"a": {"queue": "big"}}))
    assert "waits for a free process of the silent executor" in ask.said("a")
    set_state(house, "a", "queued", executor="celery")
    answer = ask.about("a")
    assert re.fullmatch(
        rf"a of .* is queued since .* \(for {AGE}\) and waits for a worker of queue 'big'\.", answer.answer
    )
    assert answer.remarks == ("The broker does not answer.",)
    asked = Interview(house, ask.job_id, ask.dag, broker=lambda: broker_url).about("a")
    assert "Its message is not in the queue: a worker has taken it" in asked.remarks[0]
    assert asked.remarks[1] == "No worker listens to queue 'big'; start one with `backfill worker -q big`."


# -- finished ---------------------------------------------------------------------------------------------------------------


def test_what_has_ended_tells_how_and_because_of_what(house: Playhouse) -> None:
    dag = dag_of("a", "b < a", "c < b", "d", "e < d")
    _, ask = at_work(house, dag)
    worker = {"hostname": "backfill-7@far", "try_number": 1}
    set_state(house, "a", "failed", start_date=day(1), end_date=day(1), error="ValueError: boom", **worker)
    for task_id in ("b", "c"):
        set_state(house, task_id, "upstream_failed", end_date=day(1))
    set_state(house, "d", "success", start_date=day(1), end_date=day(1) + timedelta(seconds=3), **worker)
    assert ask.said(
        "d"
    ) == "d of 2024-01-01 ended well at 2024-01-01 UTC after 3.0 s on backfill-7@far: try 1 of 1.".replace(
        "2024-01-01 UTC", "2024-01-01 00:00:03 UTC"
    )
    failed = ask.about("a")
    assert failed.answer == "a of 2024-01-01 failed at 2024-01-01 UTC after 0.0 s on backfill-7@far: try 1 of 1."
    assert failed.remarks == (
        "The error: ValueError: boom",
        f"`backfill logs {ask.job_id} a 2024-01-01` shows its log.",
    )
    assert ask.said("c") == "c of 2024-01-01 could not run: by its trigger rule all_success, after a (failed)."
    set_state(house, "d", "success", skips=["e"])
    set_state(house, "e", "skipped", end_date=day(1))
    assert ask.said("e") == "e of 2024-01-01 was skipped at 2024-01-01 UTC: d decided so."
    set_state(house, "e", "removed")
    assert ask.said("e") == "e of 2024-01-01 was removed: the task is not in the DAG any more."


# -- dates and jobs ---------------------------------------------------------------------------------------------------------


def test_a_date_that_is_not_admitted_tells_its_place_and_whose_runs_are_in_the_way(house: Playhouse) -> None:
    dag = dag_of("a", max_active_runs=2)
    house.at_work(dag, (1, 1)).admit()
    first = house.rows("dag_run_id")
    work = house.at_work(dag, (2, 5))
    work.admit()
    ask = Interview(house, work.job.id, dag)
    assert len(first) == 1
    answer = ask.about("a", 4)
    assert answer.answer == "a of 2024-01-04 has not begun: its date is not admitted, and 1 date goes before it."
    whose = f"1 of job {work.job.id - 1} and 1 of this job"
    (remark,) = answer.remarks
    assert remark == f"max_active_runs of 2 has no room: the runs of 2024-01-01 and 2024-01-02 are running ({whose})."
    assert (answer.held_by, answer.state, answer.rank) == (Held.NOT_ADMITTED, None, 1)


def test_a_failure_keeps_further_dates_out(house: Playhouse) -> None:
    dag = dag_of("a", max_active_runs=1)
    _, ask = at_work(house, dag, days=2)
    set_state(house, "a", "failed")
    assert ask.about("a", 2).remarks == (
        "No further date is admitted, for there was a failure; with --continue-on-failures a job goes on.",
    )


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("paused", "Job {id} of d is paused, driven by process {pid} on "),
        ("queued", "Job {id} of d waits for a coordinator to take it; `backfill coordinator` starts one."),
    ],
)
def test_what_holds_the_whole_job_is_told_besides(house: Playhouse, state: str, told: str) -> None:
    work, ask = at_work(house, dag_of("a"), process=False)
    ask.write("update job set state = :state", state=state)
    pid = work.lease.holder.split(":")[1]
    assert ask.about("a").remarks[0].startswith(told.format(id=ask.job_id, pid=pid))


def test_a_holder_that_died_is_told_with_the_remedy(house: Playhouse) -> None:
    _, ask = at_work(house, dag_of("a"), process=False)
    ask.write("update job set latest_heartbeat = now() - interval '3 minutes'")
    (remark,) = ask.about("a").remarks
    assert "is running, but its lease has run out: it was driven by process " in remark
    assert remark.endswith(f"which was heard of 3 min 00 s ago; `backfill resume {ask.job_id}` goes on with it.")


def test_what_was_never_started_of_a_job_that_ended_says_so(house: Playhouse) -> None:
    dag = dag_of("a", "b", "c < b", max_active_runs=1, fail_stop=False, arguments={"b": {"depends_on_past": True}})
    house.plant_run(1, {"a": "success", "b": "failed", "c": "success"}, state="failed")
    report = house.play(dag, (2, 3))
    ask = Interview(house, report.job_id, dag)
    assert ask.said("c", 2) == "c of 2024-01-02 can never run: it waits for b (not started)."
    assert ask.said("a", 3) == (
        f"a of 2024-01-03 was never started: job {ask.job_id} ended as deadlocked before its date was admitted."
    )


def test_what_was_not_started_of_a_run_that_has_ended_says_so(house: Playhouse) -> None:
    _, ask = at_work(house, dag_of("a", "b < a"), process=False)
    house.set_run(1, state="failed", job_id=None)
    answer = ask.about("b")
    assert answer.answer == "b of 2024-01-01 was not started: its run has ended as failed without it."
    assert answer.held_by is Held.CLOSED


def test_without_the_dag_the_state_is_told_and_why_no_more_is(house: Playhouse) -> None:
    _, ask = at_work(house, dag_of("a", "b < a"))

    def gone(_: object) -> DAG:
        raise ServiceUnavailable("The file is gone.")

    class Blind(Interview):
        @property
        def inquirer(self):
            return type(ask.inquirer)(
                engine=house.engine, settings=house.stage.settings, load_dag=gone, reach_broker=self.broker
            )

    blind = Blind(house, ask.job_id, ask.dag)
    answer = blind.about("b")
    assert (answer.answer, answer.remarks) == (
        "b of 2024-01-01 is none; what it waits for cannot be told.",
        ("The file is gone.",),
    )
    assert "is queued since" in blind.said("a")
    assert blind.about_job().sentences[1] == "What its task instances wait for cannot be told: The file is gone."


# -- mapped ones, and what is not there -------------------------------------------------------------------------------------


def mapped_dag() -> DAG:
    with DAG("d", schedule="@daily", start_date=day(1)) as dag:

        @task
        def each(n):
            return n

        @task
        def single():
            pass

        each.expand(n=[1, 2, 3]) >> single()
    return dag


def test_a_mapped_task_is_counted_and_the_first_unfinished_index_explained(house: Playhouse) -> None:
    _, ask = at_work(house, mapped_dag())
    house.set_rows(house.rows("id", task_id="each")[0], state="success")
    answer = ask.about("each")
    assert answer.answer == "each of 2024-01-01 has 3 map indexes: 2 queued, 1 success."
    assert answer.remarks[0].startswith("each[1] of 2024-01-01 is queued")
    assert answer.remarks[-1] == "--map-index names another one."
    assert answer.map_index is None
    assert ask.about("each", map_index=2).map_index == 2


@pytest.mark.parametrize(
    ("task_id", "number", "index", "told"),
    [
        ("eech", 1, None, "has no task 'eech'; did you mean 'each'?"),
        ("nothing", 1, None, r"has no task 'nothing'; `backfill tasks \d+` shows those that it has\."),
        ("each", 9, None, "has no run date 2024-01-09; its dates are those from 2024-01-01 to 2024-01-02."),
        ("each", 1, 7, "each of 2024-01-01 has no map index 7; it has 0 to 2."),
        ("single", 1, 0, "single of 2024-01-01 has no map index 0; it is not mapped, or not expanded yet."),
    ],
)
def test_what_the_job_does_not_have_is_wrong_use(house: Playhouse, task_id, number, index, told) -> None:
    _, ask = at_work(house, mapped_dag(), days=2)
    with pytest.raises(UsageError, match=told):
        ask.about(task_id, number, index)


def test_a_task_that_was_not_chosen_is_told_from_one_that_does_not_exist(house: Playhouse) -> None:
    _, ask = at_work(house, dag_of("a", "b"), task_regex="^a$")
    with pytest.raises(UsageError, match=r"Task 'b' is not among those that job .* has chosen with --task-regex"):
        ask.about("b")
