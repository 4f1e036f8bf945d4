"""The run before: `depends_on_past` and `wait_for_downstream` (S4.9, S4.10)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from backfill.engine.codes import CODES, REMOVED, SUCCESS, WORDS, ended_badly
from backfill.engine.graph import TaskSpec
from backfill.engine.run import RunState
from backfill.engine.verdicts import Verdict
from backfill.facts import PreviousRun


class PastTask(NamedTuple):
    """A task in the run before that holds the task back. `code` None: there is no row of it, or no run yet."""

    task: int
    logical_date: datetime
    code: int | None


class LookBack(NamedTuple):
    """What line 6 says, and because of which tasks of the run before."""

    verdict: Verdict
    because_of: tuple[PastTask, ...] = ()


PASS = LookBack(Verdict.PASS)


def look_back(run: RunState, spec: TaskSpec) -> LookBack:
    """Answer line 6 of S4.1 for a task of `run`."""
    previous = run.previous
    if previous is None or not spec.past or (run.is_first and run.graph.options.ignore_first_depends_on_past):
        return PASS
    if previous.dag_run_id is None:
        return _held(run, previous, [(spec.index, None)])
    if _starts_between(previous.logical_date, spec.start_date, run.facts.logical_date):
        return PASS
    in_the_way = _in_the_way(run, previous, spec)
    if not _states(run, previous, spec.index):
        if spec.ignore_first_depends_on_past and spec.task_id not in previous.seen_before:
            return PASS
        in_the_way.append((spec.index, None))
    return _held(run, previous, in_the_way)


def snapshot(run: RunState, successor: RunState) -> PreviousRun | None:
    """Return `run`, which leaves the window, as the previous run that `successor` keeps; nobody drives it any more."""
    previous = successor.previous
    if previous is None:
        return None
    states: dict[str, tuple[str, ...]] = {
        run.graph.tasks[task].task_id: tuple(str(WORDS[code]) for code in run.states_of(task))
        for spec in run.graph.tasks
        for task in spec.past
    }
    return previous._replace(driven=False, states=states)


def _starts_between(earlier: datetime, start: datetime | None, later: datetime) -> bool:
    return start is not None and earlier < start <= later


def _states(run: RunState, previous: PreviousRun, task: int) -> list[int]:
    """Return the codes of a task in the run before, without `removed` ones."""
    if run.earlier is not None:
        return list(run.earlier.states_of(task))
    words = previous.states.get(run.graph.tasks[task].task_id, ())
    return [code for code in map(CODES.__getitem__, words) if code != REMOVED]


def _in_the_way(run: RunState, previous: PreviousRun, spec: TaskSpec) -> list[tuple[int, int | None]]:
    return [
        (task, code)
        for task in spec.past
        for code in _states(run, previous, task)
        if code < SUCCESS or ended_badly(code)
    ]


def _held(run: RunState, previous: PreviousRun, by: Iterable[tuple[int, int | None]]) -> LookBack:
    """Return whether anything in `by` can still change: not what ended badly, and nothing that nobody drives."""
    found = tuple(PastTask(task, previous.logical_date, code) for task, code in by)
    if not found:
        return PASS
    is_driven = previous.driven or run.earlier is not None
    is_final = not is_driven or any(past.code is not None and ended_badly(past.code) for past in found)
    return LookBack(Verdict.HELD if is_final else Verdict.WAIT, found)
