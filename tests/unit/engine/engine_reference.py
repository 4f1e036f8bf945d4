"""A slow second reading of S4.1 to S4.3, S4.5, S4.6, S4.8 and S4.9, written from the text and from nothing of the engine.

It works on rows in a list and on the DAG as it was written, without counters and without memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from backfill.facts import PreviousRun, RunFacts, TaskInstanceFacts

DONE = {"success", "skipped", "failed", "upstream_failed", "removed"}
IDLE = {"none", "scheduled", "up_for_retry", "up_for_reschedule"}
BAD = {"failed", "upstream_failed"}


@dataclass
class Reference:
    """What there is to know of one run."""

    dag: Any
    chosen: frozenset[str]
    run: RunFacts
    #: All rows of the run.
    rows: list[TaskInstanceFacts]
    previous: PreviousRun | None
    is_first: bool
    flags: dict[str, Any]
    now: datetime
    #: task id to its number of indexes, None if no values are stored
    length: Callable[[str], int | None]

    # -- the graph, read anew each time

    def up(self, task_id: str) -> set[str]:
        return self.dag.task_dict[task_id].upstream_task_ids & self.chosen

    def down(self, task_id: str) -> set[str]:
        return self.dag.task_dict[task_id].downstream_task_ids & self.chosen

    def closure(self, task_id: str, step: Callable[[str], set[str]]) -> set[str]:
        found: set[str] = set()
        for other in step(task_id):
            found |= {other} | self.closure(other, step)
        return found

    def deciders(self, task_id: str) -> set[str]:
        tasks = self.dag.task_dict
        direct = {other for other in self.up(task_id) if tasks[other].decides_skips == "children"}
        far = {other for other in self.closure(task_id, self.up) if tasks[other].decides_skips == "downstream"}
        return direct if tasks[task_id].is_teardown else direct | far

    def indirect_setups(self, task_id: str) -> set[str]:
        task = self.dag.task_dict[task_id]
        if task.is_teardown or task.trigger_rule == "always":
            return set()
        found = set()
        for other in self.closure(task_id, self.up) - self.up(task_id):
            if self.dag.task_dict[other].is_setup:
                teardowns = {each for each in self.down(other) if self.dag.task_dict[each].is_teardown}
                if not teardowns or teardowns & self.closure(task_id, self.down):
                    found.add(other)
        return found

    # -- the rows

    def all_of(self, task_id: str) -> list[TaskInstanceFacts]:
        return [row for row in self.rows if row.task_id == task_id and row.state != "removed"]

    def relevant(self, row: TaskInstanceFacts, other: str) -> list[TaskInstanceFacts]:
        """Tests have no group inside of a group, so that the index of the group is the map index."""
        mine, theirs = self.dag.task_dict[row.task_id].mapped_groups, self.dag.task_dict[other].mapped_groups
        together = bool(mine and theirs and mine[0] is theirs[0])
        same = [each for each in self.all_of(other) if each.map_index in {row.map_index, -1}]
        return same if together and row.map_index >= 0 else self.all_of(other)

    def relevant_of(self, row: TaskInstanceFacts, tasks: set[str]) -> list[TaskInstanceFacts]:
        return [each for task_id in tasks for each in self.relevant(row, task_id)]

    def idle(self) -> list[TaskInstanceFacts]:
        return [row for row in self.rows if row.task_id in self.chosen and row.state in IDLE]

    # -- the table of S4.1

    def judge(self, row: TaskInstanceFacts) -> str:
        """Return `wait`, `ready`, `due`, `success`, `skipped` or `upstream_failed`."""
        return self.judge_with_line(row)[0]

    def judge_with_line(self, row: TaskInstanceFacts) -> tuple[str, Any]:
        lines = [self.line_3, self.length_0] if self.flags.get("ignore_task_deps") else [
            self.line_1, self.line_2, self.line_3, self.line_4, self.line_5, self.length_0, self.line_6,
        ]  # fmt: skip
        for line in lines:
            answer = line(row)
            if answer != "pass":
                return answer, line
        return self.line_7(row), self.line_7

    def line_1(self, row: TaskInstanceFacts) -> str:
        unfinished = [each for each in self.relevant_of(row, self.deciders(row.task_id)) if each.state not in DONE]
        return "wait" if unfinished else "pass"

    def line_2(self, row: TaskInstanceFacts) -> str:
        for each in self.relevant_of(row, self.deciders(row.task_id)):
            if each.state == "success" and row.task_id in (each.skips or ()):
                return "skipped"
        return "pass"

    def is_dynamic(self, task_id: str) -> bool:
        task = self.dag.task_dict[task_id]
        over = [group.expand_input for group in task.mapped_groups] + ([task.expand_input] if task.is_mapped else [])
        return any(each.literal_length() is None for each in over)

    def sources(self, task_id: str) -> set[str]:
        task = self.dag.task_dict[task_id]
        over = [group.expand_input for group in task.mapped_groups] + ([task.expand_input] if task.is_mapped else [])
        return {source for each in over for source in each.sources()} & self.chosen

    def line_3(self, row: TaskInstanceFacts) -> str:
        if not self.is_dynamic(row.task_id) or row.map_index >= 0:
            return "pass"
        states = set()
        for source in self.sources(row.task_id):
            for each in self.all_of(source):
                states.add("success" if each.map_index >= 0 and each.state in DONE else each.state)
        answer = self.all_succeeded(states)
        if answer == "pass" and self.length(row.task_id) is None and not self.flags.get("mark_success"):
            return "upstream_failed"
        return answer

    def line_4(self, row: TaskInstanceFacts) -> str:
        return self.all_succeeded({each.state for each in self.relevant_of(row, self.indirect_setups(row.task_id))})

    def all_succeeded(self, states: set[str]) -> str:
        if states & BAD:
            return "upstream_failed"
        if states - DONE:
            return "wait"
        return "skipped" if "skipped" in states else "pass"

    def line_5(self, row: TaskInstanceFacts) -> str:
        rows = self.relevant_of(row, self.up(row.task_id))
        setups = {other for other in self.up(row.task_id) if self.dag.task_dict[other].is_setup}
        return trigger_rule(
            self.dag.task_dict[row.task_id].trigger_rule,
            [each.state for each in rows],
            [each.state for each in self.relevant_of(row, setups)],
        )

    def length_0(self, row: TaskInstanceFacts) -> str:
        task = self.dag.task_dict[row.task_id]
        if row.map_index >= 0 or not (task.is_mapped or task.mapped_groups):
            return "pass"
        return "skipped" if self.length(row.task_id) == 0 else "pass"

    def line_6(self, row: TaskInstanceFacts) -> str:
        task, past = self.dag.task_dict[row.task_id], self.previous
        if not task.depends_on_past or past is None:
            return "pass"
        if self.is_first and self.flags.get("ignore_first_depends_on_past", True):
            return "pass"
        if past.dag_run_id is None:
            return "wait"
        if task.start_date and past.logical_date < task.start_date <= self.run.logical_date:
            return "pass"
        own = [state for state in past.states.get(row.task_id, ()) if state != "removed"]
        if not own:
            return "pass" if task.ignore_first_depends_on_past and row.task_id not in past.seen_before else "wait"
        tasks = {row.task_id} | (self.down(row.task_id) if task.wait_for_downstream else set())
        states = {state for task_id in tasks for state in past.states.get(task_id, ())}
        return "pass" if states <= {"success", "skipped", "removed"} else "wait"

    def line_7(self, row: TaskInstanceFacts) -> str:
        task = self.dag.task_dict[row.task_id]
        waits = row.state in {"up_for_retry", "up_for_reschedule"} and not self.flags.get("ignore_task_deps")
        if waits and row.next_attempt_at is not None and row.next_attempt_at > self.now:
            return "due"
        return "success" if task.nothing_to_execute or self.flags.get("mark_success") else "ready"


def blocked(runs: list[Reference], pools: dict[str, int]) -> set[int]:
    """Return the ids of the task instances that S9.3 calls blocked; `runs` are those in the window."""
    found: set[int] = set()
    by_id = {run.run.id: run for run in runs}
    while True:
        more = {row.id for run in runs for row in run.idle() if _is_blocked(run, row, by_id, pools, found)} - found
        if not more:
            return found
        found |= more


def _is_blocked(
    run: Reference, row: TaskInstanceFacts, by_id: dict[int, Reference], pools: dict[str, int], found: set[int]
) -> bool:
    answer, line = run.judge_with_line(row)
    task = run.dag.task_dict[row.task_id]
    if answer == "ready":
        return task.pool not in pools or 0 < pools[task.pool] < task.pool_slots
    if answer != "wait":
        return False
    if line == run.line_6:
        return _is_blocked_by_the_past(run, row, by_id, found)
    tasks = {
        run.line_1: run.deciders(row.task_id),
        run.line_3: run.sources(row.task_id),
        run.line_4: run.indirect_setups(row.task_id),
        run.line_5: run.up(row.task_id),
    }[line]
    awaited = [each.id for each in run.relevant_of(row, tasks) if each.state not in DONE]
    return bool(awaited) and found.issuperset(awaited)


def _is_blocked_by_the_past(
    run: Reference, row: TaskInstanceFacts, by_id: dict[int, Reference], found: set[int]
) -> bool:
    task, past = run.dag.task_dict[row.task_id], run.previous
    assert past is not None
    tasks = {row.task_id} | (run.down(row.task_id) if task.wait_for_downstream else set())
    if past.dag_run_id not in by_id:
        return not past.driven or any(BAD.intersection(past.states.get(task_id, ())) for task_id in tasks)
    rows = [each for task_id in tasks for each in by_id[past.dag_run_id].all_of(task_id)]
    return any(each.state in BAD or each.id in found for each in rows)


def trigger_rule(rule: str, states: list[str], setups: list[str]) -> str:
    """Return what a rule of S4.3 says to these states of upstream task instances, `setups` among them."""
    if not states:
        return "pass"
    over = [state for state in states if state in DONE]
    found, everything = set(over), len(over) == len(states)
    if rule == "all_done_setup_success":
        succeeded = "pass" if not setups or "success" in setups else ""
        return (
            "wait" if not everything else succeeded or ("skipped" if set(setups) == {"skipped"} else "upstream_failed")
        )
    for states_at_once, answer in AT_ONCE[rule]:
        if found & states_at_once:
            return answer
    if not everything:
        return "pass" if rule == "always" else "wait"
    return next(answer for states_found, answer in AT_THE_END[rule] if not states_found or found & states_found)


ANY: set[str] = set()
#: Any one of these states, and what the rule says then.
AT_ONCE: dict[str, list[tuple[set[str], str]]] = {
    "all_success": [(BAD, "upstream_failed")],
    "all_failed": [({"success", "skipped"}, "skipped")],
    "all_done": [],
    "all_skipped": [({"success"} | BAD, "skipped")],
    "one_success": [({"success"}, "pass")],
    "one_failed": [(BAD, "pass")],
    "one_done": [({"success", "failed"}, "pass")],
    "none_failed": [(BAD, "upstream_failed")],
    "none_failed_min_one_success": [(BAD, "upstream_failed")],
    "none_skipped": [({"skipped"}, "skipped")],
    "always": [],
}
#: The same when all have finished and nothing of the above was found: the first that applies.
AT_THE_END: dict[str, list[tuple[set[str], str]]] = {
    "all_success": [({"skipped"}, "skipped"), (ANY, "pass")],
    "all_failed": [(ANY, "pass")],
    "all_done": [(ANY, "pass")],
    "all_skipped": [(ANY, "pass")],
    "one_success": [(BAD, "upstream_failed"), (ANY, "skipped")],
    "one_failed": [(ANY, "skipped")],
    "one_done": [(ANY, "skipped")],
    "none_failed": [(ANY, "pass")],
    "none_failed_min_one_success": [({"success"}, "pass"), (ANY, "skipped")],
    "none_skipped": [(ANY, "pass")],
    "always": [(ANY, "pass")],
}
