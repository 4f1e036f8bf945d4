"""Two jobs in one simulated world: they share a pool, the workers and sometimes a DAG, and neither may be the worse for the other."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import initialize
from scripts import Script
from test_simulation import Disturbed, play, scripts


class TwoJobs(Disturbed):
    """Everything befalls two jobs at once. Where they have the same DAG, its limits hold for both together (S5.1)."""

    @initialize(script=scripts(), other=scripts(), rounds=st.integers(0, 6))
    def begin(self, script: Script, other: Script, rounds: int) -> None:
        later = {(task_id, day + script.days): tries for (task_id, day), tries in other.outcomes.items()}
        self.world = self.make_world(script, replace(other, first_day=script.days, outcomes=later))
        for job in self.world.jobs:
            self.world.start_coordinator(job)
        for _ in range(rounds):
            self.world.go_well()


def test_two_jobs_side_by_side_end_as_without_faults() -> None:
    assert play(TwoJobs, 20, derandomize=True) >= 20
