"""The table of S4.3, each rule against every multiset of upstream states in every order of arrival."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from engine_bench import Bench, dag, python
from engine_reference import trigger_rule

from backfill.engine.codes import CODES
from backfill.engine.rules import AT_ONCE, RULES, RUN_AFTER_SUCCESS, Upstream, judge
from backfill.engine.verdicts import Verdict
from backfill.states import TriggerRule

ENDS = ["success", "skipped", "failed", "upstream_failed"]
WORDS = {Verdict.PASS: "pass", Verdict.WAIT: "wait", Verdict.SKIP: "skipped", Verdict.FAIL: "upstream_failed"}


def upstream_of(states: tuple[str, ...]) -> Upstream:
    found = Counter(states)
    bad = found["failed"] + found["upstream_failed"]
    return Upstream(len(states), s=found["success"], k=found["skipped"], f=bad, x=found["failed"])


@pytest.mark.parametrize("rule", TriggerRule)
@pytest.mark.parametrize("size", range(5))
def test_the_table_says_what_a_second_reading_of_it_says(rule: TriggerRule, size: int) -> None:
    for states in itertools.combinations_with_replacement([*ENDS, "running"], size):
        assert WORDS[judge(rule, upstream_of(states))] == trigger_rule(rule, list(states), [])


@pytest.mark.parametrize("setups", list(itertools.product([*ENDS, "running"], repeat=2)))
@pytest.mark.parametrize("other", [*ENDS, "running"])
def test_a_teardown_looks_at_its_setups(setups: tuple[str, str], other: str) -> None:
    upstream = upstream_of((*setups, other))._replace(
        setups=2, setups_s=setups.count("success"), setups_k=setups.count("skipped")
    )
    found = judge(TriggerRule.ALL_DONE_SETUP_SUCCESS, upstream)
    assert WORDS[found] == trigger_rule("all_done_setup_success", [*setups, other], list(setups))


@pytest.mark.parametrize("rule", TriggerRule)
def test_at_most_one_column_of_the_table_holds(rule: TriggerRule) -> None:
    for size in range(1, 5):
        for states in itertools.combinations_with_replacement([*ENDS, "running"], size):
            u = upstream_of(states)
            row = RULES[rule]
            assert row.runs(u) + row.skipped(u) + row.upstream_failed(u) <= 1


@pytest.mark.parametrize("rule", TriggerRule)
def test_once_all_upstream_task_instances_have_finished_every_rule_runs_or_settles(rule: TriggerRule) -> None:
    for size in range(5):
        for states in itertools.combinations_with_replacement(ENDS, size):
            assert judge(rule, upstream_of(states)) is not Verdict.WAIT


@pytest.mark.parametrize("rule", TriggerRule)
def test_what_was_decided_at_once_is_not_revised_by_what_arrives_later(rule: TriggerRule) -> None:
    for states in itertools.product(ENDS, repeat=3):
        early = judge(rule, upstream_of((states[0], "running", "running")))
        middle = judge(rule, upstream_of((states[0], states[1], "running")))
        late = judge(rule, upstream_of(states))
        assert early in {Verdict.WAIT, middle}
        assert middle in {Verdict.WAIT, late}


@pytest.mark.parametrize("rule", TriggerRule)
def test_only_an_end_that_decides_at_once_can_decide_before_the_last(rule: TriggerRule) -> None:
    for states in itertools.product([*ENDS, "running"], repeat=2):
        before = judge(rule, upstream_of((*states, "running", "running")))
        for end in ENDS:
            after = judge(rule, upstream_of((*states, end, "running")))
            assert after is before or CODES[end] in AT_ONCE[rule]


def test_rules_that_do_not_run_after_success_are_the_three_that_want_something_else() -> None:
    assert set(TriggerRule) - RUN_AFTER_SUCCESS == {
        TriggerRule.ALL_FAILED,
        TriggerRule.ALL_SKIPPED,
        TriggerRule.ONE_FAILED,
    }


@pytest.mark.parametrize("rule", TriggerRule)
def test_a_task_without_upstream_tasks_passes_every_rule(rule: TriggerRule) -> None:
    with dag() as it:
        python("a", trigger_rule=rule)
    assert Bench(it).ready() == ["a"]


@pytest.mark.parametrize("rule", TriggerRule)
def test_every_order_of_arrival_gives_the_same(rule: TriggerRule) -> None:
    with dag() as it:
        [python("a"), python("b"), python("c")] >> python("z", trigger_rule=rule)
    for states in itertools.combinations_with_replacement(ENDS, 3):
        expected = trigger_rule(rule, list(states), [])
        for order in itertools.permutations(zip("abc", states, strict=True)):
            bench = Bench(it)
            found = "ready" if "z" in bench.ready() else None
            for name, state in order:
                bench.set(name, state)
                found = bench.decide().get("z") or found or ("ready" if "z" in bench.pick() else None)
            assert found == {"pass": "ready"}.get(expected, expected)


def test_a_failure_beats_a_skip_whichever_comes_first() -> None:
    with dag() as it:
        [python("a"), python("b")] >> python("z")
    skip_first, failure_first = Bench(it), Bench(it)
    skip_first.set("a", "skipped")
    assert skip_first.decide() == {}
    skip_first.set("b", "failed")
    assert skip_first.decide() == {"z": "upstream_failed"}
    failure_first.set("b", "failed")
    assert failure_first.decide() == {"z": "upstream_failed"}


def test_removed_upstream_task_instances_do_not_count() -> None:
    with dag() as it:
        [python("a"), python("b")] >> python("z")
    bench = Bench(it)
    bench.set_all({"a": "success", "b": "removed"})
    assert "z" in bench.ready()
    bench.set("b", "none")
    assert bench.ready() == ["b"]


def test_a_chain_of_a_hundred_skips_settles_in_one_call() -> None:
    with dag() as it:
        tasks = [python(f"t{i}") for i in range(101)]
        for one, other in itertools.pairwise(tasks):
            one >> other
    bench = Bench(it)
    bench.decide()
    bench.set("t0", "skipped")
    assert bench.decide() == {f"t{i}": "skipped" for i in range(1, 101)}
    assert bench.window.finished_runs()
