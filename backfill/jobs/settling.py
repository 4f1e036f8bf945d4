"""What follows from decisions of the engine, written: settled task instances, expanded mappings, finished runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from backfill.engine.family import Family
from backfill.engine.window import Decisions, RunOutcome
from backfill.facts import RunFacts, TaskInstanceFacts
from backfill.jobs.course import Course
from backfill.jobs.subdags import STUCK, Mirrored
from backfill.states import DagRunState, TaskInstanceState
from backfill.store import clearing, mapping, runs, task_instances
from backfill.store.database import Tx

#: How many rows of mapped tasks one round of the loop creates or takes in, about; an expansion that was begun goes on in the next.
MAPPED_PORTION = 2000


class Written(NamedTuple):
    """What became of decisions."""

    #: Rows as they are now, for the engine to take in.
    changed: list[TaskInstanceFacts]
    #: Rows that were settled as decided.
    settled: list[TaskInstanceFacts]
    #: (dag_run_id, task_id, length) of mappings that were looked up; None: the values are not stored.
    expanded: list[tuple[int, str, int | None]]
    #: (dag_run_id, task_id) of mappings of which rows are still to be created, in further transactions.
    half_expanded: list[tuple[int, str]]


def write_decisions(course: Course, decisions: Decisions, tx: Tx) -> Written:
    """Write what the engine decided, each with the guard that the row is still as it was (S3.3, S3.5, S3.6, S4.7).

    What was not settled as decided, since its row had changed, comes back in `changed` as it is.
    """
    changed: list[TaskInstanceFacts] = []
    settled_ids: set[int] = set()
    if decisions.settle:
        settled_ids = task_instances.settle_if_idle(tx, decisions.settle, errors=_errors(course, decisions))
        refused = [ti_id for ti_id, _ in decisions.settle if ti_id not in settled_ids]
        if refused:
            changed += task_instances.select_facts(tx, refused)
    if decisions.unschedule:
        task_instances.unschedule_if_scheduled(tx, decisions.unschedule)
        changed += task_instances.select_facts(tx, decisions.unschedule)
    expanded, half_expanded, room = [], [], MAPPED_PORTION
    for dag_run_id, task_id in decisions.expand:
        length, rows = _expand(tx, course, dag_run_id, task_id, at_once=room) if room > 0 else (0, None)
        room -= length or 0
        if rows is None:
            half_expanded.append((dag_run_id, task_id))
        else:
            changed += rows
            expanded.append((dag_run_id, task_id, length))
    if course.subdags is not None:
        course.subdags.pass_over_settled(tx, settled_ids)
    settled = [course.window.facts(ti_id) for ti_id, _ in decisions.settle if ti_id in settled_ids]
    return Written(changed, settled, expanded, half_expanded)


def _expand(
    tx: Tx, course: Course, dag_run_id: int, task_id: str, *, at_once: int
) -> tuple[int | None, list[TaskInstanceFacts] | None]:
    """Give a mapped task its indexes by the lengths of what its sources returned, and return both (S4.7).

    No rows: only so many as one transaction may create are there yet.
    """
    dag_id = course.dag_id_of(dag_run_id)
    graph = course.compiled.graphs[dag_id]
    sources = sorted(graph.mapping_sources(task_id))
    length = graph.mapping_length(task_id, mapping.return_values_lengths(tx, dag_run_id, sources))
    if length is None:
        course.without_values[dag_run_id, task_id] = f"no values of {', '.join(sources)} are stored to map it over"
        return None, []
    template = course.template(dag_id, task_id)
    return length, mapping.expand_mapping(tx, dag_run_id, template, length, at_once=at_once)


def _errors(course: Course, decisions: Decisions) -> dict[int, str]:
    """Return what to say of mapped task instances that end badly for want of values (section 10, `-i`)."""
    if not course.without_values:
        return {}
    bad = [
        course.window.facts(ti_id) for ti_id, state in decisions.settle if state == TaskInstanceState.UPSTREAM_FAILED
    ]
    texts = {row.id: course.without_values.get((row.dag_run_id, row.task_id)) for row in bad}
    return {ti_id: text for ti_id, text in texts.items() if text is not None}


def write_outcomes(outcomes: Sequence[RunOutcome], tx: Tx, *, seen: Iterable[TaskInstanceFacts] = ()) -> set[int]:
    """Write how runs ended, and that their dates are done; what still waits in them waits no more (S2.14, S3.23).

    Returns the ids of runs that go on, as one of the task instances that were `seen` is in another state.
    """
    ends = [(outcome.dag_run_id, outcome.state) for outcome in outcomes]
    _, going_on = runs.finish_runs_if_running(tx, ends, seen=((row.id, row.state) for row in seen))
    closed = [run_id for run_id, state in ends if state == DagRunState.FAILED and run_id not in going_on]
    clearing.unschedule_if_run_closed(tx, closed)
    return going_on


class Ended(NamedTuple):
    """What became of runs that were to end."""

    outcomes: list[RunOutcome]
    #: Rows that turned out to be in another state than was known; their runs go on.
    changed: list[TaskInstanceFacts]
    #: What became of the task instances that stand for runs of subdags.
    mirrored: Mirrored


def end_runs(course: Course, outcomes: Sequence[RunOutcome], tx: Tx, *, at_the_end: bool = False) -> Ended:
    """Write how runs ended, and with those of subdags the task instances that stand for them (S13.4).

    Runs that only seem finished go on: something in them was cleared unnoticed (S0.1, S2.14). At the end of the job none does.
    """
    seem_finished = [] if at_the_end else _seem_finished(course, outcomes)
    runs.lock_runs(tx, seem_finished)  # what is cleared from here on waits for the end, and undoes it
    if course.subdags is None:
        seen = [row for run_id in seem_finished for row in course.window.rows(run_id)]
        going_on = write_outcomes(outcomes, tx, seen=seen)
        ended = [outcome for outcome in outcomes if outcome.dag_run_id not in going_on]
        return Ended(ended, _changed_unnoticed(course, sorted(going_on), tx), Mirrored())
    changed = _changed_unnoticed(course, seem_finished, tx)  # asked before: dates of subdags are written before runs
    going_on = {row.dag_run_id for row in changed}
    ended = [outcome for outcome in outcomes if outcome.dag_run_id not in going_on]
    course.subdags.pass_over(tx, ended)
    write_outcomes(ended, tx)
    return Ended(ended, changed, course.subdags.settle(tx, ended))


def _seem_finished(course: Course, outcomes: Iterable[RunOutcome]) -> list[int]:
    finished = {run.dag_run_id for run in course.window.finished_runs()}
    return [outcome.dag_run_id for outcome in outcomes if outcome.dag_run_id in finished]


def _changed_unnoticed(course: Course, dag_run_ids: Sequence[int], tx: Tx) -> list[TaskInstanceFacts]:
    """Return the rows of runs whose state is not what is known."""
    window = course.window
    rows = task_instances.select_facts_of_runs(tx, dag_run_ids)
    return [row for row in rows if window.knows(row.id) and row.state != window.facts(row.id).state]


def outcomes_at_the_end(course: Course, dag_runs: Iterable[RunFacts]) -> list[RunOutcome]:
    """Return how the runs that are still in the window, and those of their subdags, end with their job (S9.4)."""
    outcomes = {outcome.dag_run_id: outcome for outcome in course.window.finished_runs()}
    family = course.window if isinstance(course.window, Family) else None
    left = [each.id for run in dag_runs for each in (*(family.open_below(run.id) if family else ()), run)]
    return [outcomes.get(run_id) or RunOutcome(run_id, DagRunState.FAILED, STUCK) for run_id in left]
