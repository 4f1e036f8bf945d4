"""Every field and every value that SCHEMA.md allows does what it says, also where no scenario of the folder uses it."""

from __future__ import annotations

import json

import pytest
from scenario_kit import FIRST, SECOND, THIRD, ended, mapped, row, run, scenario, states, task

from backfill.exceptions import UsageError
from backfill.states import TriggerRule
from backfill.testing import run_scenario

DONE = ("success", 1, 1)
SKIPPED = ("skipped", 0, 0)
BLAMED = ("upstream_failed", 0, 0)
NOT_STARTED = (None, 0, 0)


# -- the DAG ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "dates", "expected"),
    [
        ("@once", (FIRST, THIRD), [FIRST]),
        ("@hourly", (FIRST, f"{FIRST}T02:00:00"), [FIRST, f"{FIRST}T01:00:00", f"{FIRST}T02:00:00"]),
        ("@daily", (FIRST, SECOND), [FIRST, SECOND]),
        ("@weekly", (FIRST, "2024-01-14"), ["2024-01-07", "2024-01-14"]),
        ("@monthly", (FIRST, "2024-02-15"), [FIRST, "2024-02-01"]),
        ("@quarterly", (FIRST, "2024-06-30"), [FIRST, "2024-04-01"]),
        ("@yearly", ("2023-06-01", FIRST), [FIRST]),
        ("30 6 * * 1-5", ("2024-01-05", "2024-01-08T23:00:00"), ["2024-01-05T06:30:00", "2024-01-08T06:30:00"]),
        ({"seconds": 5400}, (FIRST, f"{FIRST}T03:00:00"), [FIRST, f"{FIRST}T01:30:00", f"{FIRST}T03:00:00"]),
        (None, (SECOND, SECOND), [SECOND]),
    ],
)
def test_a_schedule_gives_its_dates(schedule, dates, expected):
    result = run_scenario(scenario(task("a"), dates=dates, dag={"schedule": schedule}))
    assert list(result["dag_runs"]) == expected
    assert result["job"] == "success"


def test_a_schedule_without_a_date_in_the_range_is_nothing_to_do():
    expected = {"job": "refused", "error": "no_run_dates"}
    assert ended(task("a"), dates=(FIRST, SECOND), dag={"schedule": None}) == expected
    assert ended(task("a"), dag={"schedule": "@weekly"}) == expected
    assert ended(task("a"), dates=("2199-01-01", "2199-01-01")) == expected


def test_cron_is_read_in_the_time_zone_of_the_dag():
    berlin = {"schedule": "0 0 * * *", "timezone": "Europe/Berlin"}
    result = run_scenario(scenario(task("a"), dates=("2024-03-30T12:00:00", "2024-04-01T12:00:00"), dag=berlin))
    assert list(result["dag_runs"]) == ["2024-03-30T23:00:00", "2024-03-31T22:00:00"]


def test_the_last_date_of_the_dag_ends_the_range():
    found = ended(task("a"), dates=(FIRST, THIRD), dag={"end_date": SECOND})
    assert found == {"job": "success", FIRST: "success", SECOND: "success", "a": DONE, f"a {SECOND}": DONE}


@pytest.mark.parametrize("catchup", [True, False])
def test_with_or_without_catchup_a_manual_run_is_never_the_run_before(catchup):
    found = ended(
        task("a", depends_on_past=True),
        dates=(SECOND, SECOND),
        dag={"catchup": catchup},
        flags={"ignore_first_depends_on_past": False},
        preset=[run(run_type="manual", task_instances="failed")],
    )
    assert found["job"] == "success"


@pytest.mark.parametrize("limit", ["max_active_runs", "max_active_tasks"])
def test_a_limit_of_the_dag_changes_no_state(limit):
    found = ended(task("a"), task("b", "a"), task("c"), dates=(FIRST, THIRD), dag={limit: 1})
    assert set(states(found).values()) == {"success"}
    assert found["job"] == "success"


# -- tasks --------------------------------------------------------------------------------------------------------------

KINDS = ["python", "empty", "branch", "short_circuit", "sensor_reschedule"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_of_every_kind_succeeds_if_nothing_is_said(kind):
    found = ended(task("a", kind=kind), task("b", "a"))
    assert states(found) == {"a": "success", "b": "success"}
    assert found["a"][1:] == ((1, 0) if kind == "empty" else (1, 1))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "empty"])
def test_a_task_of_every_kind_is_retried_skips_or_fails_as_it_is_told(kind):
    one = task("a", kind=kind, retries=1)
    assert ended(one, outcomes={"a": {"*": ["failed"]}})["a"] == ("success", 2, 2)
    assert ended(one, outcomes={"a": {FIRST: "failed"}})["a"] == ("failed", 2, 2)
    assert ended(one, outcomes={"a": {FIRST: "fail_no_retry"}})["a"] == ("failed", 1, 1)
    assert ended(one, outcomes={"a": {FIRST: "skipped"}})["a"] == ("skipped", 1, 1)
    assert ended(one, outcomes={"a": {FIRST: ["reschedule", "reschedule", "failed"]}})["a"] == ("success", 2, 4)


@pytest.mark.parametrize("rule", [rule for rule in TriggerRule if rule != "all_done_setup_success"])
@pytest.mark.parametrize("kind", [*KINDS, "mapped"])
def test_a_task_of_every_kind_takes_every_rule(kind, rule):
    fields = {"expand": {"literal": [1]}} if kind == "mapped" else {}
    found = ended(task("a"), task("b", "a", kind=kind, trigger_rule=rule, **fields), outcomes={"a": {"*": "failed"}})
    b = found["b[0]" if kind == "mapped" else "b"][0]
    runs = {"all_failed", "all_done", "one_failed", "one_done", "none_skipped", "always"}
    skips = {"all_skipped"}
    assert b == ("success" if rule in runs else "skipped" if rule in skips else "upstream_failed")


@pytest.mark.parametrize("weight_rule", ["downstream", "upstream", "absolute"])
def test_weights_are_taken(weight_rule):
    found = ended(task("a", priority_weight=7, weight_rule=weight_rule), task("b", "a", priority_weight=2))
    assert states(found) == {"a": "success", "b": "success"}


@pytest.mark.parametrize(
    "fields", [{"max_active_tis_per_dag": 1}, {"max_active_tis_per_dagrun": 1}, {"pool": "p", "pool_slots": 2}]
)
def test_a_limit_of_a_task_changes_no_state(fields):
    found = ended(mapped("a", over=[1, 2, 3], **fields), dates=(FIRST, SECOND), pools={"p": 3})
    assert set(states(found).values()) == {"success"}
    assert len(states(found)) == 6


@pytest.mark.parametrize(("ignores", "grandchild"), [(True, "skipped"), (False, "success")])
def test_a_short_circuit_skips_all_or_just_its_children(ignores, grandchild):
    found = ended(
        task("a", kind="short_circuit", ignore_downstream_trigger_rules=ignores),
        task("b", "a", trigger_rule="always"),
        task("c", "b", trigger_rule="always"),
        outcomes={"a": {"*": False}},
    )
    assert states(found) == {"a": "success", "b": "skipped", "c": grandchild}


@pytest.mark.parametrize("kind", [*KINDS, "mapped"])
def test_a_task_of_every_kind_may_be_setup_or_teardown(kind):
    fields = {"expand": {"literal": [1]}} if kind == "mapped" else {}
    found = ended(
        task("s", kind=kind, setup=True, **fields),
        task("w", "s"),
        task("t", "w", kind=kind, teardown=True, setups=["s"], **fields),
        outcomes={"w": {"*": "failed"}},
    )
    assert set(states(found).values()) == {"success", "failed"}
    assert found["w"] == ("failed", 1, 1)


@pytest.mark.parametrize(("counts", "state"), [(False, "success"), (True, "failed")])
def test_the_failure_of_a_teardown_counts_for_the_run_if_it_says_so(counts, state):
    found = ended(
        task("s", setup=True),
        task("w", "s"),
        task("t", "w", teardown=True, setups=["s"], on_failure_fail_dagrun=counts),
        outcomes={"t": {"*": "failed"}},
    )
    assert (found[FIRST], found["job"], found["failed"]) == (state, "failed", {"t"})


# -- mapping ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("over", "length"),
    [([1, 2], 2), (["x", None, {"k": 1}], 3), (([1, 2], [1, 2, 3]), 6), (([1, 2], []), 0), (tuple([[1, 2]] * 6), 64)],
)
def test_a_mapping_over_lists_has_the_product_of_their_lengths(over, length):
    found = ended(mapped("m", over=over))
    indexes = {f"m[{index}]": "success" for index in range(length)}
    assert states(found) == (indexes or {"m": "skipped"})


@pytest.mark.parametrize(
    ("returned", "length"), [([7, 8], 2), ([], 0), ({"x": 1, "y": 2, "z": 3}, 3), ([None, None], 2)]
)
def test_a_mapping_over_what_a_task_returned_has_its_length(returned, length):
    found = ended(task("p"), mapped("m", over="p"), outcomes={"p": {"*": {"return": returned}}})
    indexes = {f"m[{index}]": "success" for index in range(length)} or {"m": "skipped"}
    assert states(found) == {"p": "success", **indexes}


@pytest.mark.parametrize("end", ["success", {"return": None}, {"return": 5}, {"return": "text"}])
def test_a_task_that_returns_nothing_to_map_over_fails_and_may_be_retried(end):
    found = ended(task("p", retries=1), mapped("m", over="p"), outcomes={"p": {"*": [end, {"return": [1]}]}})
    assert (found["p"], found["m[0]"]) == (("success", 2, 2), DONE)
    found = ended(task("p"), mapped("m", over="p"), outcomes={"p": {"*": end}})
    assert (found["p"], found["m"]) == (("failed", 1, 1), BLAMED)


def test_a_list_and_what_a_task_returned_multiply_and_the_last_varies_fastest():
    found = ended(
        task("p"),
        mapped("m", over=([1, 2], "p")),
        outcomes={"p": {"*": {"return": [1, 2, 3]}}, "m": {"*": {"by_index": {"5": "failed", "*": "success"}}}},
    )
    assert states(found) == {"p": "success", **{f"m[{i}]": "success" for i in range(5)}, "m[5]": "failed"}


def test_a_mapping_over_a_mapped_task_has_an_index_for_each_value_that_was_returned():
    outcomes = {"m": {"*": {"by_index": {"0": {"return": 1}, "1": ["failed"], "2": {"return": 3}}}}}
    found = ended(mapped("m", over=[1, 2, 3]), mapped("n", over="m", trigger_rule="all_done"), outcomes=outcomes)
    assert states(found) == {
        "m[0]": "success",
        "m[1]": "failed",
        "m[2]": "success",
        "n[0]": "success",
        "n[1]": "success",
    }


def test_outcomes_without_index_hold_for_every_index():
    found = ended(mapped("m", over=[1, 2], retries=1), outcomes={"m": {FIRST: ["failed"]}})
    assert {found["m[0]"], found["m[1]"]} == {("success", 2, 2)}


def test_an_index_may_have_a_list_of_its_own_and_the_star_is_for_the_others():
    outcomes = {"m": {"*": {"by_index": {"0": ["failed", "skipped"], "*": "failed"}}}}
    found = ended(mapped("m", over=[1, 2], retries=1), outcomes=outcomes)
    assert (found["m[0]"], found["m[1]"]) == (("skipped", 2, 2), ("failed", 2, 2))


# -- what tasks do ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("follow", "expected"),
    [
        (["b"], {"b": "success", "c": "skipped", "j": "skipped"}),
        (["b", "c"], {"b": "success", "c": "success", "j": "success"}),
        ([], {"b": "skipped", "c": "skipped", "j": "skipped"}),
    ],
)
def test_a_branch_follows_the_ids_that_it_names(follow, expected):
    tasks = [task("a", kind="branch"), task("b", "a"), task("c", "a"), task("j", "b", "c")]
    assert states(ended(*tasks, outcomes={"a": {"*": {"follow": follow}}})) == {"a": "success", **expected}


def test_a_branch_that_names_what_is_not_there_fails():
    tasks = [task("a", kind="branch", retries=1), task("b", "a")]
    found = ended(*tasks, outcomes={"a": {"*": {"follow": ["nobody"]}}})
    assert (found["a"], found["b"]) == (("failed", 2, 2), BLAMED)


def test_the_value_of_a_branch_or_a_short_circuit_may_be_returned():
    tasks = [task("a", kind="branch"), task("b", "a"), task("c", "a")]
    assert ended(*tasks, outcomes={"a": {"*": {"return": ["c"]}}})["b"] == SKIPPED
    tasks = [task("a", kind="short_circuit"), task("b", "a")]
    assert ended(*tasks, outcomes={"a": {"*": {"return": []}}})["b"] == SKIPPED


def test_what_a_branch_named_can_be_mapped_over():
    tasks = [task("a", kind="branch"), task("b", "a"), mapped("m", over="a")]
    found = ended(*tasks, outcomes={"a": {"*": {"follow": ["b", "m"]}}})
    assert states(found) == {"a": "success", "b": "success", "m[0]": "success", "m[1]": "success"}


def test_a_date_of_its_own_goes_before_the_star():
    found = ended(task("a"), dates=(FIRST, SECOND), outcomes={"a": {"*": "failed", FIRST: "skipped"}})
    assert states(found) == {"a": "skipped", f"a {SECOND}": "failed"}


# -- pools --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pools", [{"p": 1}, {"p": -1}, {"p": 5, "q": 0}, {"p": 1, "default_pool": 1}])
def test_pools_of_any_size_serve_their_tasks(pools):
    found = ended(task("a", pool="p"), task("b", pool="p"), task("c"), pools=pools)
    assert states(found) == {"a": "success", "b": "success", "c": "success"}


def test_a_pool_that_is_missing_or_too_small_refuses_the_job():
    assert ended(task("a", pool="p")) == {"job": "refused", "error": "pool_not_found"}
    assert ended(task("a", pool="p", pool_slots=3), pools={"p": 2}) == {"job": "refused", "error": "pool_too_small"}


def test_a_job_that_would_wait_for_a_closed_pool_for_ever_is_cancelled():
    found = ended(task("a", pool="p"), task("b", "a"), task("c"), pools={"p": 0})
    assert found == {"job": "cancelled", FIRST: "failed", "a": NOT_STARTED, "b": NOT_STARTED, "c": DONE}


def test_a_job_that_would_wait_for_runs_that_nobody_drives_is_cancelled():
    found = ended(task("a"), dates=(SECOND, SECOND), dag={"max_active_runs": 1}, preset=[run(state="running")])
    assert found == {"job": "cancelled", FIRST: "running", "a": NOT_STARTED}


# -- what is there before -----------------------------------------------------------------------------------------------

TWO = (task("a"), task("b", "a"))
DONE_BEFORE = ("success", 1, 0)
FAILED_BEFORE = ("failed", 1, 0)


@pytest.mark.parametrize("run_type", ["scheduled", "manual", "backfill"])
@pytest.mark.parametrize(
    ("state", "before", "expected"),
    [
        ("success", "success", {"job": "success", FIRST: "success", "a": DONE_BEFORE, "b": DONE_BEFORE}),
        ("success", None, {"job": "success", FIRST: "success", "a": DONE, "b": DONE}),
        ("success", "failed", {"job": "failed", FIRST: "success", "a": FAILED_BEFORE, "b": FAILED_BEFORE}),
        ("failed", "success", {"job": "failed", FIRST: "failed", "a": DONE_BEFORE, "b": DONE_BEFORE}),
        ("failed", None, {"job": "success", FIRST: "success", "a": DONE, "b": DONE}),
        ("queued", "success", {"job": "success", FIRST: "success", "a": DONE_BEFORE, "b": DONE_BEFORE}),
        ("queued", None, {"job": "success", FIRST: "success", "a": DONE, "b": DONE}),
    ],
)
def test_a_run_that_is_there_is_counted_or_taken(run_type, state, before, expected):
    there = run(state=state, run_type=run_type) | ({"task_instances": before} if before else {})
    found = ended(*TWO, preset=[there])
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("run_type", ["scheduled", "manual"])
def test_a_running_run_of_another_type_refuses_the_job(run_type):
    found = ended(*TWO, preset=[run(state="running", run_type=run_type, task_instances="scheduled")])
    untouched = ("scheduled", 1, 0)
    expected = {"job": "refused", "error": "running_run_exists", FIRST: "running"}
    assert found == {**expected, "a": untouched, "b": untouched}


def test_a_running_backfill_that_nobody_drives_is_taken():
    found = ended(*TWO, preset=[run(state="running", run_type="backfill")])
    assert found == {"job": "success", FIRST: "success", "a": DONE, "b": DONE}


@pytest.mark.parametrize(
    ("state", "a", "b"),
    [
        (None, DONE, DONE),
        ("absent", DONE, DONE),
        ("success", DONE_BEFORE, DONE),
        ("failed", FAILED_BEFORE, BLAMED),
        ("skipped", SKIPPED, SKIPPED),
        ("upstream_failed", BLAMED, BLAMED),
        ("up_for_retry", ("success", 2, 1), DONE),
        ("up_for_reschedule", DONE, DONE),
        ("removed", DONE, DONE),
        ("queued", ("success", 2, 1), DONE),
        ("scheduled", ("success", 2, 1), DONE),
        ("running", DONE, DONE),  # without a heartbeat: an infrastructure failure, started again in the same try
    ],
)
def test_a_task_instance_in_any_state_goes_on_from_there(state, a, b):
    found = ended(*TWO, preset=[run(), row("a", state)])
    assert (found["a"], found["b"]) == (a, b)


def test_the_tries_that_were_used_count():
    tasks = [task("a", retries=2)]
    outcomes = {"a": {"*": "failed"}}
    found = ended(*tasks, preset=[run(), row("a", "up_for_retry", try_number=2)], outcomes=outcomes)
    assert found["a"] == ("failed", 3, 1)


def test_indexes_that_are_there_replace_the_unexpanded_row():
    before = [run(), row("m", "success", map_index=0), row("m", "failed", map_index=1), row("m", None, map_index=2)]
    found = ended(mapped("m", over=[1, 2, 3]), preset=before)
    assert states(found) == {"m[0]": "success", "m[1]": "failed", "m[2]": "success"}


def test_a_row_of_a_task_that_is_gone_is_removed():
    found = ended(task("a"), preset=[run(), row("gone", "failed")])
    assert (found["gone"], found["job"]) == (("removed", 1, 0), "success")


def test_indexes_of_a_task_that_was_mapped_once_are_shown_beside_its_row():
    found = ended(task("a"), preset=[run(), row("a", "success", map_index=0)])
    assert states(found) == {"a": "success", "a[0]": "removed"}


def test_what_a_task_returned_before_can_be_mapped_over():
    before = [run(), row("p", "success", **{"return": [1, 2]})]
    found = ended(task("p"), mapped("m", over="p"), preset=before)
    assert states(found) == {"p": "success", "m[0]": "success", "m[1]": "success"}


def test_what_a_branch_followed_before_still_decides():
    tasks = [task("a", kind="branch"), task("b", "a"), task("c", "a")]
    found = ended(*tasks, preset=[run(), row("a", "success", follow=["c"])])
    assert states(found) == {"a": "success", "b": "skipped", "c": "success"}


def test_before_the_start_of_the_dag_only_backfills_have_rows():
    late = {"dag": {"start_date": SECOND}, "dates": (SECOND, SECOND)}
    assert "a" not in ended(task("a"), preset=[run(task_instances="success")], **late)
    assert ended(task("a"), preset=[run(run_type="backfill", task_instances="success")], **late)["a"] == DONE_BEFORE


# -- flags --------------------------------------------------------------------------------------------------------------


def test_the_first_date_looks_at_the_past_only_if_asked_to():
    tasks = [task("a", depends_on_past=True)]
    before = {"dates": (SECOND, SECOND), "preset": [run(task_instances="failed")]}
    assert ended(*tasks, **before)["job"] == "success"
    found = ended(*tasks, **before, flags={"ignore_first_depends_on_past": False})
    assert (found["job"], found["error"]) == ("deadlocked", "deadlock_depends_on_past")
    assert found["deadlocked"] == {f"a {SECOND}"}


def test_backwards_is_refused_for_tasks_that_depend_on_the_past():
    backwards = {"run_backwards": True}
    assert ended(task("a", depends_on_past=True), flags=backwards)["error"] == "backwards_depends_on_past"
    assert ended(task("a", wait_for_downstream=True), flags=backwards)["error"] == "backwards_depends_on_past"
    assert ended(task("a"), dates=(FIRST, SECOND), flags=backwards)["job"] == "success"


def test_failed_ones_are_run_again_if_asked_for():
    before = [run(), row("a", "failed"), row("b", "upstream_failed")]
    assert states(ended(*TWO, preset=before)) == {"a": "failed", "b": "upstream_failed"}
    found = ended(*TWO, preset=before, flags={"rerun_failed_tasks": True})
    assert (found["a"], found["b"]) == (("success", 2, 1), DONE)


def test_marked_as_success_nothing_is_executed():
    outcomes = {"a": {"*": "failed"}}
    found = ended(*TWO, mapped("m", "b", over=[1]), outcomes=outcomes, flags={"mark_success": True})
    assert found["a"] == found["b"] == found["m[0]"] == ("success", 1, 0)


@pytest.mark.parametrize(("goes_on", "last"), [(False, None), (True, DONE)])
def test_later_dates_follow_a_failure_if_asked_for(goes_on, last):
    one_by_one = {"dates": (FIRST, SECOND), "dag": {"max_active_runs": 1}}
    found = ended(task("a"), **one_by_one, outcomes={"a": {FIRST: "failed"}}, flags={"continue_on_failures": goes_on})
    assert (found["job"], found.get(f"a {SECOND}")) == ("failed", last)


def test_without_retries_the_first_failure_is_final():
    found = ended(task("a", retries=3), outcomes={"a": {"*": "failed"}}, flags={"disable_retry": True})
    assert found["a"] == ("failed", 1, 1)


def test_a_subset_is_the_matches_with_what_is_upstream():
    found = ended(task("x"), *TWO, task("c", "b"), flags={"task_regex": "b"})
    assert states(found) == {"a": "success", "b": "success"}
    assert ended(task("x"), flags={"task_regex": "nobody"}) == {"job": "refused", "error": "no_matching_tasks"}


def test_without_what_is_upstream_the_matches_still_wait_for_one_another():
    alone = {"task_regex": "^b$|^c$", "include_upstream": False}
    found = ended(*TWO, task("c", "b"), flags=alone, outcomes={"b": {"*": "failed"}})
    assert states(found) == {"b": "failed", "c": "upstream_failed"}


def test_with_dependencies_ignored_each_one_goes_by_itself():
    alone = {"task_regex": "^b$|^c$", "include_upstream": False, "ignore_task_deps": True}
    found = ended(*TWO, task("c", "b"), flags=alone, outcomes={"b": {"*": "failed"}})
    assert states(found) == {"b": "failed", "c": "success"}
    found = ended(*TWO, flags={"ignore_task_deps": True}, outcomes={"a": {"*": "failed"}})
    assert states(found) == {"a": "failed", "b": "success"}


# -- what is no scenario ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (scenario(task("a", kind="snake")), "'snake'"),
        (scenario(task("a", trigger_rule="sometimes")), "'sometimes'"),
        (scenario(task("a"), outcomes={"a": {"*": "explodes"}}), "'explodes'"),
        (scenario(task("a"), flags={"hurry": True}), "'hurry'"),
        (scenario(task("s", setup=True), task("a", "s", trigger_rule="all_done")), "'a'"),
        (scenario(task("a"), flags={"task_regex": "("}), "'('"),
    ],
)
def test_what_is_no_scenario_is_named(wrong, named):
    with pytest.raises(UsageError, match=named.replace("(", r"\(")):
        run_scenario(wrong)


def test_the_result_can_be_written_as_json():
    result = run_scenario(scenario(task("a"), mapped("m", "a", over=[1]), outcomes={"a": {"*": "failed"}}))
    assert json.loads(json.dumps(result)) == result
