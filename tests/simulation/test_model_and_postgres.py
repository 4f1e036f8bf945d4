"""The model of the database answers as PostgreSQL does: the same worlds, with every statement put to both."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from mirrored_database import MirroredDatabase, freeze_time
from model_database import Row
from players import Death
from scripts import SHAPES, Script
from sqlalchemy import Engine
from test_simulation import Disturbed, HandledByOperators, play
from world import World


@pytest.fixture
def frozen(engine: Engine) -> Engine:
    freeze_time(engine)
    return engine


def mirrored(machine: type[Disturbed], engine: Engine) -> type[Disturbed]:
    """Return a machine whose worlds have both databases."""

    class Mirrored(machine):  # type: ignore[valid-type,misc]
        def make_world(self, *scripts: Script) -> World:
            return World(*scripts, database=lambda time: MirroredDatabase(time.now, engine))

        def check_end(self, world: World) -> None:
            super().check_end(world)
            world.database.compare()

    return Mirrored


@pytest.mark.parametrize(("machine", "examples"), [(Disturbed, 5), (HandledByOperators, 4)])
def test_both_answer_alike_in_disturbed_worlds(machine: type[Disturbed], examples: int, frozen: Engine) -> None:
    assert play(mirrored(machine, frozen), examples, derandomize=True) >= examples


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("machine", [Disturbed, HandledByOperators])
def test_both_answer_alike_in_many_more_worlds(machine: type[Disturbed], frozen: Engine) -> None:
    assert play(mirrored(machine, frozen), 100, derandomize=True) >= 100


@pytest.fixture
def world(frozen: Engine) -> Iterator[World]:
    world = World(Script(days=2), database=lambda time: MirroredDatabase(time.now, frozen))
    world.start_coordinator()
    yield world
    world.close()


def go_well_until(world: World, is_reached: Callable[[], bool]) -> None:
    for _ in range(100):
        if is_reached():
            return
        world.go_well()
    raise AssertionError(world.describe())


def test_both_answer_alike_when_a_job_is_cancelled_whose_worker_is_gone(world: World) -> None:
    go_well_until(world, lambda: bool(world.busy_workers()) and world.busy_workers()[0].begun is not None)
    world.busy_workers()[0].die(Death.UNNOTICED)
    world.cancel(world.jobs[0])
    world.go_to_the_end()
    world.database.compare()
    assert world.job.state == "cancelled"


def test_both_answer_alike_when_what_is_scheduled_has_to_wait_again(world: World) -> None:
    def of(task_id: str) -> Row:
        return next(ti for ti in world.tables.ti.values() if ti.task_id == task_id)

    world.go_well()
    go_well_until(world, lambda: "scheduled" in {of("left").state, of("right").state})
    world.clear(of("top"))
    world.go_to_the_end()
    world.database.compare()
    assert of("top").try_number == 2


@pytest.mark.parametrize("shape", SHAPES)
def test_both_answer_alike_in_a_calm_world(shape: str, frozen: Engine) -> None:
    world = World(Script(shape, days=3), database=lambda time: MirroredDatabase(time.now, frozen))
    try:
        world.go_to_the_end()
        world.database.compare()
        assert world.job.state == "success"
    finally:
        world.close()
