"""Which task instance may go, is skipped or blamed, through the loop (S2.14, S4)."""

from datetime import UTC, datetime

import pytest
from playhouse import dag_of, day, nothing

from backfill import DAG, TaskGroup, task, task_group
from backfill.operators import BranchPythonOperator, EmptyOperator, PythonOperator, ShortCircuitOperator
from backfill.states import TriggerRule

FAILS = {"*": "failed"}
SKIPS = {"*": "skipped"}


def daily(**arguments):
    return DAG("d", schedule="@daily", start_date=day(1), **arguments)


def plain(task_id, **arguments):
    return PythonOperator(task_id=task_id, python_callable=nothing, **arguments)


def branch(task_id, **arguments):
    return BranchPythonOperator(task_id=task_id, python_callable=nothing, **arguments)


def of_day(states, number=1):
    """States of one date by task id, and index if mapped."""
    return {
        name.replace(f"{number}[", "[") if "[" in name else name.removesuffix(str(number)): state
        for name, state in states.items()
    }


def clear(house, *task_ids):
    """Put task instances back to the initial state by hand."""
    for task_id in task_ids:
        house.set_rows(house.rows("id", task_id=task_id), state="none", try_open=False)


# -- skips --------------------------------------------------------------------------------------------------------------


def test_a_skip_chain_of_100_settles_in_one_pass(house):
    chain = [f"t{number:03} < t{number - 1:03}" for number in range(1, 101)]
    at_work = house.at_work(dag_of("t000", *chain, max_active_tasks=200))
    at_work.admit()
    at_work.process()
    house.set_rows(at_work.running("t000").facts.id, state="skipped", try_open=False)
    at_work.job._update_counters(at_work.ti_status)
    at_work.process()
    assert house.rows("state") == ["skipped"] * 101
    assert at_work.job._settle_runs(at_work.ti_status, None)
    assert house.runs() == {1: "success"}


def test_a_skip_chain_of_100_is_no_deadlock(house):
    chain = [f"t{number:03} < t{number - 1:03}" for number in range(1, 101)]
    report = house.play(dag_of("t000", *chain), outcomes={"t000": SKIPS})
    assert (report.state, report.tasks["skipped"]) == ("success", 101)


def test_branches_in_branches_with_a_join(house):
    """a follows b, b follows none of its own; the join below everything runs after a skip, not after a plain one."""
    with daily() as dag:
        a, b = branch("a"), branch("b")
        a >> [b, plain("x")]
        b >> [plain("y"), plain("z")]
        [dag.task_dict[name] for name in "xyz"] >> plain("join", trigger_rule="none_failed_min_one_success")
        a >> EmptyOperator(task_id="empty", trigger_rule="all_done")
        [dag.task_dict[name] for name in "yz"] >> plain("inner", trigger_rule="none_failed")
    outcomes = {"a": {"*": {"follow": ["b"]}}, "b": {"*": {"follow": ["y"]}}}
    house.play(dag, outcomes=outcomes)
    expected = {"a": "success", "b": "success", "x": "skipped", "y": "success", "z": "skipped", "join": "success"}
    assert of_day(house.states()) == {**expected, "empty": "skipped", "inner": "success"}


def test_branch_that_follows_nothing_skips_all(house):
    with daily() as dag:
        branch("a") >> [plain("b"), plain("c")] >> plain("join", trigger_rule="none_failed")
    house.play(dag, outcomes={"a": {"*": {"follow": []}}})
    assert of_day(house.states()) == {"a": "success", "b": "skipped", "c": "skipped", "join": "success"}


def test_branch_to_a_group_goes_on_with_its_roots(house):
    with daily() as dag:
        a = branch("a")
        with TaskGroup("g") as group:
            plain("b") >> plain("c")
        a >> [group, plain("x")]
    house.play(dag, outcomes={"a": {"*": {"follow": ["g"]}}})
    assert of_day(house.states()) == {"a": "success", "g.b": "success", "g.c": "success", "x": "skipped"}


@pytest.mark.parametrize(("ignores", "below"), [(True, "skipped"), (False, "success")])
def test_short_circuit_in_both_settings(house, ignores, below):
    with daily() as dag:
        a = ShortCircuitOperator(task_id="a", python_callable=nothing, ignore_downstream_trigger_rules=ignores)
        a >> plain("b") >> plain("c", trigger_rule="all_done") >> plain("d")
    house.play(dag, outcomes={"a": {"*": False}})
    assert of_day(house.states()) == {"a": "success", "b": "skipped", "c": below, "d": below}


def test_decision_is_kept_after_a_clear_of_the_child(house):
    with daily() as dag:
        branch("a") >> [plain("b"), plain("c")]
    outcomes = {"a": {"*": {"follow": ["b"]}}}
    house.play(dag, outcomes=outcomes)
    clear(house, "b", "c")
    assert house.play(dag, outcomes=outcomes).state == "success"
    assert house.rows("task_id", "state", "try_number") == [
        ("a", "success", 1),
        ("b", "success", 2),
        ("c", "skipped", 0),
    ]


@pytest.mark.parametrize("over", [[1, 2], None])
def test_mapped_child_of_a_branch_is_skipped_with_all_indexes(house, over):
    with daily() as dag:
        a, source = branch("a"), plain("source")

        @task
        def child(value):
            return value

        mapped = child.expand(value=over or source.output)
        a >> [mapped.operator, plain("b")]
    outcomes = {"a": {"*": {"follow": ["b"]}}, "source": {"*": {"return": [1, 2]}}}
    house.play(dag, outcomes=outcomes)
    rows = {"child[0]": "skipped", "child[1]": "skipped"} if over else {"child": "skipped"}
    assert of_day(house.states()) == {"a": "success", "b": "success", "source": "success", **rows}


@pytest.mark.parametrize("order", [["a", "b"], ["b", "a"]])
def test_skip_before_failure_equals_failure_before_skip(house, order):
    at_work = house.at_work(dag_of("a", "b", "c < a b"))
    at_work.admit()
    at_work.process()
    for name in order:
        state = {"a": "failed", "b": "skipped"}[name]
        house.set_rows(at_work.running(name).facts.id, state=state, try_open=False)
        at_work.job._update_counters(at_work.ti_status)
        at_work.process()
    assert of_day(house.states()) == {"a": "failed", "b": "skipped", "c": "upstream_failed"}


# -- effective leaves, setups and teardowns -----------------------------------------------------------------------------


def test_failed_inner_task_under_an_all_done_leaf_makes_a_good_run_and_exit_code_1(house):
    dag = dag_of("a", "b < a", arguments={"b": {"trigger_rule": TriggerRule.ALL_DONE}})
    report = house.play(dag, outcomes={"a": FAILS})
    assert (house.runs(), report.state, report.exit_code) == ({1: "success"}, "failed", 1)


@pytest.mark.parametrize(("fatal", "run"), [(False, "success"), (True, "failed")])
def test_ignorable_and_fatal_teardown(house, fatal, run):
    with daily() as dag:
        s, t = plain("s").as_setup(), plain("t")
        s >> plain("w") >> t.as_teardown(setups=s, on_failure_fail_dagrun=fatal)
    report = house.play(dag, outcomes={"t": FAILS})
    assert (house.runs(), report.state, report.exit_code) == ({1: run}, "failed", 1)


@pytest.mark.parametrize(
    ("setup", "work", "teardown", "run"),
    [
        ("failed", "upstream_failed", "upstream_failed", "failed"),
        ("skipped", "skipped", "skipped", "success"),
        ("success", "success", "success", "success"),
    ],
)
def test_setup_failed_or_skipped_settles_its_work_and_its_teardown(house, setup, work, teardown, run):
    with daily() as dag:
        s, t = plain("s").as_setup(), plain("t")
        s >> plain("v") >> plain("w") >> t.as_teardown(setups=s)
    house.play(dag, outcomes={"s": {"*": setup}})
    assert of_day(house.states()) == {"s": setup, "v": work, "w": work, "t": teardown}
    assert house.runs() == {1: run}


# -- the past -----------------------------------------------------------------------------------------------------------

PAST = {"a": {"depends_on_past": True}}
LOOKS = {"ignore_first_depends_on_past": False}


def test_depends_on_past_without_a_previous_run_starts(house):
    assert house.play(dag_of("a", arguments=PAST), **LOOKS).state == "success"


@pytest.mark.parametrize(
    ("before", "state"), [("success", "success"), ("skipped", "success"), ("failed", "deadlocked")]
)
def test_depends_on_past_waits_for_a_good_end_of_the_previous_run(house, before, state):
    house.plant_run(1, {"a": before})
    assert house.play(dag_of("a", arguments=PAST), days=(2, 2), **LOOKS).state == state


def test_depends_on_past_with_a_missing_task_instance_passes_for_a_task_that_is_new(house):
    house.plant_run(1, {"b": "success"})
    assert house.play(dag_of("a", "b", arguments=PAST), days=(2, 2), **LOOKS).state == "success"


def test_depends_on_past_with_a_missing_task_instance_blocks_a_task_that_was_seen_before(house):
    house.plant_run(1, {"a": "success", "b": "success"})
    house.plant_run(2, {"b": "success"})
    report = house.play(dag_of("a", "b", arguments=PAST), days=(3, 3), **LOOKS)
    assert (report.state, house.states()["a3"]) == ("deadlocked", "none")


@pytest.mark.parametrize(("ignores", "state"), [(True, "success"), (False, "deadlocked")])
def test_unaligned_start_with_and_without_ignore_first(house, ignores, state):
    house.plant_run(1, {"a": "failed"})
    start = day(2).replace(hour=5)
    dag = dag_of("a", arguments=PAST)
    report = house.play(dag, start_date=start, end_date=day(4), ignore_first_depends_on_past=ignores)
    assert report.state == ("success" if ignores else state)
    assert house.states()["a3"] == ("success" if ignores else "none")


@pytest.mark.parametrize(("before", "state"), [("success", "success"), ("failed", "deadlocked")])
def test_wait_for_downstream_waits_for_direct_children_in_the_previous_run(house, before, state):
    house.plant_run(1, {"a": "success", "b": before, "c": "failed"})
    dag = dag_of("a", "b < a", "c < b", arguments={"a": {"wait_for_downstream": True}})
    assert house.play(dag, days=(2, 2), **LOOKS).state == state


# -- mapping ------------------------------------------------------------------------------------------------------------


def mapping(over, **arguments):
    """Return a DAG with sources p and q, and m mapped over what `over` makes of their outputs; z is below m."""
    with daily() as dag:
        p, q = plain("p"), plain("q")

        @task(**arguments)
        def m(**values):
            return values

        m.expand(**over(p.output, q.output)).operator >> plain("z", trigger_rule="all_done")
    return dag


def played(house, dag, **returned):
    house.play(dag, outcomes={name: {"*": {"return": value}} for name, value in returned.items()})
    return {name: state for name, state in of_day(house.states()).items() if name[0] in "mz"}


def indexes(count, state="success"):
    return {f"m[{index}]": state for index in range(count)} | {"z": "success"}


def test_mapping_over_a_literal_and_an_xcom_and_their_product(house):
    dag = mapping(lambda p, q: {"x": [1, 2], "y": p})
    assert played(house, dag, p=[1, 2, 3], q=1) == indexes(6)


def test_mapping_over_a_zip_is_as_long_as_the_shortest(house):
    dag = mapping(lambda p, q: {"x": p.zip(q)})
    assert played(house, dag, p=[1, 2, 3], q=[1, 2]) == indexes(2)


def test_mapping_over_a_zip_with_fill_value_is_as_long_as_the_longest(house):
    dag = mapping(lambda p, q: {"x": p.zip(q, fillvalue=0)})
    assert played(house, dag, p=[1, 2, 3], q=[1, 2]) == indexes(3)


def test_mapping_over_a_concat_is_as_long_as_all_together(house):
    dag = mapping(lambda p, q: {"x": p.concat(q)})
    assert played(house, dag, p=[1, 2, 3], q=[1, 2]) == indexes(5)


def test_mapping_of_length_0_is_skipped_when_its_rule_lets_it_run(house):
    assert played(house, mapping(lambda p, q: {"x": p}), p=[], q=1) == {"m": "skipped", "z": "success"}


@pytest.mark.parametrize(("end", "state"), [("failed", "upstream_failed"), ("skipped", "skipped")])
def test_source_failed_or_skipped_settles_a_mapping_under_all_done(house, end, state):
    dag = mapping(lambda p, q: {"x": p}, trigger_rule="all_done")
    house.play(dag, outcomes={"p": {"*": end}})
    assert of_day(house.states())["m"] == state


def test_mapping_whose_source_is_not_chosen_has_the_length_of_stored_values_or_names_the_source(house):
    dag = mapping(lambda p, q: {"x": p})
    report = house.play(dag, task_regex="^m$", ignore_dependencies=True, ignore_task_deps=True)
    ((state, error),) = house.rows("state", "error", task_id="m")
    assert (state, error) == ("upstream_failed", "no values of p are stored to map it over")
    assert [(each.kind, each.error) for each in report.errors] == [("upstream_failed", error)]
    house.play(dag, outcomes={"p": {"*": {"return": [1, 2]}}}, task_regex="^p$", ignore_dependencies=True)
    clear(house, "m")
    house.play(dag, task_regex="^m$", ignore_dependencies=True, ignore_task_deps=True)
    assert house.rows("map_index", "state", task_id="m") == [(0, "success"), (1, "success")]


@pytest.mark.parametrize(("then", "removed"), [([1], 2), ([1, 2, 3, 4, 5], 0), ([], 3)])
def test_index_shrinks_and_grows_on_rerun(house, then, removed):
    dag = mapping(lambda p, q: {"x": p})
    assert played(house, dag, p=[1, 2, 3], q=1) == indexes(3)
    clear(house, "p", "m", "z")
    after = played(house, dag, p=then, q=1)
    states = list(after.values())
    assert states.count("removed") == removed
    assert states.count("success") == len(then) + 1
    assert set(states) <= {"success", "removed", "skipped"}


def test_mapped_group_runs_index_by_index(house):
    with daily() as dag:

        @task_group
        def g(value):
            plain("a") >> plain("b")

        g.expand(value=[1, 2]) >> plain("z", trigger_rule="all_done")
    outcomes = {"g.a": {"*": {"by_index": {"1": "failed"}}}}
    house.play(dag, outcomes=outcomes)
    states = of_day(house.states())
    assert (states["g.a[0]"], states["g.b[0]"]) == ("success", "success")
    assert (states["g.a[1]"], states["g.b[1]"], states["z"]) == ("failed", "upstream_failed", "success")


# -- tasks that go and come ---------------------------------------------------------------------------------------------


def test_removed_task_is_ignored_then_restored(house):
    house.play(dag_of("a", "b", "c < a b"), outcomes={"b": FAILS})
    clear(house, "c")
    assert house.play(dag_of("a", "c < a")).state == "success"
    assert of_day(house.states()) == {"a": "success", "b": "removed", "c": "success"}
    clear(house, "c")
    house.play(dag_of("a", "b", "c < a b"))
    assert house.rows("task_id", "state") == [("a", "success"), ("b", "success"), ("c", "success")]


def test_subset_leaves_other_task_instances_alone(house):
    house.plant_run(1, {"a": "success", "b": "failed", "c": "none", "other": "failed"}, state="failed")
    house.play(dag_of("a", "b < a", "c < a", "other"), task_regex="^c$")
    assert of_day(house.states()) == {"a": "success", "b": "failed", "c": "success", "other": "failed"}


def test_fill_in_the_blanks_with_one_task_instance_per_state(house):
    """Those that may run do, also what was in flight by nobody; the others stay, the run fails."""
    after = {"success": "success", "skipped": "skipped", "failed": "failed", "upstream_failed": "upstream_failed"}
    states = [*after, "none", "scheduled", "up_for_retry", "up_for_reschedule", "queued", "running", "removed"]
    house.plant_run(1, {f"t_{state}": state for state in states}, state="failed")
    house.set_rows(house.rows("id", task_id="t_running")[0], heartbeat_at=datetime(2024, 1, 1, tzinfo=UTC))  # long ago
    report = house.play(dag_of(*(f"t_{state}" for state in states)))
    assert of_day(house.states()) == {f"t_{state}": after.get(state, "success") for state in states}
    assert (house.runs(), report.exit_code) == ({1: "failed"}, 1)
