"""Each statement of the coordinator writes from exactly the states that the transition table allows (semantics, section 3)."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from planted import Planted, look, plant_job, plant_run, plant_task_instance
from sqlalchemy import Connection, update

from backfill.models import dag_run
from backfill.states import TRANSITIONS, TaskInstanceState
from backfill.store.alignment import TaskTemplate, align_task_instances
from backfill.store.clearing import (
    cancel_if_current,
    clear_task_instances,
    skip_if_unfinished,
    unschedule_if_run_closed,
)
from backfill.store.recovery import Failure, Loss, fail_if_current, lose_if_current, reset_orphans
from backfill.store.task_instances import (
    QueueRequest,
    queue_if_idle,
    schedule_if_idle,
    settle_if_idle,
    take_back_if_queued,
    unschedule_if_scheduled,
)

S = TaskInstanceState
RULES = {transition.rule: transition for transition in TRANSITIONS}


@dataclass(frozen=True)
class Scene:
    """A running run of a running job with one task instance in each state, which is its task's name."""

    job_id: int
    run_id: int
    rows: dict[S, Planted]

    @property
    def ids(self) -> list[int]:
        return [row.id for row in self.rows.values()]

    @property
    def attempts(self) -> list[tuple[int, str]]:
        return [(row.id, row.attempt_id) for row in self.rows.values()]


@pytest.fixture
def scene(tx: Connection) -> Scene:
    job_id = plant_job(tx)
    run_id = plant_run(tx, job_id=job_id)
    return Scene(job_id, run_id, {state: plant_task_instance(tx, run_id, state, state=state) for state in S})


def template(state: S) -> TaskTemplate:
    return TaskTemplate(state, -1, 0, "default_pool", 1, "backfill", "", "", 1)


def close_and_unschedule(tx: Connection, scene: Scene) -> object:
    tx.execute(update(dag_run).values(state="failed"))
    return unschedule_if_run_closed(tx, [scene.run_id])


def settle(target: S) -> Callable[[Connection, Scene], object]:
    return lambda tx, scene: settle_if_idle(tx, [(i, target) for i in scene.ids])


def fail(delay: timedelta | None) -> Callable[[Connection, Scene], object]:
    return lambda tx, scene: fail_if_current(tx, [Failure(i, a, "lost", delay) for i, a in scene.attempts])


CASES: dict[str, tuple[Callable[[Connection, Scene], object], str, S]] = {
    "schedule_if_idle": (lambda tx, s: schedule_if_idle(tx, s.ids), "S3.2", S.SCHEDULED),
    "unschedule_if_scheduled": (lambda tx, s: unschedule_if_scheduled(tx, s.ids), "S3.3", S.NONE),
    "queue_if_idle": (
        lambda tx, s: queue_if_idle(tx, s.job_id, [QueueRequest(i, str(uuid4()), "p", "e") for i in s.ids]),
        "S3.4",
        S.QUEUED,
    ),
    "settle_if_idle skipped": (settle(S.SKIPPED), "S3.5", S.SKIPPED),
    "settle_if_idle upstream_failed": (settle(S.UPSTREAM_FAILED), "S3.5", S.UPSTREAM_FAILED),
    "settle_if_idle success": (settle(S.SUCCESS), "S3.6", S.SUCCESS),
    "take_back_if_queued": (lambda tx, s: take_back_if_queued(tx, s.attempts), "S3.8", S.NONE),
    "fail_if_current for good": (fail(None), "S3.14", S.FAILED),
    "fail_if_current with a retry": (fail(timedelta(minutes=5)), "S3.14", S.UP_FOR_RETRY),
    "lose_if_current": (lambda tx, s: lose_if_current(tx, [Loss(i, a, "x") for i, a in s.attempts]), "S3.15", S.NONE),
    "cancel_if_current": (lambda tx, s: cancel_if_current(tx, s.attempts, "x"), "S3.17", S.FAILED),
    "skip_if_unfinished": (
        lambda tx, s: skip_if_unfinished(tx, [s.run_id], "dagrun_timeout of 1:00:00 is over"),
        "S3.18",
        S.SKIPPED,
    ),
    "align_task_instances without the tasks": (
        lambda tx, s: align_task_instances(tx, [s.run_id], []),
        "S3.20",
        S.REMOVED,
    ),
    "align_task_instances with the tasks": (
        lambda tx, s: align_task_instances(tx, [s.run_id], [template(state) for state in S]),
        "S3.21",
        S.NONE,
    ),
    "unschedule_if_run_closed": (close_and_unschedule, "S3.23", S.NONE),
}


def written(tx: Connection, scene: Scene) -> dict[S, str]:
    return {state: look(tx, row)["state"] for state, row in scene.rows.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_statement_writes_from_the_states_of_its_rule_and_from_no_other(
    tx: Connection, scene: Scene, name: str
) -> None:
    write, rule, target = CASES[name]
    untouched = {state: look(tx, row) for state, row in scene.rows.items() if state not in RULES[rule].sources}
    answer = write(tx, scene)
    assert target in RULES[rule].targets
    assert written(tx, scene) == {state: target if state in RULES[rule].sources else state for state in S}
    assert {state: look(tx, scene.rows[state]) for state in untouched} == untouched
    if answer is not None:
        assert len(answer) == len(RULES[rule].sources)  # type: ignore[arg-type]


def test_orphans_are_what_is_scheduled_or_queued(tx: Connection, scene: Scene) -> None:
    """By S8.5, through S3.3 and S3.8."""
    assert reset_orphans(tx, scene.job_id, timedelta(seconds=30), held=[]) == 2
    orphans = RULES["S3.3"].sources | RULES["S3.8"].sources
    assert written(tx, scene) == {state: S.NONE if state in orphans else state for state in S}


@pytest.mark.parametrize("known_to_be_gone", [False, True])
def test_a_clear_starts_from_every_state_but_removed_and_running_until_the_process_is_gone(
    tx: Connection, scene: Scene, known_to_be_gone: bool
) -> None:
    """S3.22 in flight: once its process is known to be gone; `removed` is ignored by every other rule (S2.12)."""
    timeout = timedelta(minutes=1) if known_to_be_gone else None
    cleared = clear_task_instances(tx, [scene.run_id], dict.fromkeys(S, 0), heartbeat_timeout=timeout)
    kept = {S.REMOVED} if known_to_be_gone else {S.REMOVED, S.RUNNING}
    assert {row.task_id for row in cleared} == set(S) - kept
    assert written(tx, scene) == {state: state if state in kept else S.NONE for state in S}


@pytest.mark.parametrize("target", [s for s in S if s not in RULES["S3.5"].targets | RULES["S3.6"].targets])
def test_dependencies_settle_nothing_else(tx: Connection, scene: Scene, target: S) -> None:
    assert settle_if_idle(tx, [(i, target) for i in scene.ids]) == set()
    assert written(tx, scene) == {state: state for state in S}


@pytest.mark.parametrize(
    "name", ["take_back_if_queued", "fail_if_current for good", "lose_if_current", "cancel_if_current"]
)
def test_nothing_is_written_for_an_attempt_that_is_not_current(tx: Connection, scene: Scene, name: str) -> None:
    stale = Scene(scene.job_id, scene.run_id, {s: Planted(row.id, str(uuid4())) for s, row in scene.rows.items()})
    assert CASES[name][0](tx, stale) == set()
    void = Scene(scene.job_id, scene.run_id, {s: Planted(row.id, None) for s, row in scene.rows.items()})  # type: ignore[arg-type]
    assert CASES[name][0](tx, void) == set()
    assert written(tx, scene) == {state: state for state in S}


def test_a_row_without_attempt_is_written_by_whoever_knows_that_it_has_none(tx: Connection) -> None:
    """A state that was set by hand."""
    run_id = plant_run(tx)
    row = plant_task_instance(tx, run_id, state="running", external_executor_id=None)
    assert lose_if_current(tx, [Loss(row.id, None, "nobody runs it")]) == {row.id}
    assert look(tx, row)["state"] == "none"


@pytest.mark.parametrize(
    "write",
    [
        lambda tx: queue_if_idle(tx, 1, []),
        lambda tx: settle_if_idle(tx, []),
        lambda tx: schedule_if_idle(tx, []),
        lambda tx: unschedule_if_scheduled(tx, []),
        lambda tx: take_back_if_queued(tx, []),
        lambda tx: fail_if_current(tx, []),
        lambda tx: lose_if_current(tx, []),
        lambda tx: cancel_if_current(tx, [], "x"),
        lambda tx: skip_if_unfinished(tx, [], "dagrun_timeout of 1:00:00 is over"),
        lambda tx: unschedule_if_run_closed(tx, []),
        lambda tx: clear_task_instances(tx, [], {"a": 1}),
        lambda tx: clear_task_instances(tx, [1], {}),
    ],
)
def test_nothing_to_write_is_no_statement(write: Callable[[Any], object]) -> None:
    assert not write(None)
