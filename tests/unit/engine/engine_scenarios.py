"""Random scenarios for `engine_replay`: DAGs of every kind of task and relation, what the tasks do, limits and flags.

All dates have room in the window and nothing stops the job, so that the order of events must not matter.
"""

from __future__ import annotations

import random
from typing import Any

from backfill.states import TriggerRule

RULES = [rule for rule in TriggerRule if rule != TriggerRule.ALL_DONE_SETUP_SUCCESS]
KINDS = ["python"] * 5 + ["mapped"] * 3 + ["branch", "short_circuit", "empty"]
ENDS = ["success"] * 5 + ["failed", "failed", "fail_no_retry", "skipped", "reschedule"]
LENGTHS = [0, 1, 2, 2, 3]


def random_scenario(rng: random.Random, *, tasks: int, dates: int) -> dict[str, Any]:
    """Return a scenario of so many tasks and dates."""
    return _Drawing(rng, tasks, dates).scenario()


class _Drawing:
    def __init__(self, rng: random.Random, tasks: int, dates: int) -> None:
        self.rng = rng
        self.size = tasks
        self.dates = [f"2024-01-0{day + 1}" for day in range(dates)]
        self.tasks: list[dict[str, Any]] = []
        self.group: dict[str, Any] = {}

    def chance(self, of: float) -> bool:
        return self.rng.random() < of

    def scenario(self) -> dict[str, Any]:
        first = self.rng.randrange(self.size)
        last = first + self.rng.randint(1, 4) if self.chance(0.6) else first
        for i in range(self.size):
            self.tasks.append(self.task(f"t{i}", in_group=first <= i < last))
            if i + 1 == first:
                self.group = self.mapping()
        self.group = self.group or {"literal": [1] * self.rng.choice(LENGTHS)}
        self.obey_setups()
        return {
            "dag": {"tasks": self.tasks, "groups": {"g": self.group}, "max_active_tasks": self.rng.choice([1, 2, 16])},
            "start_date": self.dates[0],
            "end_date": self.dates[-1],
            "pools": {"p": self.rng.randint(1, 3), "q": self.rng.randint(2, 4)},
            "flags": self.flags(),
            "outcomes": {each["task_id"]: self.outcomes(each) for each in self.tasks},
        }

    def flags(self) -> dict[str, bool]:
        return {
            "continue_on_failures": True,
            "ignore_first_depends_on_past": self.chance(0.5),
            "ignore_task_deps": self.chance(0.05),
            "mark_success": self.chance(0.05),
            "disable_retry": self.chance(0.1),
        }

    def task(self, task_id: str, *, in_group: bool) -> dict[str, Any]:
        kind = self.rng.choice(KINDS)
        each: dict[str, Any] = {
            "task_id": task_id,
            "kind": "python" if in_group and kind == "mapped" else kind,
            "upstream": [
                other["task_id"] for other in self.tasks if self.chance(0.6 if in_group and "group" in other else 0.25)
            ],
            "trigger_rule": self.rng.choice([*RULES, "all_success", "all_success"]),
            "retries": self.rng.choice([0, 0, 1, 2]),
            "depends_on_past": self.chance(0.2),
            "wait_for_downstream": self.chance(0.08),
            "ignore_downstream_trigger_rules": self.chance(0.6),
        }
        for more in (
            [{}, {}, {"pool": "p"}, {"pool": "q", "pool_slots": 2}],
            [{}, {}, {}, {"max_active_tis_per_dag": 1}, {"max_active_tis_per_dagrun": 1}],
            [{}, {"priority_weight": 5}, {"weight_rule": "absolute"}],
            [{"group": "g"} if in_group else {}],
        ):
            each |= self.rng.choice(more)
        if each["kind"] == "mapped":
            each["expand"] = self.mapping()
        elif each["kind"] == "python":
            self.draw_setup(each)
        return each

    def mapping(self) -> dict[str, Any]:
        """Draw what something is mapped over: a list, or what an earlier task returns."""
        feeds = [
            other["task_id"] for other in self.tasks if other["kind"] in {"python", "mapped"} and "group" not in other
        ]
        if feeds and self.chance(0.7):
            return {"xcom": self.rng.choice(feeds)}
        return {"literal": [1] * self.rng.choice(LENGTHS)}

    def draw_setup(self, each: dict[str, Any]) -> None:
        """Make a task a setup, or a teardown of an earlier one."""
        setups = [other["task_id"] for other in self.tasks if other.get("setup")]
        if self.chance(0.2):
            each["setup"] = True
        elif setups and self.chance(0.3):
            each |= {"teardown": True, "setups": [self.rng.choice(setups)], "on_failure_fail_dagrun": self.chance(0.3)}
            each["upstream"] = sorted({*each["upstream"], *each["setups"]})

    def obey_setups(self) -> None:
        """Let direct children of setups have `all_success`, as they must (S4.6)."""
        setups = {each["task_id"] for each in self.tasks if each.get("setup")}
        for each in self.tasks:
            mappings = [each.get("expand", {}), self.group if "group" in each else {}]
            sources = {over["xcom"] for over in mappings if "xcom" in over}
            if each.get("teardown"):
                del each["trigger_rule"]
            elif setups & {*each["upstream"], *sources}:
                each["trigger_rule"] = "all_success"

    def outcomes(self, each: dict[str, Any]) -> dict[str, Any]:
        drawn: dict[str, Any] = {
            date: [self.end(each) for _ in range(self.rng.randint(0, 3))] for date in self.dates if self.chance(0.8)
        }
        return drawn | {"*": self.success(each)}

    def end(self, each: dict[str, Any]) -> Any:
        end = self.rng.choice(ENDS)
        return self.success(each) if end == "success" else end

    def success(self, each: dict[str, Any]) -> Any:
        """Draw how a task succeeds: what it returns, chooses or finds."""
        children = [other["task_id"] for other in self.tasks if each["task_id"] in other["upstream"]]
        match each["kind"]:
            case "branch":
                return {"follow": [child for child in children if self.chance(0.5)]}
            case "short_circuit":
                return self.chance(0.5)
            case "python" | "mapped":
                return {"return": [1] * self.rng.choice(LENGTHS)}
            case _:
                return "success"
