"""The judge of the other tests finds what it looks for."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from chaos_plans import Ending, Key, Plan, TaskPlan, random_plan
from chaos_table import COLUMNS, row_of, table
from chaos_verdict import Entry, Row, Verdict, judge, seconds_to_recover

KEY = Key("a", 3, -1)
FIRST, SECOND = (str(uuid.UUID(int=number)) for number in (1, 2))


def entry(event: str, attempt_id: str = FIRST, try_number: int = 1, pid: int = 7, moment: float = 0.0) -> Entry:
    run_id = "backfill__2024-01-03T00:00:00+00:00"
    return Entry(event, "chaos", "a", run_id, -1, try_number, attempt_id, pid, 0.0, moment)


def verdict(journal: list[Entry], outcomes: dict[str, str | None], state: str = "success", tries: int = 1) -> Verdict:
    return judge({KEY: Ending("success", 1)}, journal, {KEY: Row(state, tries, "it broke", outcomes)}, spoils="")


def found(said: Verdict) -> set[str]:
    """Return the names of what is wrong by the verdict."""
    names = ("run_twice", "overlapping", "not_committed", "lost", "differing")
    return {name for name in names if getattr(said, name)}


def test_nothing_is_wrong_with_work_that_was_done_once() -> None:
    said = verdict([entry("start"), entry("tick"), entry("end")], {FIRST: "success"})
    assert found(said) == set()
    assert (said.task_instances, said.started, said.finished) == (1, 1, 1)


def test_work_that_was_killed_and_done_again_is_no_double_run() -> None:
    journal = [entry("start"), entry("start", SECOND, pid=8), entry("end", SECOND, pid=8)]
    said = verdict(journal, {FIRST: "lost", SECOND: "success"})
    assert found(said) == set()
    assert (said.started, said.finished, said.attempts_lost) == (2, 1, 1)


def test_a_retry_after_a_failed_try_is_no_double_run() -> None:
    journal = [entry("start"), entry("fail"), entry("start", SECOND, 2), entry("end", SECOND, 2)]
    rows = {KEY: Row("success", 2, "", {FIRST: "up_for_retry", SECOND: "success"})}
    assert found(judge({KEY: Ending("success", 2)}, journal, rows)) == set()


@pytest.mark.parametrize("outcome", ["success", "failed"])
def test_finished_work_that_begins_again_is_a_double_run(outcome: str) -> None:
    journal = [entry("start"), entry("end"), entry("start", SECOND, pid=8), entry("end", SECOND, pid=8)]
    assert found(verdict(journal, {FIRST: outcome, SECOND: "success"})) == {"run_twice"}


def test_the_same_attempt_in_two_processes_is_a_double_run() -> None:
    journal = [entry("start"), entry("end"), entry("start", pid=8), entry("end", pid=8)]
    assert found(verdict(journal, {FIRST: "success"})) == {"run_twice"}


def test_a_failed_try_that_is_repeated_as_the_same_try_is_a_double_run() -> None:
    journal = [entry("start"), entry("fail"), entry("start", SECOND), entry("end", SECOND)]
    assert found(verdict(journal, {FIRST: "up_for_retry", SECOND: "success"})) == {"run_twice"}


def test_work_whose_end_was_not_written_any_more_is_told_apart() -> None:
    journal = [entry("start"), entry("end"), entry("start", SECOND, pid=8), entry("end", SECOND, pid=8)]
    assert found(verdict(journal, {FIRST: "lost", SECOND: "success"})) == {"not_committed"}


@pytest.mark.parametrize("sign", ["tick", "end"])
def test_a_sign_of_life_after_another_attempt_has_begun_is_an_overlap(sign: str) -> None:
    journal = [entry("start"), entry("start", SECOND, pid=8), entry(sign), entry("end", SECOND, pid=8)]
    assert "overlapping" in found(verdict(journal, {FIRST: "lost", SECOND: "success"}))


@pytest.mark.parametrize("state", ["none", "queued", "running", "up_for_retry"])
def test_what_is_in_no_final_state_is_lost(state: str) -> None:
    assert found(verdict([entry("start"), entry("end")], {FIRST: "success"}, state)) == {"lost", "differing"}


def test_what_has_no_row_is_lost() -> None:
    assert len(judge({KEY: Ending("skipped", 0)}, [], {}).lost) == 1


def test_success_without_work_is_lost() -> None:
    assert found(verdict([entry("start")], {FIRST: "success"})) == {"lost"}


def test_an_attempt_of_which_nobody_wrote_how_it_ended_is_lost() -> None:
    journal = [entry("start"), entry("start", SECOND, pid=8), entry("end", SECOND, pid=8)]
    assert found(verdict(journal, {FIRST: None, SECOND: "success"})) == {"lost"}


@pytest.mark.parametrize(("state", "tries"), [("failed", 1), ("success", 2)])
def test_another_state_or_another_number_of_tries_is_a_difference(state: str, tries: int) -> None:
    assert found(verdict([entry("start"), entry("end")], {FIRST: "success"}, state, tries)) == {"differing"}


def test_a_failure_is_excused_by_its_error_and_excuses_what_depends_on_it() -> None:
    below = Key("b", 3, -1)
    endings = {KEY: Ending("success", 1), below: Ending("success", 1)}
    rows = {KEY: Row("failed", 1, "the disk is full", {FIRST: "failed"}), below: Row("upstream_failed", 0, "")}
    said = judge(endings, [entry("start")], rows, spoils="disk is full")
    assert (said.differing, len(said.spoiled)) == ([], 2)
    assert len(judge(endings, [entry("start")], rows, spoils="another reason").differing) == 2


def test_what_was_in_flight_has_recovered_with_its_next_sign_of_progress() -> None:
    journal = [entry("start", moment=1.0), entry("tick", moment=2.5), entry("start", SECOND, moment=4.0)]
    assert seconds_to_recover([KEY], 2.0, journal) == 2.0
    assert seconds_to_recover([], 2.0, journal) == 0.0


@pytest.mark.parametrize("make", [lambda seed: random_plan(seed, doomed=True), random_plan], ids=["doomed", "sound"])
def test_a_random_plan_has_an_end_for_each_task_and_day(make: Callable[[int], Plan]) -> None:
    for seed in range(20):
        plan = make(seed)
        endings = plan.endings()
        assert {key[:2] for key in endings} == {(task.task_id, day) for task in plan.tasks for day in range(1, 9)}
        assert make(seed) == plan


def test_a_plan_knows_what_a_failure_and_a_branch_lead_to() -> None:
    tasks = [
        TaskPlan(task_id="fails", retries=1, failing_tries=[2]),
        TaskPlan(task_id="below", after=["fails"]),
        TaskPlan(task_id="branch", branches=True, returns=[["left"]]),
        TaskPlan(task_id="left", after=["branch"]),
        TaskPlan(task_id="right", after=["branch"]),
        TaskPlan(task_id="join", after=["left", "right"], trigger_rule="none_failed_min_one_success"),
        TaskPlan(task_id="last", after=["below", "right"], trigger_rule="all_done"),
    ]
    endings = Plan("chaos", 1, tasks).endings()
    assert {key.task_id: (end.state, end.tries) for key, end in endings.items()} == {
        "fails": ("failed", 2),
        "below": ("upstream_failed", 0),
        "branch": ("success", 1),
        "left": ("success", 1),
        "right": ("skipped", 0),
        "join": ("success", 1),
        "last": ("success", 1),
    }


def test_the_table_has_a_line_for_each_fault() -> None:
    said = verdict([entry("start"), entry("end")], {FIRST: "success"})
    heading, _, *lines = table([row_of("b", 1, said, 0.25), row_of("a", 2, said, 1)]).splitlines()
    assert heading == f"| {' | '.join(COLUMNS)} |"
    assert [line.split(" | ")[:3] for line in lines] == [["| a", "2", "1"], ["| b", "1", "1"]]
