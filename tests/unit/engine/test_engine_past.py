"""`depends_on_past` and `wait_for_downstream`, with the run before inside and outside of the window (S4.9, S4.10)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from engine_bench import DAY_0, Bench, dag, mapped, python, run_facts

from backfill.dag import DAG
from backfill.engine.window import Options
from backfill.facts import PreviousRun


def dependent(**arguments: Any) -> DAG:
    with dag() as it:
        python("a", depends_on_past=True, **arguments) >> python("b")
    return it


def before(
    states: dict[str, tuple[str, ...]], *, driven: bool = False, seen: str = "ab", run: int | None = 99
) -> PreviousRun:
    return PreviousRun(DAY_0 - timedelta(days=1), run, driven, states, frozenset(seen))


def after(previous: PreviousRun | None, it: DAG | None = None, *, first: bool = False, **options: bool) -> Bench:
    """Return a bench with one run that looks back at `previous`."""
    bench = Bench(it or dependent(), runs=0, options=Options(**options))
    bench.admit(0, first=first, previous=previous)
    return bench


# -- the run before in the window ---------------------------------------------------------------------------------------


def test_a_task_waits_for_itself_in_the_run_before() -> None:
    bench = Bench(dependent(), runs=3)
    assert bench.ready() == ["a"]
    bench.set("a", "running")
    assert bench.ready() == []
    bench.set("a", "success")
    assert bench.ready() == ["1:a", "b"]
    bench.set("1:a", "skipped")
    assert "2:a" in bench.ready()


def test_a_failure_in_the_run_before_holds_back_for_good_until_it_is_cleared() -> None:
    bench = Bench(dependent(), runs=2)
    bench.set("a", "failed")
    assert bench.ready() == []
    assert bench.blocked() == {"1:a": "past", "1:b": "upstream"}
    assert bench.window.stuck_runs() == [101]
    bench.set("a", "none")
    assert bench.ready() == ["a"]
    assert bench.blocked() == {}
    bench.set("a", "success")
    assert "1:a" in bench.ready()


def test_upstream_ends_settle_what_the_past_still_holds_back() -> None:
    with dag() as it:
        python("a") >> python("b", depends_on_past=True)
    bench = Bench(it, runs=2)
    bench.set("1:a", "failed")
    assert bench.decide() == {"1:b": "upstream_failed"}


def test_a_run_that_finished_is_remembered_when_it_leaves() -> None:
    bench = Bench(dependent(), runs=2)
    bench.set_all({"a": "success", "b": "failed"})
    bench.window.remove(100)
    assert bench.ready() == ["1:a"]


def test_a_run_that_left_unfinished_holds_back_for_good() -> None:
    bench = Bench(dependent(), runs=2)
    bench.decide()
    bench.window.remove(100)
    assert bench.ready() == []
    assert bench.blocked() == {"1:a": "past", "1:b": "upstream"}
    assert bench.window.awaiting_previous() == []
    assert bench.window.held_by_previous() == [101]


def test_the_run_before_may_be_admitted_later() -> None:
    bench = Bench(dependent(), runs=0)
    earlier = run_facts(0)
    bench.admit(1, previous=PreviousRun(earlier.logical_date, earlier.id, True, {"a": ("none",)}, frozenset("ab")))
    assert bench.ready() == []
    bench.admit(0)
    assert bench.ready() == ["a"]
    bench.set("a", "success")
    assert "1:a" in bench.ready()


def test_a_run_in_the_window_is_driven_whatever_was_said_before() -> None:
    bench = Bench(dependent(), runs=1)
    bench.admit(1, previous=bench.previous(1, driven=False))
    assert bench.ready() == ["a"]
    assert bench.blocked() == {}
    assert bench.window.held_by_previous() == []


def test_wait_for_downstream_waits_for_direct_children_in_the_run_before() -> None:
    with dag() as it:
        python("a", wait_for_downstream=True) >> python("b") >> python("c")
    bench = Bench(it, runs=2)
    bench.set("a", "success")
    assert bench.ready() == ["b"]
    bench.set("b", "success")
    assert bench.ready() == ["1:a", "c"]
    bench.set("b", "failed")
    assert "1:a" not in bench.ready()
    assert bench.blocked()["1:a"] == "past"


def test_all_indexes_of_a_mapped_task_must_have_ended_well() -> None:
    with dag() as it:
        mapped("m", [[1], [2]], depends_on_past=True)
    bench = Bench(it, runs=2)
    bench.set("m[0]", "success")
    assert bench.ready() == ["m[1]"]
    bench.set("m[1]", "skipped")
    assert bench.ready() == ["1:m[0]", "1:m[1]"]
    bench.set("m[1]", "removed")
    assert bench.ready() == ["1:m[0]", "1:m[1]"]


# -- the run before outside of the window -------------------------------------------------------------------------------


def test_without_a_run_before_it_passes() -> None:
    assert after(None).ready() == ["a"]


@pytest.mark.parametrize("state", ["success", "skipped"])
def test_a_good_end_in_the_run_before_lets_it_go(state: str) -> None:
    bench = after(before({"a": (state,)}))
    assert bench.ready() == ["a"]
    assert bench.window.held_by_previous() == []


@pytest.mark.parametrize("state", ["failed", "upstream_failed"])
@pytest.mark.parametrize("driven", [True, False])
def test_a_bad_end_in_the_run_before_blocks(state: str, driven: bool) -> None:
    bench = after(before({"a": (state,)}, driven=driven))
    assert bench.ready() == []
    assert bench.blocked() == {"a": "past", "b": "upstream"}
    assert bench.window.awaiting_previous() == []
    assert bench.window.idle()


def test_an_unfinished_task_instance_blocks_only_if_nobody_drives_its_run() -> None:
    driven, abandoned = after(before({"a": ("none",)}, driven=True)), after(before({"a": ("none",)}))
    assert driven.ready() == abandoned.ready() == []
    assert driven.blocked() == {}
    assert driven.window.awaiting_previous() == [100]
    assert abandoned.blocked() == {"a": "past", "b": "upstream"}
    assert abandoned.window.awaiting_previous() == []


def test_the_progress_of_another_job_is_told_by_update_previous() -> None:
    bench = after(before({"a": ("running",)}, driven=True))
    assert bench.ready() == []
    bench.window.update_previous(100, before({"a": ("success",)}, driven=True))
    assert bench.ready() == ["a"]
    assert bench.window.awaiting_previous() == []


def test_a_date_without_a_run_never_passes() -> None:
    bench = after(before({}, driven=True, seen="", run=None), dependent(start_date=DAY_0))
    assert bench.ready() == []
    assert bench.window.awaiting_previous() == [100]


def test_a_task_that_is_new_passes_if_it_may_ignore_its_first_date() -> None:
    assert after(before({}, seen="")).ready() == ["a"]
    assert after(before({"a": ("removed",)}, seen="")).ready() == ["a"]


@pytest.mark.parametrize(("ignores_first", "seen"), [(True, "a"), (False, ""), (False, "a")])
def test_a_task_missing_in_the_run_before_blocks_otherwise(ignores_first: bool, seen: str) -> None:
    bench = after(before({}, seen=seen), dependent(ignore_first_depends_on_past=ignores_first))
    assert bench.ready() == []
    assert bench.blocked() == {"a": "past", "b": "upstream"}


def test_a_run_before_the_start_date_of_the_task_does_not_count() -> None:
    failed = before({"a": ("failed",)})
    assert after(failed, dependent(start_date=DAY_0)).ready() == ["a"]
    assert after(failed, dependent(start_date=DAY_0 + timedelta(days=1))).ready() == []
    assert after(failed, dependent(start_date=datetime(2023, 12, 31, tzinfo=UTC))).ready() == []


def test_the_first_run_of_the_range_passes_if_the_job_ignores_its_past() -> None:
    failed = before({"a": ("failed",)})
    assert after(failed, first=True, ignore_first_depends_on_past=True).ready() == ["a"]
    assert after(failed, first=False, ignore_first_depends_on_past=True).ready() == []
    assert after(failed, first=True).ready() == []


def test_a_run_whose_tasks_are_done_does_not_wait_for_the_past() -> None:
    bench = Bench(dependent(), runs=0)
    bench.admit(0, states={"a": "success"}, previous=before({"a": ("none",)}, driven=True))
    assert bench.window.awaiting_previous() == []
    assert bench.ready() == ["b"]
