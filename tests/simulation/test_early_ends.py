"""Runs that end before their tasks have: `fail_stop` and `dagrun_timeout` in simulated worlds full of faults."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import initialize
from scripts import SHAPES, Script
from test_simulation import Disturbed, check_order, play, scripts
from world import World

from backfill.states import FINISHED
from backfill.store.clearing import RUN_TIMED_OUT


class FailStop(Disturbed):
    """The first failure ends its run: which one that is depends on who is quicker, that nothing goes on after it does not."""

    @initialize(script=scripts(("plain",)), rounds=st.integers(0, 6))
    def begin(self, script: Script, rounds: int) -> None:
        super().begin(replace(script, fail_stop=True), rounds)

    def check_end(self, world: World) -> None:
        check_order(world)
        assert all(ti.state in FINISHED for ti in world.tables.ti.values()), world.describe()


class RunTimeout(Disturbed):
    """Runs have a minute, not counting the time in which nobody drives the job."""

    timeout = timedelta(minutes=1)

    @initialize(script=scripts((*SHAPES, "plain")), rounds=st.integers(0, 6))
    def begin(self, script: Script, rounds: int) -> None:
        super().begin(replace(script, timeout=self.timeout), rounds)

    def check_end(self, world: World) -> None:
        check_order(world)
        late = {ti.dag_run_id for ti in world.tables.ti.values() if (ti.error or "").startswith(RUN_TIMED_OUT)}
        for run in (world.tables.run[run_id] for run_id in late):
            driven = run.end_date - run.start_date - timedelta(seconds=run.idle_seconds)
            assert run.state == "failed", f"the run {run.run_id} timed out and is {run.state}"
            assert driven > self.timeout, f"the run {run.run_id} timed out before its time, after {driven}"


def test_after_a_failure_under_fail_stop_nothing_of_the_run_goes_on() -> None:
    assert play(FailStop, 20, derandomize=True) >= 20


def test_runs_time_out_in_their_time_whoever_drives_them() -> None:
    assert play(RunTimeout, 20, derandomize=True) >= 20
