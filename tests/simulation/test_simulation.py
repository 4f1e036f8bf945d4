"""The real loop in a simulated world that loses, doubles, delays and reorders; whatever happens, the job ends as if nothing had.

A failure is printed as a program of steps; that of `make simulate` ends with the command that finds it again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from invariants import disagreement
from planned_jobs import PlannedJob
from players import Death, Worker
from scripts import OUTCOMES, SHAPES, Script
from world import World, faultless

from backfill.states import FINISHED, IDLE, JobState

#: Coordinators that are alive at the same time, and in all.
_AT_ONCE, _IN_ALL = 2, 8
_ANY = st.integers(0, 50)
_FAULTS = st.sampled_from(["refused", "answer lost"])
_SECONDS = st.sampled_from([0.5, 2.0, 6.0, 13.0, 31.0, 47.0])


def step(**given: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a rule of a step; after one that failed the world is not brought to its end."""

    def make(act: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(act)
        def acting(self: Disturbed, **drawn: Any) -> None:
            self.is_sound = False  # an error within the step leaves it so
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

    #: Worlds of this kind that were brought to their end, where all was as it must be.
    worlds_ended = 0

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None
        self.is_sound = True
        #: Every event that was ever published, for late and doubled deliveries.
        self.old_events: list[Any] = []

    @initialize(script=scripts(), rounds=st.integers(0, 6))
    def begin(self, script: Script, rounds: int) -> None:
        self.world = self.make_world(script)
        self.world.start_coordinator()
        for _ in range(rounds):
            self.world.go_well()

    def make_world(self, *scripts: Script) -> World:
        return World(*scripts)

    @property
    def here(self) -> World:
        assert self.world is not None
        return self.world

    # -- coordinators ---------------------------------------------------------------------------------------------------

    def _coordinator(self, number: int) -> Any:
        live = self.here.live_coordinators()
        return live[number % len(live)]

    def _job(self, number: int) -> PlannedJob:
        return self.here.jobs[number % len(self.here.jobs)]

    @step(which=_ANY)
    @precondition(lambda self: len(self.here.coordinators) < _IN_ALL)
    def another_coordinator_comes(self, which: int) -> None:
        if len(self.here.live_coordinators(self._job(which))) < _AT_ONCE:
            self.here.start_coordinator(self._job(which))

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

    @step(who=_ANY, faults=st.lists(_FAULTS, min_size=1, max_size=4))
    @precondition(lambda self: self.here.live_coordinators())
    def connections_of_a_coordinator_are_cut(self, who: int, faults: list[str]) -> None:
        self._coordinator(who).engine.faults.extend(faults)

    # -- the broker -----------------------------------------------------------------------------------------------------

    @step(which=_ANY, keep=st.booleans(), number=st.integers(1, 2))
    @precondition(lambda self: self.here.broker.messages and self.here.idle_workers())
    def messages_arrive(self, which: int, keep: bool, number: int) -> None:
        messages, idle = self.here.broker.messages, self.here.idle_workers()
        for _ in range(min(number, len(messages))):
            message = messages[which % len(messages)]
            idle[which % len(idle)].received.append(message)
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

    def _busy(self, number: int) -> Worker:
        busy = self.here.busy_workers()
        return busy[number % len(busy)]

    @step(who=_ANY, steps=st.integers(1, 3))
    @precondition(lambda self: self.here.busy_workers())
    def a_worker_goes_on(self, who: int, steps: int) -> None:
        worker = self._busy(who)
        for _ in range(steps):
            worker.step()

    @step()
    @precondition(lambda self: self.here.busy_workers())
    def all_workers_go_on(self) -> None:
        for worker in self.here.busy_workers():
            worker.step()

    @step(who=_ANY, how=st.sampled_from(Death))
    @precondition(lambda self: self.here.busy_workers())
    def a_worker_dies(self, who: int, how: Death) -> None:
        self._busy(who).die(how)

    @step(who=_ANY, how=st.sampled_from(["frozen", "cut off", "well"]))
    @precondition(lambda self: self.here.busy_workers())
    def a_worker_freezes_or_is_cut_off_or_well_again(self, who: int, how: str) -> None:
        worker = self._busy(who)
        worker.is_frozen, worker.is_cut_off = how == "frozen", how == "cut off"

    @step(who=_ANY, frozen=st.booleans(), pauses=st.lists(st.sampled_from([2.0, 5.5]), min_size=1, max_size=8))
    @precondition(lambda self: self.here.busy_workers())
    def a_worker_is_silent_while_the_others_go_on(self, who: int, frozen: bool, pauses: list[float]) -> None:
        """Several of the rarer steps at once: what it runs may be given to another, but not too early."""
        worker = self._busy(who)
        worker.is_frozen, worker.is_cut_off = frozen, not frozen
        for pause in pauses:
            self.here.advance(pause)
            self.here.go_well()
        worker.is_frozen = worker.is_cut_off = False

    @step(who=_ANY)
    @precondition(lambda self: self.here.busy_workers())
    def a_worker_is_told_to_leave(self, who: int) -> None:
        self._busy(who).shut_down()

    @step(who=_ANY, fault=_FAULTS)
    @precondition(lambda self: self.here.busy_workers())
    def a_connection_of_a_worker_is_cut(self, who: int, fault: str) -> None:
        self._busy(who).engine.faults.append(fault)

    # -- time and the operator ------------------------------------------------------------------------------------------

    @step(seconds=_SECONDS)
    def time_goes_on(self, seconds: float) -> None:
        self.here.advance(seconds)

    @step(seconds=_SECONDS)
    def all_goes_well_for_a_while(self, seconds: float) -> None:
        self.here.go_well()
        self.here.advance(seconds)

    @step(who=_ANY, turns=st.integers(0, 6), then=st.integers(1, 12))
    @precondition(lambda self: self.here.live_coordinators() and len(self.here.coordinators) < _IN_ALL)
    def a_coordinator_is_frozen_until_another_has_taken_over(self, who: int, turns: int, then: int) -> None:
        """Two of the rarer steps at once: only a coordinator that wakes in the middle of a round may write too late."""
        coordinator = self._coordinator(who)
        coordinator.turns.go_on(turns)
        self.here.advance(47.0)
        self.here.start_coordinator(coordinator.planned).turns.go_on(then * 5)
        coordinator.turns.go_on(then)

    @step(which=_ANY, heard=st.booleans())
    def a_job_is_paused(self, which: int, heard: bool) -> None:
        self.here.pause(self._job(which))
        if heard:
            self.here.wake(self._job(which))

    @step(which=_ANY, heard=st.booleans())
    def a_job_is_resumed(self, which: int, heard: bool) -> None:
        self.here.resume(self._job(which))
        if heard:
            self.here.wake(self._job(which))

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
                type(self).worlds_ended += 1
        finally:
            self.world.close()

    def check_end(self, world: World) -> None:
        differing = disagreement(faultless(*world.scripts), world.ends())
        assert not differing, differing


class HandledByOperators(Disturbed):
    """The same with the operator's hands in it: how task instances end is not the script's affair then."""

    @initialize(script=scripts(), rounds=st.integers(0, 6), infrastructure_retries=st.sampled_from([0, 1, 1000]))
    def begin(self, script: Script, rounds: int, infrastructure_retries: int) -> None:
        super().begin(replace(script, infrastructure_retries=infrastructure_retries), rounds)

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

    @step(who=_ANY, turns=st.integers(1, 6), which=_ANY, then=st.integers(1, 6))
    @precondition(lambda self: self.here.live_coordinators())
    def a_state_is_set_by_hand_within_a_round(self, who: int, turns: int, which: int, then: int) -> None:
        """Several steps at once: only what is set between a coordinator's look and its write shows whether that is guarded."""
        coordinator = self._coordinator(who)
        self.here.go_well()
        coordinator.turns.go_on(turns)
        idle = [ti for ti in self.here.tables.ti.values() if ti.state in IDLE]
        if idle:
            self.here.set_by_hand(idle[which % len(idle)], "success")
        coordinator.turns.go_on(then)

    @step(which=_ANY, heard=st.booleans(), rarely=st.integers(0, 2))
    def a_job_is_cancelled(self, which: int, heard: bool, rarely: int) -> None:
        if rarely == 0:
            self.here.cancel(self._job(which))
            if heard:
                self.here.wake(self._job(which))

    def check_end(self, world: World) -> None:
        assert world.is_over
        for job_id in world.cancelled:
            assert world.tables.job[job_id].state == JobState.CANCELLED
        check_order(world)


def check_order(world: World) -> None:
    """What holds of every end: nothing goes on, and what never ran is in a run that was closed for that, or waits to be taken again."""
    for ti in world.tables.ti.values():
        run = world.tables.run[ti.dag_run_id]
        assert run.state != "running", f"{world.place(ti)} is in a run that nobody drives"
        assert ti.state in FINISHED or (ti.state == "none" and run.state in {"failed", "queued"}), world.describe()


def play(machine: type[Disturbed], examples: int, *, derandomize: bool, shrink: bool = True) -> int:
    """Let so many worlds go, each with the asserts of `Invariants` after each step; return how many passed `check_end`, too."""
    machine.worlds_ended = 0
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            derandomize=derandomize,
            database=None,
            print_blob=True,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return machine.worlds_ended


def test_whatever_is_lost_doubled_or_killed_the_job_ends_as_without_it() -> None:
    assert play(Disturbed, 60, derandomize=True) >= 60


def test_whatever_operators_do_besides_the_job_comes_to_an_orderly_end() -> None:
    assert play(HandledByOperators, 40, derandomize=True) >= 40


def test_what_is_cleared_just_before_its_run_ends_is_run_again() -> None:
    world = World(Script(days=1))
    world.start_coordinator()
    try:
        while not (top := [ti for ti in world.tables.ti.values() if ti.task_id == "top"]) or top[0].state != "success":
            world.go_well()
        world.clear(top[0])
        world.go_to_the_end()
        assert world.states()["diamond", "top", 0, -1] == ("success", 2)
    finally:
        world.close()
