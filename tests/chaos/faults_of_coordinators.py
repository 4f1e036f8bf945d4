"""Coordinators die, freeze, are told to stop, and are cut off."""

from __future__ import annotations

import re
import signal

from chaos_faults import fault
from chaos_scene import Scene
from processes import Command
from waiting import wait_until

#: The settings that users have if they set none.
UNHURRIED = {"coordinator__heartbeat_interval": 5, "task__heartbeat_timeout": 60, "task__heartbeat_interval": 5}


@fault("kill -9 of the coordinator, then resume", quick=True)
def the_coordinator_is_killed(scene: Scene) -> None:
    """What it had dispatched goes on meanwhile."""
    scene.start_workers()
    run = scene.run()
    with scene.strike():
        run.kill_all()
    scene.expect_end(scene.resume())


@fault("kill -9 of the coordinator, and of each that resumes it, three times")
def the_coordinator_is_killed_again_and_again(scene: Scene) -> None:
    scene.start_workers()
    driving = scene.run()
    with scene.strike():
        driving.kill_all()
    for part in (0.5, 0.65):
        driving = scene.resume()
        scene.wait_for_work(part)
        driving.kill_all()
    scene.expect_end(scene.resume())


@fault("SIGINT to the coordinator, then resume")
def the_coordinator_is_interrupted(scene: Scene) -> None:
    _interrupt(scene, [signal.SIGINT])


@fault("SIGTERM to the coordinator, then resume")
def the_coordinator_is_terminated(scene: Scene) -> None:
    _interrupt(scene, [signal.SIGTERM])


@fault("SIGINT to the coordinator twice, then resume")
def the_coordinator_is_interrupted_twice(scene: Scene) -> None:
    _interrupt(scene, [signal.SIGINT, signal.SIGINT])


def _interrupt(scene: Scene, signals: list[signal.Signals]) -> None:
    """Remote tasks run on, and the command says how to go on (S11.4)."""
    scene.start_workers()
    run = scene.run()
    with scene.strike():
        for number in signals:
            run.send(number)
    assert run.end() == 130, run.told
    assert run.told.splitlines()[-1] == f"Job {scene.rows.job.id} can be resumed: backfill resume {scene.rows.job.id}"
    if len(signals) == 1:
        assert scene.job_state() == "paused"
    scene.expect_end(scene.resume())


@fault("of two coordinators the driving one is killed")
def the_driving_coordinator_is_killed(scene: Scene) -> None:
    driving, other = _submit_to_two(scene)
    with scene.strike():
        driving.kill_all()
    _expect_takeover(scene, other)


@fault("of two coordinators the driving one is frozen (SIGSTOP) until the other drives")
def the_driving_coordinator_is_frozen(scene: Scene) -> None:
    driving, other = _submit_to_two(scene)
    with scene.strike():
        driving.send(signal.SIGSTOP)
    _await_takeover(scene)
    driving.send(signal.SIGCONT)
    _expect_takeover(scene, other)
    _expect_that_it_knows(driving)


@fault("of two coordinators the driving one is frozen for 60 s, with the intervals that are the default")
def the_driving_coordinator_is_frozen_for_a_minute(scene: Scene) -> None:
    driving, other = _submit_to_two(scene, **UNHURRIED)
    with scene.strike():
        driving.send(signal.SIGSTOP)
    scene.pause(60)
    driving.send(signal.SIGCONT)
    _expect_takeover(scene, other)
    _expect_that_it_knows(driving)


@fault("of two coordinators the driving one is cut off from PostgreSQL")
def the_driving_coordinator_is_cut_off(scene: Scene) -> None:
    """What it was writing when it was cut off arrives when the other drives; it is refused."""
    scene.start_workers()
    gates = [scene.gate(scene.servers.database_socket) for _ in range(2)]
    coordinators = [scene.start("coordinator", **scene.through(database=gate)) for gate in gates]
    scene.submit()
    with scene.strike():
        driving = _driving(scene, coordinators)
        gates[coordinators.index(driving)].fall_silent()
    _await_takeover(scene)
    gates[coordinators.index(driving)].open()
    _expect_takeover(scene, coordinators[1 - coordinators.index(driving)])
    _expect_that_it_knows(driving)


def _submit_to_two(scene: Scene, **settings: object) -> tuple[Command, Command]:
    """Return two coordinators that run, the one that drives the job first."""
    scene.start_workers(**settings)
    coordinators = [scene.start("coordinator", **settings) for _ in range(2)]
    scene.submit()
    scene.wait_for_work(0)
    driving = _driving(scene, coordinators)
    return driving, coordinators[1 - coordinators.index(driving)]


def _driving(scene: Scene, coordinators: list[Command]) -> Command:
    holder = scene.rows.job.lease_holder.split(":")[1]
    return next(each for each in coordinators if str(each.process.pid) == holder)


def _await_takeover(scene: Scene) -> None:
    wait_until(lambda: scene.rows.job.lease_epoch == 2, "the other coordinator drives the job")


def _expect_takeover(scene: Scene, other: Command) -> None:
    """The other one drives the job to its end."""
    scene.expect_end_of_job()
    assert scene.rows.job.lease_epoch == 2
    other.send(signal.SIGTERM)
    assert other.end() == 0, other.told


def _expect_that_it_knows(driving: Command) -> None:
    """The one that lost the job says so, and is at the service of other jobs."""
    known = re.compile(r"Job \d+ is not driven any more: Another coordinator took")
    wait_until(lambda: known.search(driving.told), "it knows that it lost the job")
    driving.send(signal.SIGTERM)
    assert driving.end() == 0, driving.told
