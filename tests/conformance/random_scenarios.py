"""Random scenarios of SCHEMA.md whose final states do not depend on the order of events.

That leaves out the default policy after a failure: which dates have been admitted by then depends on speed (S0.3, S9.2).
"""

from __future__ import annotations

import random
from typing import Any

from backfill.states import TriggerRule

RULES = sorted(set(TriggerRule) - {TriggerRule.ALL_DONE_SETUP_SUCCESS})
KINDS = ["python"] * 5 + ["mapped"] * 3 + ["branch", "short_circuit", "empty", "sensor_reschedule"]
ENDS = ["success"] * 4 + ["failed", "failed", "fail_no_retry", "skipped", "reschedule"]
LENGTHS = [0, 1, 2, 2, 3]
DATES = ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"]
#: States of task instances that are there before; with `absent` there is none.
BEFORE = ["success", "success", "success", "failed", "skipped", "upstream_failed", None]
SELDOM = ["absent", "scheduled", "up_for_retry", "up_for_reschedule"]
#: Left in flight by nobody: such a row takes a place until its run comes up, so that it must leave room for others.
LEFT_IN_FLIGHT = ["queued", "running"]


class RandomScenario:
    """Draws one scenario from a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.tasks: list[dict[str, Any]] = []
        self.has_room = False
        self.dates = DATES[1 : 1 + self.rng.randint(1, 3)]

    def chance(self, of: float) -> bool:
        return self.rng.random() < of

    def draw(self) -> dict[str, Any]:
        for number in range(self.rng.randint(1, 7)):
            self.tasks.append(self.task(f"t{number}"))
        self.obey_setups()
        looks_back = any(each["depends_on_past"] or each["wait_for_downstream"] for each in self.tasks)
        return {
            "id": "random",
            "dag": {"dag_id": "d", "tasks": self.tasks, **self.limits()},
            "start_date": self.dates[0],
            "end_date": self.dates[-1],
            "pools": {"p": self.rng.randint(1, 3), "q": self.rng.randint(2, 4)},
            "flags": self.flags(looks_back=looks_back),
            "preset": self.presets(),
            "outcomes": {each["task_id"]: self.outcomes(each) for each in self.tasks},
        }

    def limits(self) -> dict[str, int]:
        self.has_room = self.chance(0.4)
        most = 16 if self.has_room else self.rng.choice([1, 2, 16])
        return {"max_active_runs": self.rng.choice([1, 2, 16]), "max_active_tasks": most}

    def flags(self, *, looks_back: bool) -> dict[str, Any]:
        flags: dict[str, Any] = {
            "continue_on_failures": True,
            "ignore_first_depends_on_past": self.chance(0.5),
            "run_backwards": not looks_back and self.chance(0.3),
            "rerun_failed_tasks": self.chance(0.3),
            "mark_success": self.chance(0.06),
            "disable_retry": self.chance(0.1),
        }
        if self.chance(0.25):
            some = self.rng.sample(self.tasks, self.rng.randint(1, len(self.tasks)))
            flags["task_regex"] = "|".join(f"^{each['task_id']}$" for each in some)
            flags["include_upstream"] = self.chance(0.5)
        flags["ignore_task_deps"] = self.chance(0.3 if flags.get("include_upstream") is False else 0.05)
        return flags

    # -- tasks

    def task(self, task_id: str) -> dict[str, Any]:
        each: dict[str, Any] = {
            "task_id": task_id,
            "kind": self.rng.choice(KINDS),
            "upstream": [other["task_id"] for other in self.tasks if self.chance(0.35)],
            "trigger_rule": self.rng.choice([*RULES, "all_success", "all_success"]),
            "retries": self.rng.choice([0, 0, 1, 2]),
            "depends_on_past": self.chance(0.2),
            "wait_for_downstream": self.chance(0.08),
            "ignore_downstream_trigger_rules": self.chance(0.6),
            "priority_weight": self.rng.randint(1, 9),
            "weight_rule": self.rng.choice(["downstream", "upstream", "absolute"]),
        }
        for more in (
            [{}, {}, {"pool": "p"}, {"pool": "q", "pool_slots": 2}],
            [{}, {}, {}, {"max_active_tis_per_dag": 1}, {"max_active_tis_per_dagrun": 1}],
        ):
            each |= self.rng.choice(more)
        if each["kind"] == "mapped":
            each["expand"] = self.expansion()
        self.draw_setup(each)
        return each

    def expansion(self) -> Any:
        arguments = [self.argument() for _ in range(self.rng.choice([1, 1, 1, 2]))]
        return arguments[0] if len(arguments) == 1 else arguments

    def argument(self) -> dict[str, Any]:
        feeds = [other["task_id"] for other in self.tasks if other["kind"] in {"python", "mapped"}]
        if feeds and self.chance(0.7):
            return {"xcom": self.rng.choice(feeds)}
        return {"literal": [1] * self.rng.choice(LENGTHS)}

    def draw_setup(self, each: dict[str, Any]) -> None:
        """Make a task a setup, or a teardown of an earlier one."""
        setups = [other["task_id"] for other in self.tasks if other.get("setup")]
        if self.chance(0.15):
            each["setup"] = True
        elif setups and self.chance(0.4):
            each |= {"teardown": True, "setups": [self.rng.choice(setups)], "on_failure_fail_dagrun": self.chance(0.3)}

    def obey_setups(self) -> None:
        """Let direct children of setups have `all_success`, as they must (S4.6)."""
        setups = {each["task_id"] for each in self.tasks if each.get("setup")}
        for each in self.tasks:
            if each.get("teardown"):
                del each["trigger_rule"]
            elif setups & parents(each):
                each["trigger_rule"] = "all_success"

    # -- what is there before, and what tasks do

    def presets(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for date in [DATES[0], *self.dates]:
            if self.chance(0.3 if date == DATES[0] else 0.15):
                run_type = self.rng.choice(["scheduled", "backfill"])
                state = self.rng.choice(["success", "success", "failed", "failed", "queued"])
                found.append({"date": date, "dag_run": state, "run_type": run_type})
                found += [self.before(each, date) for each in self.tasks if each["kind"] != "mapped"]
        return found

    def before(self, each: dict[str, Any], date: str) -> dict[str, Any]:
        seldom = SELDOM + LEFT_IN_FLIGHT * (self.has_room and not {"pool", "max_active_tis_per_dag"} & each.keys())
        state = self.rng.choice(seldom if self.chance(0.15) else BEFORE)
        row: dict[str, Any] = {"task_id": each["task_id"], "date": date, "state": state}
        if state == "success" and each["kind"] == "python" and self.chance(0.7):
            row["return"] = [1] * self.rng.choice(LENGTHS)
        if state == "success" and each["kind"] == "branch":
            row["follow"] = self.follow(each)
        return row

    def outcomes(self, each: dict[str, Any]) -> dict[str, Any]:
        drawn: dict[str, Any] = {date: self.listed(each) for date in self.dates if self.chance(0.8)}
        if each["kind"] == "mapped" and self.chance(0.5):
            drawn["*"] = {"by_index": {"0": self.listed(each), "*": self.success(each)}}
        else:
            drawn["*"] = self.success(each)
        return drawn

    def listed(self, each: dict[str, Any]) -> list[Any]:
        return [self.end(each) for _ in range(self.rng.randint(0, 4))]

    def end(self, each: dict[str, Any]) -> Any:
        end = self.rng.choice(ENDS)
        return self.success(each) if end == "success" else end

    def success(self, each: dict[str, Any]) -> Any:
        """Draw how a task succeeds: what it returns, follows or finds."""
        match each["kind"]:
            case "branch":
                return {"follow": self.follow(each)}
            case "short_circuit":
                return self.chance(0.5)
            case "python" | "mapped":
                return {"return": [1] * self.rng.choice(LENGTHS)} if self.chance(0.8) else "success"
            case _:
                return "success"

    def follow(self, each: dict[str, Any]) -> list[str]:
        return [other["task_id"] for other in self.tasks if each["task_id"] in parents(other) and self.chance(0.5)]


def parents(each: dict[str, Any]) -> set[str]:
    """Return the direct parents of a task: those named, the sources of its mapping, and the setups of a teardown."""
    return {*each["upstream"], *sources(each), *each.get("setups", [])}


def sources(each: dict[str, Any]) -> set[str]:
    """Return the tasks over whose results a task is mapped."""
    over = each.get("expand", [])
    return {argument["xcom"] for argument in (over if isinstance(over, list) else [over]) if "xcom" in argument}
