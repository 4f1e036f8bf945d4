"""Limits, and ends that nothing can change, through the loop (S5, S9.3, S0.3)."""

from collections import Counter
from itertools import pairwise

import pytest
from playhouse import DAY, dag_of, day, nothing
from sqlalchemy import event, text

from backfill import DAG, task
from backfill.operators import PythonOperator
from backfill.store import pools
from backfill.testing.script import Script, ScriptedExecutor

FAILS = {"*": "failed"}
LOOKS = {"ignore_first_depends_on_past": False}


def set_pool(house, name, slots):
    with house.engine.begin() as tx:
        pools.set_pool(tx, name, slots)


class Observer(ScriptedExecutor):
    """Notes what is in flight whenever something was queued, before it is played."""

    def __init__(self, engine, script, query):
        super().__init__(engine, script)
        self.query = text(query)
        self.seen = []

    def queue_task_instances(self, attempts):
        with self._engine.connect() as tx:
            self.seen.append(tx.execute(self.query).scalar_one())
        return super().queue_task_instances(attempts)


def observed(house, dag, query, days=1, **request):
    """Play a job; return its report and the most that was seen at any instant."""
    observer = Observer(house.engine, Script(dag, {}), query)
    report = house.put_on(dag, observer, days, **request).drive()
    return report, max(observer.seen)


SLOTS = "select coalesce(sum(pool_slots), 0) from task_instance where state in ('queued', 'running') and pool = '{}'"
IN_FLIGHT = "select count(*) from task_instance where state in ('queued', 'running')"


def mapped_over(count, **arguments):
    with DAG("d", schedule="@daily", start_date=day(1), max_active_tasks=200) as dag:

        @task(**arguments)
        def m(value):
            return value

        m.expand(value=list(range(count)))
    return dag


@pytest.mark.parametrize(
    ("arguments", "given", "query", "most"),
    [
        ({}, {"max_active_tasks": 5}, IN_FLIGHT, 5),
        ({}, {"max_active_tasks": 200}, SLOTS.format("default_pool"), 128),
        ({"pool": "own"}, {"max_active_tasks": 200}, SLOTS.format("own"), 7),
        ({"pool": "own", "pool_slots": 3}, {"max_active_tasks": 200}, SLOTS.format("own"), 6),
    ],
)
def test_no_limit_is_exceeded_at_any_instant(house, arguments, given, query, most):
    set_pool(house, "own", 7)
    names = [f"t{number:03}" for number in range(140)]
    report, seen = observed(house, dag_of(*names, arguments=dict.fromkeys(names, arguments), **given), query)
    assert seen == most
    assert (report.state, report.tasks["success"]) == ("success", 140)


def test_pool_of_the_job_counts_and_pool_slots_stay(house):
    set_pool(house, "mine", 4)
    dag = dag_of("a", "b", "c", arguments={name: {"pool_slots": 2} for name in "abc"})
    report, seen = observed(house, dag, SLOTS.format("mine"), pool="mine")
    assert (report.state, seen) == ("success", 4)
    assert set(house.rows("pool", "pool_slots")) == {("mine", 2)}


@pytest.mark.parametrize(
    ("arguments", "query", "most"),
    [
        ({}, IN_FLIGHT, 80),
        ({"max_active_tis_per_dagrun": 16}, IN_FLIGHT, 16),
        ({"max_active_tis_per_dag": 5}, IN_FLIGHT, 5),
        ({"pool": "own", "pool_slots": 2}, SLOTS.format("own"), 6),
    ],
)
def test_80_mapped_task_instances_keep_within_their_limit(house, arguments, query, most):
    set_pool(house, "own", 7)
    report, seen = observed(house, mapped_over(80, **arguments), query)
    assert (report.state, report.tasks["success"], seen) == ("success", 80, most)


def test_limit_per_dag_counts_all_runs_and_limit_per_run_its_own(house):
    _, over_all = observed(house, mapped_over(3, max_active_tis_per_dag=4), IN_FLIGHT, days=3)
    assert over_all == 4


def test_limit_per_run_holds_for_each_run(house):
    _, over_all = observed(house, mapped_over(3, max_active_tis_per_dagrun=2), IN_FLIGHT, days=3)
    assert over_all == 6


def test_full_pool_or_task_limit_delays_no_other_task(house):
    set_pool(house, "own", 1)
    arguments = {"a": {"pool": "own", "priority_weight": 9}, "b": {"pool": "own", "priority_weight": 9}}
    arguments |= {"c": {"max_active_tis_per_dag": 1, "priority_weight": 5}, "d": {}}
    at_work = house.at_work(dag_of("a", "b", "c", "d", arguments=arguments), days=2)
    at_work.admit()
    at_work.process()
    assert Counter(name[0] for name in at_work.executor.order()) == {"a": 1, "c": 1, "d": 2}


def test_closed_pool_is_waited_for_until_it_opens(house):
    set_pool(house, "own", 0)
    at_work = house.at_work(dag_of("a", arguments={"a": {"pool": "own"}}))
    at_work.admit()
    at_work.process()
    assert house.states() == {"a1": "scheduled"}
    assert not at_work.job._is_over(at_work.job.course.admission)
    set_pool(house, "own", 1)
    at_work.job.course.rhythm.something_ended()
    at_work.process()
    assert house.states() == {"a1": "queued"}


# -- deadlocks ----------------------------------------------------------------------------------------------------------


def reasons(report):
    return {error.key.task_id: error.error for error in report.errors if error.kind == "deadlocked"}


class DeletesThePool(ScriptedExecutor):
    """Somebody deletes the pool while the first task instance runs."""

    def queue_task_instances(self, attempts):
        with self._engine.begin() as tx:
            if "own" in {each.pool for each in pools.list_pools(tx)}:
                pools.delete_pool(tx, "own")
        return super().queue_task_instances(attempts)


def test_deleted_pool_blocks_what_names_it_and_nothing_else(house):
    set_pool(house, "own", 1)
    dag = dag_of("a", "b < a", "c < a", "d < b", arguments={"b": {"pool": "own"}})
    report = house.put_on(dag, DeletesThePool(house.engine, Script(dag, {}))).drive()
    assert (report.state, report.exit_code) == ("deadlocked", 3)
    assert house.states() == {"a1": "success", "b1": "none", "c1": "success", "d1": "none"}
    found = reasons(report)
    assert "own" in found["b"]
    assert "b" in found["d"]


class ShrinksThePool(ScriptedExecutor):
    """Somebody makes the pool smaller than what a task takes."""

    def queue_task_instances(self, attempts):
        with self._engine.begin() as tx:
            pools.set_pool(tx, "own", 1)
        return super().queue_task_instances(attempts)


def test_pool_that_has_become_too_small_blocks_what_takes_more(house):
    set_pool(house, "own", 3)
    dag = dag_of("a", "b < a", arguments={"b": {"pool": "own", "pool_slots": 2}})
    report = house.put_on(dag, ShrinksThePool(house.engine, Script(dag, {}))).drive()
    assert report.state == "deadlocked"
    assert "own" in reasons(report)["b"]


@pytest.mark.parametrize(
    ("arguments", "before", "named"),
    [
        ({"depends_on_past": True}, {"a": "failed", "b": "success"}, "a"),
        ({"wait_for_downstream": True}, {"a": "success", "b": "failed"}, "b"),
        ({"depends_on_past": True}, {"a": "none", "b": "none"}, "a"),
        ({"depends_on_past": True, "ignore_first_depends_on_past": False}, {"b": "success"}, "a"),
    ],
)
def test_past_that_ended_badly_is_unfinished_or_missing_is_named(house, arguments, before, named):
    house.plant_run(1, before, state="failed")
    dag = dag_of("a", "b < a", arguments={"a": arguments})
    report = house.play(dag, days=(2, 2), **LOOKS)
    assert (report.state, report.exit_code) == ("deadlocked", 3)
    found = reasons(report)
    assert named in found["a"]
    assert "2024-01-01" in found["a"]
    assert "a" in found["b"]
    assert "ignore_first_depends_on_past" in report.hint


def test_hint_is_given_only_for_the_first_run(house):
    dag = dag_of("a", arguments={"a": {"depends_on_past": True}})
    report = house.play(dag, days=2, outcomes={"a": FAILS}, continue_on_failures=True, **LOOKS)
    assert (report.state, report.hint) == ("deadlocked", None)


def test_stuck_run_leaves_the_window(house):
    house.plant_run(1, {"a": "failed"}, state="failed")
    dag = dag_of("a", "b", max_active_runs=1, arguments={"a": {"depends_on_past": True}})
    report = house.play(dag, days=(2, 4), continue_on_failures=True, **LOOKS)
    assert report.state == "deadlocked"
    assert house.runs() == {1: "failed", 2: "failed", 3: "failed", 4: "failed"}
    assert [house.states()[f"b{number}"] for number in (2, 3, 4)] == ["success"] * 3


# -- cost ---------------------------------------------------------------------------------------------------------------


def statements_per_run(house, schedule, days):
    """Return how many statements a job takes for each of its runs."""
    with DAG("d", schedule=schedule, start_date=day(1), max_active_runs=20, max_active_tasks=100) as dag:
        PythonOperator(task_id="a", python_callable=nothing)
    counted = Counter()

    def count(*_):
        counted["statements"] += 1

    event.listen(house.engine, "before_cursor_execute", count)
    try:
        report = house.play(dag, start_date=day(1), end_date=day(1) + days * DAY)
    finally:
        event.remove(house.engine, "before_cursor_execute", count)
    assert report.state == "success"
    with house.engine.begin() as tx:
        tx.execute(text("truncate job, dag_run cascade"))
    return counted["statements"] / report.runs["total"]


def test_the_cost_of_a_pass_grows_with_what_changed_not_with_the_range(house):
    costs = [
        statements_per_run(house, schedule, days)
        for schedule, days in (("@daily", 30), ("@daily", 240), ("@hourly", 20))
    ]
    assert all(after < 1.1 * before for before, after in pairwise(costs)), costs
