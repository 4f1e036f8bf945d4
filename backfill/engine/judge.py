"""Which questions of S4.1 a task has to answer, and what the first one that does not pass says."""

from __future__ import annotations

from typing import Final, NamedTuple

from backfill.engine.graph import Graph, TaskSpec
from backfill.engine.lines import (
    Question,
    deciders_have_finished,
    mapping_is_known,
    no_decider_skips_it,
    past_lets_it_run,
    rule_lets_it_run,
    setups_have_succeeded,
    there_is_something_to_map,
)
from backfill.engine.run import RunState
from backfill.engine.verdicts import Verdict

PASS: Final = Verdict.PASS


class Line(NamedTuple):
    """A question, and the line of S4.1 that it is."""

    number: int
    question: Question


class Finding(NamedTuple):
    """A verdict, and the line that gave it; line 7, which `Decider` asks, if lines 1 to 6 pass."""

    verdict: Verdict
    line: int


class Judge:
    """Answers lines 1 to 6 of S4.1 for the tasks of one graph.

    Each task is asked only what can concern it; for most tasks that is the trigger rule.
    """

    def __init__(self, graph: Graph) -> None:
        self._tasks = graph.tasks
        self._lines = tuple(tuple(lines_for(graph, spec)) for spec in graph.tasks)
        self._questions = tuple(tuple(line.question for line in lines) for lines in self._lines)

    def verdict(self, run: RunState, task: int, index: int) -> Verdict:
        """Return what the first line that does not pass says about `task` at map index `index`, or PASS."""
        spec = self._tasks[task]
        for question in self._questions[task]:
            answer = question(run, spec, index)
            if answer is not PASS:
                return answer
        return PASS

    def finding(self, run: RunState, task: int, index: int) -> Finding:
        """Return the same verdict with the number of its line."""
        for line in self._lines[task]:
            answer = line.question(run, self._tasks[task], index)
            if answer is not PASS:
                return Finding(answer, line.number)
        return Finding(PASS, 7)


def lines_for(graph: Graph, spec: TaskSpec) -> list[Line]:
    """Return the lines that can concern `spec`. With `-i` only its mapping does (semantics, section 10)."""
    asks_all = not graph.options.ignore_task_deps
    lines = [
        (asks_all and spec.deciders, Line(1, deciders_have_finished)),
        (asks_all and spec.deciders, Line(2, no_decider_skips_it)),
        (spec.is_dynamic, Line(3, mapping_is_known)),
        (asks_all and spec.indirect_setups, Line(4, setups_have_succeeded)),
        (asks_all and spec.upstream, Line(5, rule_lets_it_run)),
        (spec.is_mapped, Line(5, there_is_something_to_map)),
        (asks_all and spec.past, Line(6, past_lets_it_run)),
    ]
    return [line for concerns_it, line in lines if concerns_it]
