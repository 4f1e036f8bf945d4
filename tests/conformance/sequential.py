"""What comes of a scenario by the rules, worked out one task instance after the other: dates in order, tasks topologically.

Final states do not depend on the order of events (S0.3), so that no queue, no clock and no database is needed. Written from the text
of semantics.md; nothing of the program is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from math import prod
from typing import Any

from random_scenarios import parents, sources

BAD = {"failed", "upstream_failed"}
WELL = {"success", "skipped"}
#: The initial state: what is left in it when all is over waits for what can never happen (S9.3).
WAITS = None

State = str | None


@dataclass
class Ti:
    state: State = WAITS
    executions: int = 0
    #: What it returned or chose, if it ended well with a value.
    value: Any = None
    #: The tasks that it decided to skip.
    skips: frozenset[str] = frozenset()
    #: Tries that were over before.
    used: int = 0


@dataclass
class Run:
    state: str = "running"
    #: Task id, then map index.
    tis: dict[str, dict[int, Ti]] = field(default_factory=dict)
    #: Whether its end, if bad, is a failure of the job.
    counts: bool = True

    def rows(self, task_ids: set[str]) -> list[Ti]:
        return [ti for task_id in task_ids for ti in self.tis.get(task_id, {}).values()]

    def states(self, task_ids: set[str]) -> list[State]:
        return [ti.state for ti in self.rows(task_ids)]


class Graph:
    """The DAG of a scenario; a task has the relations among `chosen` only."""

    def __init__(self, tasks: list[dict[str, Any]], flags: Mapping[str, Any]) -> None:
        self.tasks = {each["task_id"]: each for each in tasks}
        self.all_up = {task_id: parents(each) for task_id, each in self.tasks.items()}
        self.all_down = {
            task_id: {other for other, up in self.all_up.items() if task_id in up} for task_id in self.tasks
        }
        self.chosen = self._choose(flags)
        self.up = {task_id: self.all_up[task_id] & self.chosen for task_id in self.chosen}
        self.down = {task_id: self.all_down[task_id] & self.chosen for task_id in self.chosen}

    def far(self, task_id: str, step: Mapping[str, set[str]]) -> set[str]:
        direct = step[task_id]
        return direct.union(*(self.far(other, step) for other in direct))

    def _choose(self, flags: Mapping[str, Any]) -> set[str]:
        """S13.6."""
        regex = flags.get("task_regex")
        if regex is None:
            return set(self.tasks)
        matches = {task_id for task_id in self.tasks if re.search(regex, task_id)}
        if flags.get("include_upstream", True):
            found = matches.union(*(self.far(task_id, self.all_up) for task_id in matches))
            return found.union(*(self.teardowns_of(task_id, self.all_down) for task_id in found))
        with_them = set(matches)
        for task_id in matches:
            with_them |= self.teardowns_of(task_id, self.all_down)
            for setup in self.setups_around(task_id, self.all_up, self.all_down):
                with_them |= {setup} | self.teardowns_of(setup, self.all_down)
        return with_them

    def teardowns_of(self, task_id: str, down: Mapping[str, set[str]]) -> set[str]:
        is_setup = self.tasks[task_id].get("setup")
        return {other for other in down[task_id] if self.tasks[other].get("teardown")} if is_setup else set()

    def setups_around(self, task_id: str, up: Mapping[str, set[str]], down: Mapping[str, set[str]]) -> set[str]:
        """S4.6: upstream setups with a teardown downstream of the task, or with no teardown."""
        found = set()
        for other in self.far(task_id, up):
            teardowns = self.teardowns_of(other, down)
            if self.tasks[other].get("setup") and (not teardowns or teardowns & self.far(task_id, down)):
                found.add(other)
        return found

    @cached_property
    def leaves(self) -> set[str]:
        return self.effective_leaves(self.down)

    def effective_leaves(self, down: Mapping[str, set[str]]) -> set[str]:
        """S2.14."""
        ignorable = {
            task_id
            for task_id in down
            if self.tasks[task_id].get("teardown") and not self.tasks[task_id].get("on_failure_fail_dagrun")
        }
        found = {task_id for task_id in down if not down[task_id] - ignorable} - ignorable
        return found or {task_id for task_id in down if not down[task_id]}


class Sequential:
    """One scenario, worked out."""

    def __init__(self, scenario: Mapping[str, Any]) -> None:
        self.flags = scenario.get("flags", {})
        self.graph = Graph(scenario["dag"]["tasks"], self.flags)
        self.outcomes = scenario.get("outcomes", {})
        self.presets = scenario.get("preset", [])
        self.runs: dict[str, Run] = {each["date"]: Run(each["dag_run"]) for each in self.presets if "dag_run" in each}
        for run in self.runs.values():
            run.tis = {task_id: {index: Ti() for index in self._indexes(task_id)} for task_id in self.graph.tasks}
        for each in self.presets:
            if "task_id" in each:
                self._plant(each)
        first, last = scenario["start_date"], scenario["end_date"]
        self.dates = [f"2024-01-0{day}" for day in range(int(first[-2:]), int(last[-2:]) + 1)]
        self.was_stuck = False

    def _plant(self, row: Mapping[str, Any]) -> None:
        skips: set[str] = set()
        if "follow" in row:
            skips = self.not_followed(row["task_id"], row["follow"])
        state = row["state"] if row["state"] in BAD | WELL else WAITS
        # in the midst of a try are those that run, and those that are to be looked at again
        used = int(row["state"] in {"scheduled", "queued", "up_for_retry"})
        ti = Ti(state, 0, row.get("return", row.get("follow")), frozenset(skips), used)
        run = self.runs[row["date"]]
        if row["state"] == "absent":
            del run.tis[row["task_id"]]
        else:
            run.tis[row["task_id"]] = {-1: ti}

    # -- the job

    def work_out(self) -> dict[str, Any]:
        for date in reversed(self.dates) if self.flags.get("run_backwards") else self.dates:
            self._bring_about(date)
        return {
            "job": self._job(),
            "dag_runs": {date: run.state for date, run in self.runs.items()},
            "task_instances": {
                (task_id, date, index): (ti.state, ti.executions)
                for date, run in self.runs.items()
                for task_id, by_index in run.tis.items()
                for index, ti in by_index.items()
            },
        }

    def _job(self) -> str:
        found = list(chain.from_iterable(self.runs[date].states(self.graph.chosen) for date in self.dates))
        failed_runs = [date for date in self.dates if self.runs[date].state == "failed" and self.runs[date].counts]
        if self.was_stuck:
            return "deadlocked"
        return "failed" if BAD & {*found} or failed_runs else "success"

    def _bring_about(self, date: str) -> None:
        run = self.runs.setdefault(date, Run())
        is_new = run.state in {"running", "queued"}
        if not is_new and not self._is_taken(run):
            run.counts = self.graph.chosen == set(self.graph.tasks)
            return
        for task_id in self.graph.chosen:
            self._open(run, task_id)
        for task_id in self.graph.tasks:  # in an order in which parents come first
            if task_id in self.graph.chosen:
                self._settle_task(date, run, task_id)
        self._end(run)

    def _is_taken(self, run: Run) -> bool:
        """S2.7 without `reprocess`, S2.9: something is unfinished, also of tasks that were not chosen, or is to be run again."""
        again = run.state == "failed" or BAD & {*run.states(self.graph.chosen)}
        unfinished = WAITS in run.states(set(run.tis))
        return unfinished or bool(self.flags.get("rerun_failed_tasks") and again) or self._lacks_rows(run)

    def _lacks_rows(self, run: Run) -> bool:
        return any(not set(self._indexes(each)) <= set(run.tis.get(each, ())) for each in self.graph.chosen)

    def _indexes(self, task_id: str) -> list[int]:
        """The rows that a task has from the start: one, or each index of a mapping over lists."""
        length = self._length(task_id, None)
        return list(range(length)) if length else [-1]

    def _open(self, run: Run, task_id: str) -> None:
        rows = run.tis.setdefault(task_id, {})
        if rows and self.flags.get("rerun_failed_tasks"):
            for index, ti in rows.items():
                if ti.state in BAD:
                    rows[index] = Ti()
        if not rows:
            rows.update({index: Ti() for index in self._indexes(task_id)})

    def _end(self, run: Run) -> None:
        mine = run.states(self.graph.chosen)
        if WAITS in mine:
            self.was_stuck = True
            run.state = "failed"
            return
        others = set(self.graph.tasks) - self.graph.chosen
        whole = others and all(other in run.tis for other in others) and WAITS not in run.states(others)
        leaves = self.graph.effective_leaves(self.graph.all_down) if whole else self.graph.leaves
        run.state = "failed" if BAD & {*run.states(leaves)} else "success"
        run.counts = not whole or bool(BAD & {*run.states(self.graph.leaves)})

    # -- one task in one run

    def _settle_task(self, date: str, run: Run, task_id: str) -> None:
        rows = run.tis[task_id]
        if set(rows) == {-1} and rows[-1].state is WAITS and self._is_dynamic(task_id):
            verdict = self._before_expansion(run, task_id)
            if verdict != "pass":
                rows[-1].state = None if verdict == "wait" else verdict
                return
            length = self._length(task_id, run)
            if length is None and not self.flags.get("mark_success"):
                rows[-1].state = "upstream_failed"
                return
            if length:
                run.tis[task_id] = rows = {index: Ti() for index in range(length)}
        for index, ti in rows.items():
            if ti.state is WAITS:
                self._settle(date, run, task_id, index, ti)

    def _before_expansion(self, run: Run, task_id: str) -> str:
        """Lines 1 to 3 of S4.1."""
        if not self.flags.get("ignore_task_deps"):
            verdict = self._decided(run, task_id)
            if verdict != "pass":
                return verdict
        found = []
        for source in sources(self.graph.tasks[task_id]) & self.graph.chosen:
            for index, ti in run.tis[source].items():
                found.append("success" if index >= 0 and ti.state is not WAITS else ti.state)
        return all_well(found)

    def _settle(self, date: str, run: Run, task_id: str, index: int, ti: Ti) -> None:
        verdict = "pass"
        if not self.flags.get("ignore_task_deps"):
            verdict = self._decided(run, task_id)
            if verdict == "pass":
                verdict = all_well(run.states(self._indirect_setups(task_id)))
            if verdict == "pass":
                verdict = self._rule(run, task_id)
        if verdict == "pass" and index == -1 and self._length(task_id, run) == 0:
            verdict = "skipped"
        if verdict == "pass" and not self.flags.get("ignore_task_deps") and not self._past_lets_go(date, task_id):
            verdict = "wait"
        if verdict == "pass":
            self._play(date, task_id, index, ti)
        elif verdict != "wait":
            ti.state = verdict

    def _decided(self, run: Run, task_id: str) -> str:
        """Lines 1 and 2: S4.8."""
        mine = self.graph.tasks[task_id]
        near = {other for other in self.graph.up[task_id] if self._reach(other) == "children"}
        far = {other for other in self.graph.far(task_id, self.graph.up) if self._reach(other) == "all"}
        deciders = run.rows(near if mine.get("teardown") else near | far)  # those that reach far leave teardowns alone
        if any(each.state is WAITS for each in deciders):
            return "wait"
        return "skipped" if any(each.state == "success" and task_id in each.skips for each in deciders) else "pass"

    def _reach(self, task_id: str) -> str:
        each = self.graph.tasks[task_id]
        if each["kind"] == "short_circuit":
            return "all" if each.get("ignore_downstream_trigger_rules", True) else "children"
        return "children" if each["kind"] == "branch" else ""

    def _indirect_setups(self, task_id: str) -> set[str]:
        each = self.graph.tasks[task_id]
        if each.get("teardown") or each.get("trigger_rule") == "always":
            return set()
        return self.graph.setups_around(task_id, self.graph.up, self.graph.down) - self.graph.up[task_id]

    def _rule(self, run: Run, task_id: str) -> str:
        each = self.graph.tasks[task_id]
        up = self.graph.up[task_id]
        found = run.states(up)
        if each.get("teardown"):
            return teardown_rule(found, run.states({other for other in up if self.graph.tasks[other].get("setup")}))
        return rule(each.get("trigger_rule", "all_success"), found)

    def _past_lets_go(self, date: str, task_id: str) -> bool:
        """S4.9, S4.10."""
        each = self.graph.tasks[task_id]
        if not (each["depends_on_past"] or each["wait_for_downstream"]):
            return True
        if date == self.dates[0] and self.flags.get("ignore_first_depends_on_past", True):
            return True
        earlier = [other for other in self.runs if other < date]
        if not earlier:
            return True
        before = self.runs[max(earlier)]
        if task_id not in before.tis:
            return not any(task_id in self.runs[other].tis for other in earlier)
        awaited = {task_id} | (self.graph.down[task_id] if each["wait_for_downstream"] else set())
        return set(before.states(awaited)) <= WELL

    # -- mapping

    def _is_dynamic(self, task_id: str) -> bool:
        return bool(sources(self.graph.tasks[task_id]))

    def _length(self, task_id: str, run: Run | None) -> int | None:
        """The number of indexes, None if it is not known; without a run by what the DAG says."""
        over = self.graph.tasks[task_id].get("expand")
        if over is None:
            return None
        lengths = [
            len(argument["literal"]) if "literal" in argument else self._values(argument["xcom"], run)
            for argument in (over if isinstance(over, list) else [over])
        ]
        return None if None in lengths else prod(length for length in lengths if length is not None)

    def _values(self, source: str, run: Run | None) -> int | None:
        rows = run.tis.get(source, {}) if run else {}
        if any(index >= 0 for index in rows):
            return sum(ti.value is not None for ti in rows.values())
        value = rows[-1].value if rows and rows[-1].state == "success" else None
        return None if value is None else len(value)

    # -- what a task does

    def _play(self, date: str, task_id: str, index: int, ti: Ti) -> None:
        each = self.graph.tasks[task_id]
        if self.flags.get("mark_success") or each["kind"] == "empty":
            ti.state = "success"
            return
        tries_left = 1 if self.flags.get("disable_retry") else max(1, 1 + each.get("retries", 0) - ti.used)
        while ti.state is WAITS:
            element = self._element(task_id, date, index, ti.executions)
            ti.executions += 1
            tries_left -= element != "reschedule"
            self._end_attempt(each, element, ti, is_last=tries_left == 0)

    def _end_attempt(self, each: Mapping[str, Any], element: Any, ti: Ti, *, is_last: bool) -> None:
        if element == "reschedule":
            return
        if element == "fail_no_retry":
            ti.state = "failed"
        elif element == "skipped":
            ti.state = "skipped"
        elif element == "failed" or self._feeds_nothing(each, element):
            ti.state = "failed" if is_last else WAITS
        else:
            ti.state = "success"
            ti.value = element.get("return", element.get("follow")) if isinstance(element, Mapping) else None
            ti.skips = frozenset(self._skips(each, element))

    def _feeds_nothing(self, each: Mapping[str, Any], element: Any) -> bool:
        """S12.5: a task that feeds a mapping fails if it returns nothing."""
        is_source = any(each["task_id"] in sources(other) for other in self.graph.tasks.values())
        return is_source and each["kind"] != "mapped" and not isinstance(element, Mapping)

    def _element(self, task_id: str, date: str, index: int, played: int) -> Any:
        by_date = self.outcomes.get(task_id, {})
        element = by_date.get(date, by_date.get("*", "success"))
        if isinstance(element, Mapping) and "by_index" in element:
            element = element["by_index"].get(str(index), element["by_index"].get("*", "success"))
        if isinstance(element, list):
            return element[played] if played < len(element) else "success"
        return element

    def _skips(self, each: Mapping[str, Any], element: Any) -> set[str]:
        task_id = each["task_id"]
        if each["kind"] == "branch" and isinstance(element, Mapping):
            return self.not_followed(task_id, element["follow"])
        if each["kind"] == "short_circuit" and element is False:
            reach = self.graph.far(task_id, self.graph.all_down)
            reached = reach if self._reach(task_id) == "all" else self.graph.all_down[task_id]
            return {other for other in reached if not self.graph.tasks[other].get("teardown")}
        return set()

    def not_followed(self, task_id: str, follow: list[str]) -> set[str]:
        kept = set(follow).union(*(self.graph.far(other, self.graph.all_down) for other in follow))
        return self.graph.all_down[task_id] - kept


def all_well(found: list[State]) -> str:
    """Lines 3 and 4: a failure at once, a skip when all have finished."""
    if BAD & {*found}:
        return "upstream_failed"
    if WAITS in found:
        return "wait"
    return "skipped" if "skipped" in found else "pass"


def teardown_rule(found: list[State], setups: list[State]) -> str:
    if WAITS in found:
        return "wait"
    if not setups or "success" in setups:
        return "pass"
    return "skipped" if set(setups) == {"skipped"} else "upstream_failed"


def rule(name: str, found: list[State]) -> str:
    """S4.3, row by row, in its own letters."""
    n, s, k = len(found), found.count("success"), found.count("skipped")
    f, x = sum(state in BAD for state in found), found.count("failed")
    d = s + k + f
    if n == 0:
        return "pass"
    runs, skipped, blamed = {
        "all_success": (s == n, d == n and k > 0 and f == 0, f > 0),
        "all_failed": (f == n, s + k > 0, False),
        "all_done": (d == n, False, False),
        "all_skipped": (k == n, s + f > 0, False),
        "one_success": (s > 0, d == n and k == n, d == n and s == 0 and k < n),
        "one_failed": (f > 0, d == n and f == 0, False),
        "one_done": (s + x > 0, d == n and s + x == 0, False),
        "none_failed": (s + k == n, False, f > 0),
        "none_failed_min_one_success": (s + k == n and s > 0, k == n, f > 0),
        "none_skipped": (d == n and k == 0, k > 0, False),
        "always": (True, False, False),
    }[name]
    return "pass" if runs else "skipped" if skipped else "upstream_failed" if blamed else "wait"
