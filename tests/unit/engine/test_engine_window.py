"""The window itself: runs come and go, rows are taken in, counts, the end of runs, `fail_stop`."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from engine_bench import ATTEMPT, NOW, Bench, dag, empty, mapped, python, run_facts

from backfill.dag import DAG
from backfill.engine.codes import CODES, NONE, QUEUED, REMOVED, SUCCESS, WORDS
from backfill.engine.graph import Graph
from backfill.engine.window import Counts, Options, RunOutcome, Window
from backfill.keys import TaskInstanceKey
from backfill.states import FINISHED, IDLE, IN_FLIGHT, UNFINISHED, DagRunState, TaskInstanceState


def pair() -> DAG:
    with dag() as it:
        python("a") >> python("b")
    return it


def test_codes_are_in_the_order_that_comparisons_rely_on() -> None:
    assert {word for word in WORDS if CODES[word] < QUEUED} == IDLE
    assert {word for word in WORDS if QUEUED <= CODES[word] < SUCCESS} == IN_FLIGHT
    assert {word for word in WORDS if CODES[word] < SUCCESS} == UNFINISHED
    assert {word for word in WORDS if CODES[word] >= SUCCESS} == FINISHED
    assert CODES["none"] == CODES[TaskInstanceState.NONE] == NONE
    assert max(CODES.values()) == REMOVED


# -- rows ---------------------------------------------------------------------------------------------------------------


def test_taking_in_the_same_rows_again_changes_nothing() -> None:
    bench = Bench(pair())
    bench.decide()
    row = bench.rows["a"]._replace(state="running", attempt_id=ATTEMPT, try_number=1, try_open=True)
    assert bench.window.take_in([row]) == [row]
    assert bench.window.take_in([row, row]) == []
    done = row._replace(state="success", try_open=False)
    assert bench.window.take_in([done]) == [done]
    assert bench.window.take_in([done]) == []
    assert bench.window.take_in([done._replace(attempt_id=None)]) == []


@pytest.mark.parametrize(
    "values",
    [
        {"state": "scheduled"},
        {"try_number": 3},
        {"max_tries": 9},
        {"try_open": True},
        {"attempt_id": ATTEMPT},
        {"next_attempt_at": NOW},
        {"infrastructure_failures": 2},
        {"skips": ("b",)},
    ],
)
def test_any_difference_is_told_and_known_afterwards(values: dict[str, object]) -> None:
    bench = Bench(pair())
    row = bench.rows["a"]._replace(**values)  # type: ignore[arg-type]
    assert bench.window.take_in([row]) == [row]
    assert bench.window.facts(row.id) == row


def test_rows_of_other_runs_and_of_unknown_tasks_have_no_effect() -> None:
    bench = Bench(pair())
    other = bench.make_row(7, "a")
    vanished = bench.make_row(0, "ghost", state="failed")
    assert bench.window.take_in([other, vanished]) == []
    assert not bench.window.knows(other.id)
    assert not bench.window.knows(vanished.id)


def test_task_instances_are_found_by_id() -> None:
    with dag() as it:
        mapped("m", [[1], [2]])
    bench = Bench(it)
    row = bench.rows["m[1]"]
    assert bench.window.knows(row.id)
    assert bench.window.facts(row.id) == row
    assert bench.window.key(row.id) == TaskInstanceKey("d", "m", "run 0", 1)
    assert bench.window.run(100) == run_facts(0)
    assert bench.window.rows(100) == [bench.rows["m[0]"], row]
    with pytest.raises(KeyError):
        bench.window.facts(999)


def test_the_order_of_the_rows_at_admission_does_not_matter() -> None:
    with dag() as it:
        python("a") >> mapped("m", [[i] for i in range(6)]) >> python("z")
    bench = Bench(it, states={"a": "success", "m[1]": "success", "m[4]": "failed"})
    rows = list(bench.rows.values())
    random.Random(1).shuffle(rows)
    other = Window(Graph.compile(it))
    other.admit(run_facts(0), rows, first=True, previous=None)
    assert bench.decide() == {"z": "upstream_failed"}
    assert bench.names(ti_id for ti_id, _ in other.decide(NOW).settle) == ["z"]
    assert bench.names(other.pick(bench.occupancy())) == bench.pick() == ["m[0]", "m[2]", "m[3]", "m[5]"]
    assert other.counts() == bench.window.counts()


def test_a_task_without_a_row_counts_as_removed_until_one_comes() -> None:
    bench = Bench(pair(), runs=0)
    b = bench.make_row(0, "b")
    bench.window.admit(run_facts(0), [b], first=True, previous=None)
    assert bench.ready() == ["b"]
    bench.window.take_in([bench.make_row(0, "a")])
    assert bench.ready() == ["a"]


# -- runs ---------------------------------------------------------------------------------------------------------------


def test_a_run_is_admitted_once() -> None:
    bench = Bench(pair())
    with pytest.raises(ValueError, match="in the window already"):
        bench.window.admit(run_facts(0), [], first=True, previous=None)


def test_a_window_takes_the_options_of_its_graph() -> None:
    with pytest.raises(ValueError, match="other options"):
        Window(Graph.compile(pair()), Options(mark_success=True))


def test_a_run_that_leaves_takes_everything_with_it() -> None:
    bench = Bench(pair(), runs=2)
    bench.decide()
    bench.set("1:a", "up_for_retry", next_attempt_at=NOW + timedelta(hours=1))
    bench.decide()
    bench.window.remove(100)
    bench.window.remove(101)
    assert bench.window.counts() == Counts(0, 0, 0, 0, 0, 0)
    assert bench.pick() == []
    assert bench.window.ready_unplaced() == []
    assert bench.window.next_due() is None
    assert bench.window.idle()
    assert not bench.window.knows(bench.id("a"))
    board = bench.window._board
    assert not any([board.runs, board.by_id, board.places, board.finished, board.held])


def test_a_run_may_come_back() -> None:
    bench = Bench(pair())
    bench.decide()
    bench.window.remove(100)
    bench.window.admit(run_facts(0), bench.rows.values(), first=True, previous=None)
    assert bench.ready() == ["a"]


def test_a_run_without_task_instances_is_finished_at_once() -> None:
    with dag() as it:
        pass
    bench = Bench(it)
    assert bench.window.finished_runs() == [RunOutcome(100, DagRunState.SUCCESS, "success")]


def test_a_run_finishes_when_nothing_of_it_is_unfinished() -> None:
    bench = Bench(pair(), runs=2)
    bench.set_all({"1:a": "success", "1:b": "success", "a": "failed"})
    assert bench.window.finished_runs() == [RunOutcome(101, DagRunState.SUCCESS, "success")]
    bench.decide()
    assert bench.window.finished_runs()[0] == RunOutcome(100, DagRunState.FAILED, "task_failure")
    bench.set("b", "none")
    assert [outcome.dag_run_id for outcome in bench.window.finished_runs()] == [101]


def test_a_failed_inner_task_under_an_all_done_leaf_does_not_fail_the_run() -> None:
    with dag() as it:
        python("a") >> python("z", trigger_rule="all_done")
    bench = Bench(it)
    bench.set_all({"a": "failed", "z": "success"})
    assert bench.window.finished_runs()[0].state is DagRunState.SUCCESS


@pytest.mark.parametrize(("fatal", "state"), [(False, DagRunState.SUCCESS), (True, DagRunState.FAILED)])
def test_a_failed_teardown_fails_the_run_only_if_it_says_so(fatal: bool, state: DagRunState) -> None:
    with dag() as it:
        python("w") >> python("t").as_teardown(on_failure_fail_dagrun=fatal)
    bench = Bench(it)
    bench.set_all({"w": "success", "t": "failed"})
    assert bench.window.finished_runs()[0].state is state


def test_a_removed_leaf_does_not_count() -> None:
    bench = Bench(pair())
    bench.set_all({"a": "success", "b": "removed"})
    assert bench.window.finished_runs()[0].state is DagRunState.SUCCESS


# -- a subset of the DAG ------------------------------------------------------------------------------------------------


def subset(others: dict[str, str]) -> Bench:
    """Return a bench where only `a` is chosen of a >> b, c >> d; `others` have rows."""
    with dag() as it:
        python("a") >> python("b")
        python("c") >> python("d")
    bench = Bench(it, runs=0, chosen=["a"])
    bench.admit(0, states=others, more=[(name, -1) for name in others])
    return bench


def test_a_subset_is_judged_over_the_whole_dag_if_the_rest_is_finished() -> None:
    bench = subset({"b": "success", "c": "success", "d": "failed"})
    assert bench.ready() == ["a"]
    bench.set("a", "success")
    assert bench.window.finished_runs() == [RunOutcome(100, DagRunState.FAILED, "task_failure", counts=False)]
    assert bench.set("d", "skipped") == [bench.rows["d"]]
    assert bench.set("d", "skipped") == []
    assert bench.window.finished_runs() == [RunOutcome(100, DagRunState.SUCCESS, "success")]


def test_an_inner_failure_of_the_subset_does_not_fail_the_whole() -> None:
    bench = subset({"b": "success", "c": "success", "d": "success"})
    bench.set("a", "failed")
    assert bench.window.finished_runs() == [RunOutcome(100, DagRunState.SUCCESS, "success")]


@pytest.mark.parametrize(
    "others",
    [{}, {"b": "failed"}, {"b": "success", "c": "none", "d": "failed"}, {"b": "failed", "c": "failed", "d": "removed"}],
)
def test_a_subset_is_judged_by_itself_if_the_rest_is_not_there_or_unfinished(others: dict[str, str]) -> None:
    bench = subset(others)
    bench.set("a", "success")
    assert bench.window.finished_runs() == [RunOutcome(100, DagRunState.SUCCESS, "success")]
    bench.set("a", "failed")
    assert bench.window.finished_runs() == [RunOutcome(100, DagRunState.FAILED, "task_failure")]


def test_tasks_that_were_not_chosen_are_neither_counted_nor_run() -> None:
    bench = subset({"b": "none", "c": "none", "d": "none"})
    assert bench.ready() == ["a"]
    assert bench.window.counts().total == 1
    assert not bench.window.knows(bench.id("b"))


# -- counts and rest ----------------------------------------------------------------------------------------------------


def test_counts_follow_every_state() -> None:
    with dag() as it:
        for name in ("none", "scheduled", "queued", "running", "success", "failed", "skipped", "upstream_failed"):
            python(name)
        for name in ("up_for_retry", "up_for_reschedule", "removed"):
            python(name)
    bench = Bench(it)
    assert bench.window.counts() == Counts(waiting=11, running=0, succeeded=0, failed=0, upstream_failed=0, skipped=0)
    bench.set_all({name: name for name in bench.graph.task_ids})
    counts = bench.window.counts()
    assert counts == Counts(waiting=4, running=2, succeeded=1, failed=2, upstream_failed=1, skipped=1)
    assert counts.total == 10


def test_the_window_is_idle_when_nothing_can_go_by_itself() -> None:
    bench = Bench(pair())
    assert not bench.window.idle()
    bench.decide()
    assert not bench.window.idle()
    bench.set("a", "running")
    bench.decide()
    assert not bench.window.idle()
    bench.set("a", "up_for_retry", next_attempt_at=NOW + timedelta(hours=1))
    bench.decide()
    assert not bench.window.idle()
    bench.set_all({"a": "success", "b": "success"})
    bench.decide()
    assert bench.window.idle()


def test_a_pass_without_news_says_nothing() -> None:
    with dag() as it:
        empty("a") >> python("b")
    bench = Bench(it)
    assert bench.decisions()
    assert not bench.decisions()


# -- fail_stop ----------------------------------------------------------------------------------------------------------


def test_fail_stop_spares_what_has_ended_and_teardowns() -> None:
    with dag() as it:
        states = {
            "done": "success",
            "bad": "failed",
            "below": "upstream_failed",
            "passed": "skipped",
            "idle": "none",
            "waits": "up_for_retry",
            "sent": "queued",
            "runs": "running",
        }
        for name in states:
            python(name)
        mapped("m", [[1], [2]])
        python("t").as_teardown()
    bench = Bench(it, states=states | {"m[0]": "failed"})
    stopped = {bench.name(ti_id): str(state) for ti_id, state in bench.window.fail_stop(bench.id("m[0]"))}
    assert stopped == {
        "below": "skipped",
        "idle": "skipped",
        "waits": "skipped",
        "sent": "skipped",
        "runs": "failed",
    }


# -- cost ---------------------------------------------------------------------------------------------------------------


def count_judgements(bench: Bench) -> list[tuple[int, int]]:
    """Return a list that grows by (task, index) with each judgement."""
    judge = bench.window._judge
    seen: list[tuple[int, int]] = []
    verdict = judge.verdict

    def counted(run: object, task: int, index: int) -> object:
        seen.append((task, index))
        return verdict(run, task, index)  # type: ignore[arg-type]

    judge.verdict = counted  # type: ignore[method-assign, assignment]
    return seen


def test_only_the_last_of_many_upstream_ends_calls_for_a_judgement() -> None:
    with dag() as it:
        [python(f"u{i}") for i in range(300)] >> python("z")
    bench = Bench(it)
    bench.decide()
    seen = count_judgements(bench)
    for i in range(299):
        bench.set(f"u{i}", "success")
        bench.decide()
    assert seen == []
    bench.set("u299", "success")
    bench.decide()
    assert seen == [(300, -1)]


def test_all_indexes_of_a_mapped_task_are_judged_at_once() -> None:
    with dag() as it:
        python("a") >> mapped("m", [[i] for i in range(1000)])
    bench = Bench(it)
    bench.decide()
    seen = count_judgements(bench)
    bench.set("a", "success")
    bench.decide()
    assert len(seen) == 1
    assert len(bench.pick()) == 16


def test_an_end_in_one_run_has_no_other_run_judged() -> None:
    bench = Bench(pair(), runs=50)
    bench.decide()
    seen = count_judgements(bench)
    bench.set("7:a", "success")
    bench.decide()
    assert len(seen) == 1
