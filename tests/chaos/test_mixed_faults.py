"""Several faults at random times in one backfill: `make chaos SEEDS=20`, and `make chaos SEED=7` for one of them once more."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from chaos_mixture import Mixture
from chaos_plans import Plan, random_plan
from chaos_scene import Scene
from chaos_table import row_of


def seeds() -> list[int]:
    """Return the seed that $CHAOS_SEED names, or as many as $CHAOS_SEEDS says from $CHAOS_FIRST_SEED on; else two that are always the same."""
    if os.environ.get("CHAOS_SEED"):
        return [int(os.environ["CHAOS_SEED"])]
    first, number = int(os.environ.get("CHAOS_FIRST_SEED") or 1), int(os.environ.get("CHAOS_SEEDS") or 2)
    return [*range(first, first + number)]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", seeds())
def test_nothing_is_lost_and_nothing_finished_runs_again_whatever_happens_at_once(
    seed: int, scene_of: Callable[[Plan, int], Scene], record_property: Callable[[str, object], None]
) -> None:
    scene = scene_of(random_plan(seed, days=28, doomed=seed % 2 == 0), seed)
    mixture = Mixture(scene)
    mixture.begin()
    with scene.strike():
        mixture.disturb()
    scene.expect_end_of_job()
    scene.stop_workers()
    verdict = scene.judge()
    for column, value in row_of("a mixture", seed, verdict, scene.seconds_to_recover()).items():
        record_property(column, value)
    replay = [f"make chaos SEED={seed} replays this", *mixture.told]
    assert verdict.broken == [], replay
    assert verdict.differing == [], replay
