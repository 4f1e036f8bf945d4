"""The real loop in a simulated world that loses, doubles, delays and reorders; whatever happens, the job ends as if nothing had.

A failure is printed as a program of steps, with the seed: `make simulate SEED=…` finds it again, and hypothesis remembers it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from invariants import disagreement
from scripts import OUTCOMES, SHAPES, Script
from world import WORKERS, World, faultless

from backfill.states import FINISHED, JobState

#: Coordinators that are alive at the same time, and in all.
_AT_ONCE, _IN_ALL = 2, 8
_ANY = st.integers(0, 50)
_SECONDS = st.sampled_from([0.5, 2.0, 6.0, 13.0, 31.0, 47.0])


def step(**given: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a rule of a step; after one that failed the world is not brought to its end."""

    def make(act: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(act)
        def acting(self: Disturbed, **drawn: Any) -> None:
            self.is_sound = False
            act(self, **drawn)
            self.is_sound = True

        return rule(**given)(acting)

    return make


def scripts(shapes: tuple[str, ...] = SHAPES) -> st.SearchStrategy[Script]:
    """Return scripts of which some tasks fail, skip or reschedule."""
    return st.builds(
        Script,
        shape=st.sampled_from(shapes),
        days=st.integers(1, 3),
        continue_on_failures=st.just(value=True),
    ).flatmap(
        lambda script: st.builds(
            script.with_outcomes,
            st.dictionaries(
                st.tuples(st.sampled_from(script.task_ids()), st.integers(0, script.days - 1)),
                st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=3).map(tuple),
                max_size=3,
            ),
        )
    )


class Disturbed(RuleBasedStateMachine):
    """Steps of everybody, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None
        self.is_sound = True
        #: Every event that was ever published, for late and doubled deliveries.
        self.old_events: list[Any] = []

    @initialize(script=scripts())
    def begin(self, script: Script) -> None:
        self.world = World(script)
        self.world.start_coordinator().turns.go_on()

    @property
    def here(self) -> World:
        assert self.world is not None
        return self.world

    # -- coordinators ---------------------------------------------------------------------------------------------------

    def _coordinator(self, number: int) -> Any:
        live = self.here.live_coordinators()
        return live[number % len(live)]

    @step()
    @precondition(lambda self: len(self.here.live_coordinators()) < _AT_ONCE and len(self.here.coordinators) < _IN_ALL)
    def another_coordinator_comes(self) -> None:
        self.here.start_coordinator()

    @step(who=_ANY, turns=st.integers(1, 12))
    @precondition(lambda self: self.here.live_coordinators())
    def a_coordinator_goes_on(self, who: int, turns: int) -> None:
        self._coordinator(who).turns.go_on(turns)

    @step(who=_ANY)
    @precondition(lambda self: self.here.live_coordinators())
    def a_coordinator_goes_on_until_it_sleeps(self, who: int) -> None:
        self._coordinator(who).turns.go_on()

    @step(who=_ANY)
    @precondition(lambda self: self.here.live_coordinators())
    def a_coordinator_is_killed(self, who: int) -> None:
        self._coordinator(who).turns.kill()

    @step(who=_ANY)
    @precondition(lambda self: self.here.live_coordinators())
    def a_coordinator_is_interrupted(self, who: int) -> None:
        coordinator = self._coordinator(who)
        if coordinator.job is not None and not coordinator.is_interrupted:
            coordinator.is_interrupted = True
            coordinator.job.control.interrupt("SIGTERM")

    @step(who=_ANY, faults=st.lists(st.sampled_from(["refused", "answer lost"]), min_size=1, max_size=4))
    @precondition(lambda self: self.here.live_coordinators())
    def connections_of_a_coordinator_are_cut(self, who: int, faults: list[str]) -> None:
        self._coordinator(who).engine.faults.extend(faults)

    # -- the broker -----------------------------------------------------------------------------------------------------

    @step(which=_ANY, worker=st.integers(0, WORKERS - 1), keep=st.booleans())
    @precondition(lambda self: self.here.broker.messages)
    def a_message_arrives(self, which: int, worker: int, keep: bool) -> None:
        messages, receiver = self.here.broker.messages, self.here.workers[worker]
        if receiver.is_frozen or receiver.claims:
            return
        message = messages[which % len(messages)]
        receiver.received.append(message)
        if not keep:
            messages.remove(message)

    @step(which=_ANY)
    @precondition(lambda self: self.here.broker.messages)
    def a_message_is_lost(self, which: int) -> None:
        self.here.broker.messages.pop(which % len(self.here.broker.messages))

    @step(which=_ANY, keep=st.booleans())
    @precondition(lambda self: self.here.broker.events)
    def an_event_arrives(self, which: int, keep: bool) -> None:
        number = which % len(self.here.broker.events)
        self.old_events.append(self.here.broker.events[number])
        self.here.deliver(number, keep=keep)

    @step(which=_ANY)
    @precondition(lambda self: self.here.broker.events)
    def an_event_is_lost(self, which: int) -> None:
        self.old_events.append(self.here.broker.events.pop(which % len(self.here.broker.events)))

    @step(which=_ANY)
    @precondition(lambda self: self.old_events)
    def an_event_comes_again(self, which: int) -> None:
        self.here.broker.events.append(self.old_events[which % len(self.old_events)])

    @step(away=st.booleans())
    def the_broker_goes_or_comes_back(self, away: bool) -> None:
        self.here.broker.is_away = away

    @step()
    def the_broker_is_emptied(self) -> None:
        self.here.broker.flush()

    # -- workers --------------------------------------------------------------------------------------------------------

    @step(who=st.integers(0, WORKERS - 1), steps=st.integers(1, 3))
    def a_worker_goes_on(self, who: int, steps: int) -> None:
        for _ in range(steps):
            self.here.workers[who].step()

    @step(who=st.integers(0, WORKERS - 1), noticed=st.booleans())
    def a_worker_dies(self, who: int, noticed: bool) -> None:
        self.here.workers[who].die(noticed=noticed)
        self.here.workers[who].is_frozen = False

    @step(who=st.integers(0, WORKERS - 1), frozen=st.booleans())
    def a_worker_freezes_or_wakes(self, who: int, frozen: bool) -> None:
        self.here.workers[who].is_frozen = frozen

    @step(who=st.integers(0, WORKERS - 1), cut_off=st.booleans())
    def a_worker_is_cut_off_or_connected(self, who: int, cut_off: bool) -> None:
        self.here.workers[who].is_cut_off = cut_off

    @step(who=st.integers(0, WORKERS - 1))
    def a_worker_is_told_to_leave(self, who: int) -> None:
        self.here.workers[who].shut_down()

    @step(who=st.integers(0, WORKERS - 1), fault=st.sampled_from(["refused", "answer lost"]))
    def a_connection_of_a_worker_is_cut(self, who: int, fault: str) -> None:
        self.here.workers[who].engine.faults.append(fault)

    # -- time and the operator ------------------------------------------------------------------------------------------

    @step(seconds=_SECONDS)
    def time_goes_on(self, seconds: float) -> None:
        self.here.advance(seconds)

    @step(seconds=_SECONDS)
    def all_goes_well_for_a_while(self, seconds: float) -> None:
        """Let coordinators and workers that can go on do so, without which long ways into a job are rare."""
        world = self.here
        for coordinator in world.live_coordinators():
            coordinator.turns.go_on()
        for worker in world.workers:
            if not worker.received and not worker.claims and not worker.is_frozen and world.broker.messages:
                worker.received.append(world.broker.messages.pop(0))
            worker.step()
            worker.step()
        world.advance(seconds)

    @step(heard=st.booleans())
    def the_job_is_paused(self, heard: bool) -> None:
        self.here.pause()
        if heard:
            self.here.wake()

    @step(heard=st.booleans())
    def the_job_is_resumed(self, heard: bool) -> None:
        self.here.resume()
        if heard:
            self.here.wake()

    @invariant()
    def what_must_hold_holds(self) -> None:
        if self.world is not None:
            self.world.invariants.check_all()

    # -- the end --------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if self.world is None:
            return
        try:
            if self.is_sound:
                self.world.go_to_the_end()
                self.check_end(self.world)
        finally:
            self.world.close()

    def check_end(self, world: World) -> None:
        assert not disagreement(faultless(world.script), world.ends()), disagreement(
            faultless(world.script), world.ends()
        )


class HandledByOperators(Disturbed):
    """The same with the operator's hands in it: how task instances end is not the script's affair then."""

    def _ti(self, which: int) -> Any:
        tis = list(self.here.tables.ti.values())
        return tis[which % len(tis)]

    @step(which=_ANY)
    @precondition(lambda self: self.here.tables.ti)
    def a_task_instance_is_cleared(self, which: int) -> None:
        ti = self._ti(which)
        if not self.here.is_in_code(ti.id):
            self.here.clear(ti)

    @step(which=_ANY, state=st.sampled_from(["success", "failed", "skipped"]))
    @precondition(lambda self: self.here.tables.ti)
    def a_state_is_set_by_hand(self, which: int, state: str) -> None:
        self.here.set_by_hand(self._ti(which), state)

    @step(heard=st.booleans(), rarely=st.integers(0, 4))
    def the_job_is_cancelled(self, heard: bool, rarely: int) -> None:
        if rarely == 0:
            self.here.cancel()
            if heard:
                self.here.wake()

    def check_end(self, world: World) -> None:
        assert world.is_over
        if world.is_cancelled:
            assert world.job.state == JobState.CANCELLED
        for ti in world.tables.ti.values():
            run = world.tables.run[ti.dag_run_id]
            assert run.state != "running", f"{world.place(ti)} is in a run that nobody drives"
            assert ti.state in FINISHED or (ti.state == "none" and run.state in {"failed", "queued"}), world.describe()


def _play(machine: type[Disturbed], examples: int, *, derandomize: bool) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            derandomize=derandomize,
            database=None,
            print_blob=True,
            phases=[phase for phase in Phase if phase is not Phase.explain],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_whatever_is_lost_doubled_or_killed_the_job_ends_as_without_it() -> None:
    _play(Disturbed, 100, derandomize=True)


def test_whatever_operators_do_besides_the_job_comes_to_an_orderly_end() -> None:
    _play(HandledByOperators, 60, derandomize=True)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("machine", [Disturbed, HandledByOperators])
def test_many_more_worlds(machine: type[Disturbed]) -> None:
    _play(machine, int(os.environ.get("SIMULATE_EXAMPLES", "500")), derandomize=False)
