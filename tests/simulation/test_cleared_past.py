"""Finished runs are cleared that later ones depend on, and that fill the window: limits hold, and the job ends all the same."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition
from scripts import Script
from test_simulation import HandledByOperators, play, scripts, step
from world import World

_ANY = st.integers(0, 50)


class ClearedPast(HandledByOperators):
    """Dates before those in the window come up again, mostly for a coordinator that knows of them from the rows alone."""

    @initialize(
        script=scripts(("past",)),
        rounds=st.integers(0, 6),
        days=st.integers(2, 4),
        continue_on_failures=st.booleans(),
    )
    def begin(self, script: Script, rounds: int, days: int, continue_on_failures: bool) -> None:
        given = replace(script, days=days, continue_on_failures=continue_on_failures)
        super(HandledByOperators, self).begin(given, rounds)

    @step(which=_ANY, several=st.booleans(), taken_over=st.booleans())
    @precondition(lambda self: any(run.state in {"success", "failed"} for run in self.here.tables.run.values()))
    def the_past_of_the_window_is_cleared(self, which: int, several: bool, taken_over: bool) -> None:
        ended = [run.id for run in self.here.tables.run.values() if run.state in {"success", "failed"}]
        chosen = ended if several else [ended[which % len(ended)]]
        for ti in self.here.tables.tis_of(chosen):
            if ti.task_id in {"grow", "check"} and not self.here.is_in_code(ti.id):
                self.here.clear(ti)
        if taken_over:
            for coordinator in self.here.live_coordinators():
                coordinator.turns.kill()


def test_a_job_ends_whatever_is_cleared_of_the_past_of_its_window() -> None:
    assert play(ClearedPast, 30, derandomize=True) >= 30


def test_cleared_days_get_a_place_in_a_window_full_of_runs_that_wait_for_them() -> None:
    world = World(Script(shape="past", days=4))
    world.start_coordinator()
    try:
        while sum(run.state == "success" for run in world.tables.run.values()) < 2:
            world.go_well()
        for ti in world.tables.tis_of([run.id for run in world.tables.run.values() if run.state == "success"]):
            world.clear(ti)
        for coordinator in world.live_coordinators():
            coordinator.turns.kill()
        world.go_to_the_end()
        found = world.states()
        assert {state for state, _ in found.values()} == {"success", "skipped"}
    finally:
        world.close()
