"""A runner as a worker's process has it, and what runs a task in it to its end."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from worker_stage import Stage
from worker_tasks import Events, MakeRunner, one_task

from backfill import DAG
from backfill.config import Settings
from backfill.messages import Attempt
from workers.runner import Runner


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def make_runner(engine: sa.Engine, settings: Settings, events: Events) -> Iterator[MakeRunner]:
    made: list[Runner] = []

    def make(**changes: Any) -> Runner:
        given = {"engine": engine, "settings": settings, "publish": events.publish, "hostname": "worker-1@host"}
        made.append(Runner(**(given | changes)))
        return made[-1]

    yield make
    for runner in made:
        runner.end()


@pytest.fixture
def runner(make_runner: MakeRunner) -> Runner:
    return make_runner()


@pytest.fixture
def quick(settings: Settings) -> Settings:
    """Return settings with heartbeats that tests need not wait for."""
    return settings.override("test", {"task.heartbeat_interval": 0.05, "task.heartbeat_timeout": 30})


@pytest.fixture
def run_dag(engine: sa.Engine, settings: Settings, runner: Runner) -> Callable[..., tuple[Stage, Attempt]]:
    """Return a function that runs the task `load` of a DAG to its end."""

    def run(dag: DAG, **job: Any) -> tuple[Stage, Attempt]:
        stage = Stage(engine, settings, dag, **job)
        attempt = stage.queue("load")
        runner.run_bundle(stage.bundle(attempt))
        return stage, attempt

    return run


@pytest.fixture
def run_one(run_dag: Callable[..., tuple[Stage, Attempt]]) -> Callable[..., tuple[Stage, Attempt]]:
    """Return a function that runs a task of one function to its end."""

    def run(
        function: Callable[..., Any], *, job: dict[str, Any] | None = None, **arguments: Any
    ) -> tuple[Stage, Attempt]:
        return run_dag(one_task(function, **arguments), **(job or {}))

    return run
