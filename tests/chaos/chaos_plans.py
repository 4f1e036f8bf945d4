"""Random DAGs, and how each of their task instances has to end.

How it has to end is worked out here one task after the other, from the rules alone (semantics, section 4): the system that is
tested has no part in it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
#: What a DAG file says of the journal; the journal's own code takes its place.
IMPORT = "from chaos_note import note\n"


@dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """One task. Lists have a value for each day, and begin again when there are more days."""

    task_id: str
    after: list[str] = field(default_factory=list)
    trigger_rule: str = "all_success"
    milliseconds: list[int] = field(default_factory=lambda: [20])
    retries: int = 0
    #: How many of the first tries fail.
    failing_tries: list[int] = field(default_factory=lambda: [0])
    #: What it returns: for a branch the children that it chooses, for the source of a mapping the items.
    returns: list[Any] = field(default_factory=lambda: [None])
    branches: bool = False
    mapped_over: str = ""
    #: How it ends its own process in each attempt: `exit`, or the name of a signal; `memory` ends the attempt only.
    death: str = ""


class Key(NamedTuple):
    task_id: str
    #: Of January.
    day: int
    map_index: int


class Ending(NamedTuple):
    """How a task instance has to end. Without tries it is settled without having run."""

    state: str
    tries: int


@dataclass(frozen=True)
class Plan:
    dag_id: str
    days: int
    tasks: list[TaskPlan]

    def date(self, day: int) -> str:
        return f"2024-01-{day:02}"

    def install(self, dags_folder: Path, journal: Path) -> None:
        """Put the DAG where the system finds it."""
        body = {"dag_id": self.dag_id, "journal": str(journal), "tasks": [asdict(task) for task in self.tasks]}
        (dags_folder / f"{self.dag_id}.json").write_text(json.dumps(body))
        text = (HERE / "chaos_dag.py").read_text()
        (dags_folder / f"{self.dag_id}.py").write_text(with_note(text))

    def endings(self) -> dict[Key, Ending]:
        """Return how each task instance ends if nothing disturbs it."""
        found: dict[Key, Ending] = {}
        for day in range(1, self.days + 1):
            for task in self.tasks:
                found.update(self._endings_of(task, day, found))
        return found

    def _endings_of(self, task: TaskPlan, day: int, found: dict[Key, Ending]) -> Iterator[tuple[Key, Ending]]:
        settled = self._settled(task, day, found)
        if settled:
            yield Key(task.task_id, day, -1), Ending(settled, 0)
        elif task.mapped_over:
            for index in range(len(of_day(self._task(task.mapped_over).returns, day))):
                yield Key(task.task_id, day, index), _own_ending(task, day, index)
        else:
            yield Key(task.task_id, day, -1), _own_ending(task, day, 0)

    def _settled(self, task: TaskPlan, day: int, found: dict[Key, Ending]) -> str:
        """Return the state that dependencies give a task, empty if it runs."""
        states = [found[key].state for name in task.after for key in found if key.task_id == name and key.day == day]
        if self._left_out_by_a_branch(task, day, found):
            return "skipped"
        failed = any(state in {"failed", "upstream_failed"} for state in states)
        if task.trigger_rule == "all_done":
            return ""
        if failed:
            return "upstream_failed"
        wanted = any if task.trigger_rule == "none_failed_min_one_success" else all
        return "" if not states or wanted(state == "success" for state in states) else "skipped"

    def _left_out_by_a_branch(self, task: TaskPlan, day: int, found: dict[Key, Ending]) -> bool:
        branches = [upstream for name in task.after if (upstream := self._task(name)).branches]
        return any(
            found[Key(branch.task_id, day, -1)].state == "success" and task.task_id not in of_day(branch.returns, day)
            for branch in branches
        )

    def _task(self, task_id: str) -> TaskPlan:
        return next(task for task in self.tasks if task.task_id == task_id)


def of_day(values: list[Any], day: int) -> Any:
    return values[day % len(values)]


def _own_ending(task: TaskPlan, day: int, index: int) -> Ending:
    failing = of_day(task.failing_tries, day + index)
    if task.death:
        return Ending("failed", task.retries + 1 if task.death == "memory" else 1)
    return Ending("failed", task.retries + 1) if failing > task.retries else Ending("success", failing + 1)


def with_note(text: str) -> str:
    """Return the text of a DAG file with the code that keeps the journal in it."""
    assert IMPORT in text
    return text.replace(IMPORT, (HERE / "chaos_note.py").read_text())


class PlanMaker:
    """Puts a DAG together from blocks: plain tasks, branches that join again, mappings."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._tasks: list[TaskPlan] = []

    def make(self, *, days: int, blocks: int, doomed: bool) -> Plan:
        """Return a plan of that many blocks; where it is `doomed`, a task of it fails for good on some days."""
        for number in range(blocks):
            self._random.choice([self._plain, self._plain, self._branch, self._mapping])(f"b{number}")
        if doomed:
            self._add("doomed", retries=1, failing_tries=[0, 2, 0])
            self._add("after_doomed", after=["doomed"])
        self._add("last", after=self._some(3), trigger_rule="all_done")
        return Plan("chaos", days, self._tasks)

    def _plain(self, name: str) -> None:
        retries = self._random.choice([0, 0, 2])
        failing = [self._random.choice([0, 0, 1, 2]) for _ in range(5)] if retries else [0]
        self._add(name, after=self._some(2), retries=retries, failing_tries=failing)

    def _branch(self, name: str) -> None:
        arms = [f"{name}_left", f"{name}_right"]
        chosen = [self._random.choice([arms, arms[:1], arms[1:], []]) for _ in range(3)]
        self._add(name, after=self._some(1), branches=True, returns=chosen)
        for arm in arms:
            self._add(arm, after=[name])
        self._add(f"{name}_join", after=arms, trigger_rule="none_failed_min_one_success")

    def _mapping(self, name: str) -> None:
        items = [[[number] for number in range(self._random.randint(1, 5))] for _ in range(4)]
        self._add(name, after=self._some(1), returns=items)
        self._add(f"{name}_each", after=[name], mapped_over=name, retries=1, failing_tries=[0, 0, 1, 0])
        self._add(f"{name}_all", after=[f"{name}_each"])

    def _some(self, most: int) -> list[str]:
        """Return some of the last tasks, but branches, whose children are chosen; none at all at the beginning."""
        latest = [task.task_id for task in self._tasks if not task.branches][-6:]
        return self._random.sample(latest, min(len(latest), self._random.randint(0, most)))

    def _add(self, task_id: str, **details: Any) -> None:
        long = self._random.random() < 0.06
        milliseconds = [
            self._random.randint(800, 1500) if long else self._random.choice([5, 20, 60, 120, 200]) for _ in range(3)
        ]
        self._tasks.append(TaskPlan(task_id=task_id, milliseconds=milliseconds, **details))


def random_plan(seed: int, *, days: int = 8, blocks: int = 5, doomed: bool = False) -> Plan:
    return PlanMaker(seed).make(days=days, blocks=blocks, doomed=doomed)
