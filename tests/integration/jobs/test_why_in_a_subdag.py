"""What `why` answers for task instances of subdags, for what stands for subdags, and for jobs that have some (S11.6, S13)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from interview import Interview
from playhouse import dag_of, day
from subdag_stage import after, around, begin, child_of, finish, look

from backfill import DAG
from backfill.exceptions import RefusedError, UsageError
from backfill.jobs.why import Question
from backfill.jobs.why.answers import Held
from backfill.store import pools
from backfill.testing.script import Script, ScriptedExecutor


def begun(house, dag: DAG, days: int = 1, **request) -> tuple[object, Interview]:
    """Return a job whose subdag `s` runs, and an interview about it."""
    work = begin(house, dag, days, **request)
    return work, Interview(house, work.job.id, dag)


def admitted(house, dag: DAG, days: int = 1, **request) -> tuple[object, Interview]:
    """Return a job whose `a` is queued, and an interview about it."""
    work = house.at_work(dag, days, **request)
    work.admit()
    work.process()
    return work, Interview(house, work.job.id, dag)


def twins() -> DAG:
    """Return a DAG of which the tasks s and t stand for subdags that both have a task x; u in the one of t stands for another."""
    dag = dag_of("a")
    child_of(dag, "x", below="a")
    deeper = child_of(dag, "x", task_id="t", below="a")
    child_of(deeper, "y", task_id="u", below="x")
    return dag


def find(ask: Interview, task_id: str, number: int = 1):
    return ask.inquirer.finder(ask.job_id, Question(task_id, day(number)))()


# -- names ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "dag_id", "name"),
    [
        ("s.x", "d.s", "s.x"),
        ("t.x", "d.t", "t.x"),
        ("d.t.x", "d.t", "t.x"),
        ("y", "d.t.u", "t.u.y"),
        ("t.u.y", "d.t.u", "t.u.y"),
        ("t.u", "d.t", "t.u"),
        ("s", "d", "s"),
        ("a", "d", "a"),
    ],
)
def test_a_task_of_a_subdag_is_named_by_the_tasks_that_lead_to_it_or_by_its_id_alone_if_no_other_has_it(
    house, asked, dag_id, name
):
    _, ask = admitted(house, twins())
    answer = ask.about(asked)
    assert (answer.dag_id, answer.task_id) == (dag_id, name.rpartition(".")[2])
    assert answer.answer.startswith(f"{name} of 2024-01-01 ")
    assert ask.about_job(asked).task_id == name


def test_a_task_of_the_dag_goes_before_one_of_a_subdag_of_the_same_id(house):
    _, ask = begun(house, around("a"))
    assert (ask.about("a").dag_id, ask.about("s.a").dag_id) == ("d", "d.s")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("x", r"2 subdags of job \d+ have a task 'x'; name one of them: s\.x and t\.x\."),
        ("s.y", r"has no task 's\.y'; did you mean '"),
    ],
)
def test_a_name_that_is_of_several_tasks_or_of_none_is_wrong_use(house, asked, told):
    _, ask = admitted(house, twins())
    with pytest.raises(UsageError, match=told):
        ask.about(asked)
    with pytest.raises(UsageError, match=told):
        ask.about_job(asked)


# -- task instances of subdags ----------------------------------------------------------------------------------------------


def test_what_waits_in_a_subdag_names_what_it_waits_for(house):
    _, ask = begun(house, around("x", "y < x"))
    answer = ask.about("s.y")
    assert answer.answer == "s.y of 2024-01-01 waits for x (queued), by its trigger rule all_success."
    assert (answer.held_by, answer.line, answer.dag_id) == (Held.UPSTREAM, 5, "d.s")
    assert ask.said("s.x").startswith("s.x of 2024-01-01 is queued since ")


def test_max_active_tasks_is_that_of_the_subdag(house):
    _, ask = begun(house, around("x", "y", max_active_tasks=1))
    answer = ask.about("s.y")
    told = (
        "s.y of 2024-01-01 waits for a place under max_active_tasks of 1 of DAG 'd.s', taken by d.s.x of 2024-01-01 ("
    )
    assert answer.answer.startswith(told)
    assert (answer.held_by, answer.limits) == (Held.LIMIT, ("max_active_tasks",))
    assert [(each.dag_id, each.task_id) for each in answer.occupied_by] == [("d.s", "x")]


def test_the_limit_of_a_task_of_a_subdag_and_a_full_pool_are_named(house):
    with house.engine.begin() as tx:
        pools.set_pool(tx, "p", 1)
    arguments = {"x": {"max_active_tis_per_dag": 1}, "y": {"pool": "p"}, "v": {"pool": "p"}}
    _, ask = begun(house, around("x", "v", "y", arguments=arguments), 2)
    assert "max_active_tis_per_dag of 1 of task 'x', taken by d.s.x of 2024-01-01" in ask.said("s.x", 2)
    assert "pool 'p': 1 of 1 slot is taken by d.s.v of 2024-01-01" in ask.said("s.y")


def test_the_run_before_is_that_of_the_subdag(house):
    _, ask = begun(house, around("x", arguments={"x": {"depends_on_past": True}}), 2)
    answer = ask.about("s.x", 2)
    told = "s.x of 2024-01-02 waits for the run before, by depends_on_past: x of 2024-01-01 (queued)."
    assert (answer.answer, answer.held_by) == (told, Held.PAST)


def test_what_could_not_run_in_a_subdag_names_the_cause_there(house):
    work, ask = begun(house, around("x", "y < x", "z < y"))
    finish(work, house, "x", "failed", hostname="backfill-7@far")
    assert ask.said("s.z") == "s.z of 2024-01-01 could not run: by its trigger rule all_success, after x (failed)."
    assert f"`backfill logs {ask.job_id} s.x 2024-01-01` shows its log." in ask.about("s.x").remarks


def test_what_of_a_subdag_has_no_run_yet_waits_for_the_task_that_stands_for_it(house):
    _, ask = admitted(house, around("x"))
    answer = ask.about("s.x")
    assert answer.answer == "s.x of 2024-01-01 has not begun: the run of its subdag begins with s."
    assert answer.remarks == ("s of 2024-01-01 waits for a (queued), by its trigger rule all_success.",)
    assert (answer.held_by, answer.state, answer.run_id, answer.dag_id) == (Held.SUBDAG, None, None, "d.s")
    assert [awaited.task_id for awaited in answer.waits_for] == ["a"]


def test_a_subdag_of_a_subdag_waits_for_both_tasks(house):
    _, ask = admitted(house, twins())
    assert ask.about("t.u.y").remarks[:2] == (
        "t.u of 2024-01-01 has not begun: the run of its subdag begins with t.",
        "t of 2024-01-01 waits for a (queued), by its trigger rule all_success.",
    )


def test_a_run_from_before_the_job_is_not_taken_for_one_that_has_begun(house):
    house.plant_run(1, {"x": "success"}, dag_id="d.s")
    _, ask = admitted(house, around("x"))
    assert ask.about("s.x").held_by is Held.SUBDAG


def test_a_date_that_is_not_admitted_is_told_for_tasks_of_subdags_too(house):
    _, ask = admitted(house, around("x"), 2, max_active_runs=1)
    answer = ask.about("s.x", 2)
    assert answer.answer == "s.x of 2024-01-02 has not begun: its date is not admitted, and it is the next."
    assert (answer.held_by, answer.dag_id) == (Held.NOT_ADMITTED, "d.s")


def test_a_subdag_whose_task_could_not_run_was_never_started(house):
    work, ask = admitted(house, around("x"))
    finish(work, house, "a", "failed")
    answer = ask.about("s.x")
    assert answer.answer == "s.x of 2024-01-01 was never started: the run of its subdag did not begin."
    assert answer.remarks[0].startswith("s of 2024-01-01 could not run: by its trigger rule all_success, after a (")
    assert answer.held_by is Held.CLOSED


# -- what stands for a subdag -----------------------------------------------------------------------------------------------


def test_what_stands_for_a_subdag_tells_how_far_that_is_and_what_holds_it(house):
    _, ask = begun(house, around("x", "y < x"))
    answer = ask.about("s")
    assert answer.answer.startswith("s of 2024-01-01 is running since ")
    assert answer.answer.endswith(" with the run of subdag 'd.s': 1 queued, 1 none.")
    assert answer.remarks[0].startswith("s.x of 2024-01-01 is queued since ")
    assert answer.held_by is Held.RUNNING
    assert [awaited.task_id for awaited in answer.waits_for] == ["s.x", "s.y"]


def test_what_stands_for_subdags_of_subdags_leads_to_the_innermost(house):
    work, ask = begun(house, twins())
    finish(work, house, "x")
    assert [said.partition(" of ")[0] for said in (ask.said("t"), *ask.about("t").remarks[:2])] == ["t", "t.u", "t.u.y"]


def test_a_retry_of_what_stands_for_a_subdag_is_told_with_its_date(house):
    work, ask = begun(house, around("x", retries=1, retry_delay=timedelta(hours=1)))
    finish(work, house, "x", "failed")
    answer = ask.about("s")
    assert (answer.held_by, answer.state) == (Held.RETRY, "up_for_retry")
    assert answer.remarks == ("The error: The run of its subdag 'd.s' failed: x ended badly.",)
    assert ask.about("s.x").held_by is Held.FINISHED


def test_a_subdag_in_which_nothing_can_go_is_told_as_blocked_with_what_waits_for_it(house):
    with house.engine.begin() as tx:
        pools.set_pool(tx, "p", 1)
    _, ask = begun(house, around("x", "y < x", arguments={"x": {"pool": "p"}}))
    house.set_rows(house.rows("id", task_id="x"), state="none", queued_by_job_id=None)
    with house.engine.begin() as tx:
        pools.delete_pool(tx, "p")
    answer = ask.about("s")
    assert (answer.held_by, answer.state) == (Held.BLOCKED, "running")
    assert answer.remarks[0] == "s.x of 2024-01-01 can never run: it waits for pool 'p' (does not exist)."
    assert ask.said("z") == "z of 2024-01-01 can never run: it waits for s (running)."
    found = [(reason.what, reason.example) for reason in ask.about_job().reasons]
    assert (
        "blocked for good by what is left of a subdag",
        "s of 2024-01-01, which waits for what is left of the subdag of s",
    ) in found


# -- logs -------------------------------------------------------------------------------------------------------------------


def test_the_log_of_a_task_of_a_subdag_is_that_of_its_own_dag(house):
    _, ask = begun(house, around("x"))
    found = find(ask, "s.x")
    assert (found.task.dag_id, found.ti.task_id, found.label) == ("d.s", "x", "s.x of 2024-01-01")
    assert find(ask, "s").below == ("s.x",)


def test_there_is_no_log_of_a_subdag_that_has_not_begun(house):
    _, ask = admitted(house, around("x"))
    with pytest.raises(RefusedError, match=r"s\.x of 2024-01-01 has not been started: its subdag has no run yet"):
        find(ask, "s.x")


# -- jobs -------------------------------------------------------------------------------------------------------------------


def counts(answer) -> dict[str, int]:
    return {str(reason.held_by): reason.count for reason in answer.reasons}


def test_a_job_counts_the_task_instances_of_subdags_also_before_they_begin(house):
    work, ask = admitted(house, around("x", "y < x"), 2)
    answer = ask.about_job()
    assert counts(answer) == {"queued": 2, "upstream": 4, "subdag": 4}
    (reason,) = (reason for reason in answer.reasons if reason.held_by is Held.SUBDAG)
    assert reason.what == "waiting for s, with which the run of their subdag begins"
    assert reason.example == "s.x"
    assert counts(ask.about_job("s.y")) == {"subdag": 2}
    finish(work, house, "a")
    assert counts(ask.about_job()) == {"queued": 2, "upstream": 4}
    assert counts(ask.about_job("s.y")) == {"upstream": 2}


def test_a_failure_in_a_subdag_whose_task_is_tried_again_keeps_no_date_out(house):
    work, ask = begun(house, around("x", retries=1, retry_delay=timedelta(hours=1)), 2, max_active_runs=1)
    finish(work, house, "x", "failed")
    assert ask.about("a", 2).remarks[0].startswith("max_active_runs of 1 has no room")


def told(report) -> list[tuple[object, ...]]:
    """Return the errors of a report, without states: what waited in a run waits no more when that is closed."""
    return [(error.kind, error.key, error.logical_date, error.try_number, error.error) for error in report.errors]


def test_another_process_names_the_same_blocked_ones_of_subdags_as_the_one_that_drove_the_job(house):
    with house.engine.begin() as tx:
        pools.set_pool(tx, "p", 1)
    dag = dag_of("a", "z")
    child = child_of(dag, "v", below="a")
    child_of(child, "x", "y < x", task_id="t", below="v", arguments={"y": {"pool": "p"}})
    after(dag, "s", "z")
    cast = house.put_on(dag, ScriptedExecutor(house.engine, Script(dag, {})), 2, continue_on_failures=True)
    with house.engine.begin() as tx:
        pools.delete_pool(tx, "p")
    report = cast.drive()
    assert [(error.kind, error.key.task_id) for error in report.errors[:4]] == [
        ("deadlocked", "y"), ("failed", "t"), ("failed", "s"), ("deadlocked", "z"),
    ]  # fmt: skip
    ask = Interview(house, report.job_id, dag)
    assert told(ask.inquirer.report(report.job_id)) == told(report)
    assert ask.said("y") == "s.t.y of 2024-01-01 can never run: it waits for pool 'p' (does not exist)."
    assert ask.about("s").held_by is Held.FINISHED


def test_runs_of_subdags_that_have_ended_hold_nothing(house):
    work, ask = begun(house, around("x"))
    finish(work, house, "x")
    look(work)
    assert counts(ask.about_job()) == {"queued": 1}
    house.set_rows(house.rows("id", task_id="x"), state="none", end_date=datetime(2024, 1, 1, tzinfo=UTC))
    assert ask.about("s.x").held_by is Held.CLOSED
