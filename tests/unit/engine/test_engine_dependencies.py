"""Lines 1, 2, 4 and 5 of S4.1, what settles by itself, and what edits from outside do."""

from __future__ import annotations

from datetime import timedelta

import pytest
from engine_bench import NOW, Bench, branch, dag, empty, python, short_circuit

from backfill.engine.window import Options


def test_a_task_is_ready_when_its_upstream_task_has_succeeded() -> None:
    with dag() as it:
        python("a") >> python("b")
    bench = Bench(it)
    assert bench.ready() == ["a"]
    bench.set("a", "queued")
    assert bench.ready() == []
    bench.set("a", "running")
    bench.set("a", "success")
    assert bench.ready() == ["b"]


# -- skip decisions ---------------------------------------------------------------------------------------------------


def test_a_branch_skips_what_it_decided_to_skip_and_its_choice_goes_on() -> None:
    with dag() as it:
        branch("choose") >> [python("left"), python("right")] >> python("join", trigger_rule="one_success")
    bench = Bench(it)
    bench.set("choose", "success", skips=("right",))
    assert bench.decide() == {"right": "skipped"}
    assert bench.pick() == ["left"]


def test_a_task_waits_for_whoever_may_skip_it_even_if_its_rule_would_let_it_run() -> None:
    with dag() as it:
        short_circuit("stop") >> python("a") >> python("z", trigger_rule="always")
    bench = Bench(it)
    assert bench.ready() == ["stop"]
    bench.set("stop", "success", skips=("a", "z"))
    assert bench.decide() == {"a": "skipped", "z": "skipped"}


def test_only_a_success_decides_to_skip() -> None:
    with dag() as it:
        branch("choose") >> python("a", trigger_rule="all_done")
    bench = Bench(it)
    bench.set("choose", "failed", skips=("a",))
    assert bench.ready() == ["a"]


def test_a_decision_outlives_a_clear_of_the_child() -> None:
    with dag() as it:
        branch("choose") >> python("a")
    bench = Bench(it)
    bench.set("choose", "success", skips=("a",))
    assert bench.decide() == {"a": "skipped"}
    bench.set("a", "none")
    assert bench.decide() == {"a": "skipped"}


def test_a_decision_that_comes_later_than_the_success_still_counts() -> None:
    with dag() as it:
        branch("choose") >> python("a")
    bench = Bench(it)
    bench.set("choose", "success")
    assert bench.ready() == ["a"]
    bench.set("choose", "success", skips=("a",))
    assert bench.decide() == {"a": "skipped"}


# -- setups and teardowns -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setup", "work"), [("success", None), ("failed", "upstream_failed"), ("skipped", "skipped"), ("running", None)]
)
def test_a_task_waits_for_its_indirect_setup(setup: str, work: str | None) -> None:
    with dag() as it:
        s, w = python("s").as_setup(), python("w", trigger_rule="all_done")
        s >> python("between") >> w >> python("t").as_teardown(setups=s)
    bench = Bench(it)
    bench.set_all({"s": setup, "between": "success"})
    assert bench.decide().get("w") == work
    assert ("w" in bench.pick()) is (setup == "success")


def test_a_teardown_runs_after_failed_work_and_is_skipped_with_its_setup() -> None:
    with dag() as it:
        s = python("s").as_setup()
        s >> python("w") >> python("t").as_teardown(setups=s)
    bench = Bench(it)
    bench.set_all({"s": "success", "w": "failed"})
    assert bench.ready() == ["t"]
    bench = Bench(it)
    bench.set("s", "skipped")
    assert bench.decide() == {"w": "skipped", "t": "skipped"}
    bench = Bench(it)
    bench.set("s", "failed")
    assert bench.decide() == {"w": "upstream_failed", "t": "upstream_failed"}


# -- what needs no worker -----------------------------------------------------------------------------------------------


def test_an_empty_operator_succeeds_without_a_worker_and_counts_one_try() -> None:
    with dag() as it:
        empty("a") >> empty("b") >> python("c")
    bench = Bench(it)
    assert bench.decide() == {"a": "success", "b": "success"}
    assert bench.pick() == ["c"]
    facts = bench.window.facts(bench.id("a"))
    assert (facts.try_number, facts.try_open) == (1, False)


def test_mark_success_goes_in_the_usual_order_and_asks_no_worker() -> None:
    with dag() as it:
        python("a") >> python("b", depends_on_past=True)
        python("called", on_success_callback=lambda _: None)
    bench = Bench(it, options=Options(mark_success=True), runs=2)
    settled = list(bench.decide())
    assert settled.index("a") < settled.index("b") < settled.index("1:b")
    assert bench.pick() == ["called", "1:called"]


def test_ignored_dependencies_settle_nothing_and_hold_nothing_back() -> None:
    with dag() as it:
        branch("choose") >> [python("a"), python("b", depends_on_past=True)]
    bench = Bench(it, options=Options(ignore_task_deps=True), runs=2)
    bench.set("choose", "success", skips=("a",))
    bench.set_all({"1:choose": "failed", "b": "failed"})
    assert bench.ready() == ["a", "1:a", "1:b"]


def test_ignored_dependencies_ignore_dates_too() -> None:
    with dag() as it:
        python("a")
    bench = Bench(it, options=Options(ignore_task_deps=True))
    bench.set("a", "up_for_retry", next_attempt_at=NOW + timedelta(hours=1))
    assert bench.ready() == ["a"]


# -- dates --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["up_for_retry", "up_for_reschedule"])
def test_a_task_instance_waits_for_its_date(state: str) -> None:
    with dag() as it:
        python("a")
    bench = Bench(it)
    due = NOW + timedelta(minutes=5)
    bench.set("a", state, next_attempt_at=due)
    assert bench.ready() == []
    assert bench.window.next_due() == due
    assert not bench.window.idle()
    bench.now = due
    assert bench.ready() == ["a"]
    assert bench.window.next_due() is None


def test_a_date_that_changes_is_followed() -> None:
    with dag() as it:
        python("a")
    bench = Bench(it)
    bench.set("a", "up_for_reschedule", next_attempt_at=NOW + timedelta(minutes=5))
    bench.decide()
    bench.set("a", "up_for_reschedule", next_attempt_at=NOW + timedelta(minutes=1))
    bench.decide()
    assert bench.window.next_due() == NOW + timedelta(minutes=1)
    bench.set("a", "up_for_reschedule", next_attempt_at=NOW - timedelta(minutes=1))
    assert bench.ready() == ["a"]


def test_a_task_instance_that_waits_for_a_date_is_settled_by_its_dependencies() -> None:
    with dag() as it:
        python("a") >> python("b")
    bench = Bench(it, states={"a": "success"})
    bench.set("b", "up_for_retry", next_attempt_at=NOW + timedelta(minutes=5))
    assert bench.decide() == {}
    bench.set("a", "failed")
    assert bench.decide() == {"b": "upstream_failed"}
    assert bench.window.next_due() is None


# -- edits from outside -------------------------------------------------------------------------------------------------


def test_clearing_an_upstream_task_instance_takes_back_what_was_scheduled() -> None:
    with dag() as it:
        python("a") >> python("b")
    bench = Bench(it, states={"a": "success"})
    assert bench.ready() == ["b"]
    bench.set("b", "scheduled")
    assert bench.ready() == ["b"]
    bench.set("a", "none")
    decisions = bench.decisions()
    assert bench.names(decisions.unschedule) == ["b"]
    assert bench.state("b") == "none"
    assert bench.pick() == ["a"]


def test_a_scheduled_task_instance_that_may_not_go_is_taken_back_at_admission() -> None:
    with dag() as it:
        python("a") >> python("b")
    bench = Bench(it, states={"a": "running", "b": "scheduled"})
    assert bench.names(bench.decisions().unschedule) == ["b"]


def test_what_is_in_flight_is_left_alone_when_its_upstream_is_cleared() -> None:
    with dag() as it:
        python("a") >> python("b")
    bench = Bench(it, states={"a": "success", "b": "running"})
    bench.decide()
    bench.set("a", "failed")
    assert bench.decide() == {}
    assert bench.state("b") == "running"


def test_what_was_settled_stays_so_when_its_upstream_is_cleared() -> None:
    with dag() as it:
        python("a") >> python("b") >> python("c")
    bench = Bench(it)
    bench.set("a", "failed")
    assert bench.decide() == {"b": "upstream_failed", "c": "upstream_failed"}
    bench.set("a", "none")
    assert bench.ready() == ["a"]
    bench.set_all({"b": "none", "c": "none"})
    assert bench.decide() == {}
    bench.set("a", "success")
    assert bench.ready() == ["b"]


def test_a_settled_row_that_turned_out_otherwise_is_corrected() -> None:
    with dag() as it:
        python("a") >> python("b") >> python("c")
    bench = Bench(it)
    bench.set("a", "skipped")
    assert bench.decide() == {"b": "skipped", "c": "skipped"}
    bench.set_all({"b": "success", "c": "none"})
    assert bench.ready() == ["c"]
