"""Some of the faults, on the example."""

from __future__ import annotations

from chaos_faults import PATIENT, fault
from chaos_flights import FlightsPlan
from chaos_scene import Scene

#: Departures of the first twelve days of January 2013 in the data: what the tasks add up, whatever happens to them.
TOTAL = """
select (select max(total) from running_total), (select count(*) from departure), (select sum(departures) from carrier_day)
"""


def flights(_seed: int) -> FlightsPlan:
    return FlightsPlan()


@fault("flights: kill -9 of a worker, and one is started", kills=True, plan=flights)
def a_worker_is_killed(scene: Scene) -> None:
    workers = scene.start_workers()
    run = scene.run()
    with scene.strike():
        scene.random.choice(workers).kill_all()
    scene.start_workers(1)
    scene.expect_end(run)
    _expect_right_total(scene)


@fault("flights: kill -9 of the coordinator, then resume", plan=flights)
def the_coordinator_is_killed(scene: Scene) -> None:
    scene.start_workers()
    run = scene.run()
    with scene.strike():
        run.kill_all()
    scene.expect_end(scene.resume())
    _expect_right_total(scene)


@fault("flights: kill -9 of Valkey, restarted empty", plan=flights)
def the_broker_is_killed(scene: Scene) -> None:
    scene.start_workers()
    run = scene.run(**PATIENT)
    with scene.strike():
        scene.servers.kill_broker()
        scene.servers.forget_messages()
        scene.servers.start_again()
    scene.expect_end(run)
    _expect_right_total(scene)


def _expect_right_total(scene: Scene) -> None:
    [(total, departures, by_carrier)] = scene.other_database("warehouse").ask(TOTAL)
    assert total == departures == by_carrier > 9000
