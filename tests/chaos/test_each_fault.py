"""Each fault in the middle of a busy backfill, at a moment that its seed chooses. The journal decides."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from chaos_catalogue import FAULTS
from chaos_faults import Fault
from chaos_plans import Plan
from chaos_scene import Scene
from chaos_table import row_of

ROWS = [pytest.param(each, id=each.name, marks=() if each.quick else pytest.mark.slow) for each in FAULTS]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", ROWS)
def test_nothing_is_lost_and_nothing_finished_runs_again_whatever_happens(
    fault: Fault, scene_of: Callable[[Plan, int], Scene], record_property: Callable[[str, object], None]
) -> None:
    scene = scene_of(fault.plan(fault.seed), fault.seed)
    fault.happen(scene)
    scene.stop_workers()
    verdict = scene.judge(fault.spoils, cut_short=fault.cut_short)
    for column, value in row_of(fault.name, fault.seed, verdict, scene.seconds_to_recover()).items():
        record_property(column, value)
    assert verdict.broken == []
    assert verdict.differing == []
    if not fault.kills:
        assert (verdict.attempts_lost, verdict.not_committed) == (0, [])
    assert bool(verdict.spoiled) == bool(fault.spoils)
