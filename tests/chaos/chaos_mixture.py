"""Faults at random times, several at once: what is disturbed, for how long, and how it is set right again."""

from __future__ import annotations

import heapq
import itertools
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from chaos_scene import Scene, kill, signal_group
from faults_of_brokers import QUEUE
from faults_of_databases import CUT_CONNECTIONS, UNLUCKY
from gates import Gate
from processes import Command
from redis import RedisError
from sqlalchemy.exc import OperationalError

#: Does something, gives the seconds for which it lasts, and undoes it.
Disturbance = Iterator[float]

#: Within which disturbances begin, in seconds from the moment at which the backfill is busy.
LATEST = 12.0
#: How many there are.
FEWEST, MOST = 4, 7


class Mixture:
    """Two workers and two coordinators, each behind gates of its own, and what befalls them."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.random = scene.random
        self.told: list[str] = []
        self._coordinators: list[Command] = []
        self._gates: dict[int, tuple[Gate, Gate]] = {}
        self._unluck = itertools.count()

    def begin(self) -> None:
        self.scene.await_workers([self._start("worker", "-c", "2") for _ in range(2)])
        self._coordinators = [self._start("coordinator") for _ in range(2)]
        self.scene.submit()
        self.scene.wait_for_work(0)

    def disturb(self) -> None:
        """Let the disturbances that the seed has chosen happen, each at its time, and undo them."""
        kinds = self.random.choices(self._kinds(), k=self.random.randint(FEWEST, MOST))
        begun = time.monotonic()
        due = [(begun + self.random.uniform(0, LATEST), number, kind()) for number, kind in enumerate(kinds)]
        heapq.heapify(due)
        while due:
            moment, number, disturbance = heapq.heappop(due)
            self.scene.pause(max(0.0, moment - time.monotonic()))
            lasts = next(disturbance, None)
            if lasts is not None:
                self.told.append(f"{moment - begun:.1f} s: {kinds[number].__name__} for {lasts:.1f} s")
                heapq.heappush(due, (time.monotonic() + lasts, number, disturbance))

    def _kinds(self) -> list[Callable[[], Disturbance]]:
        return [
            self.kill_child,
            self.kill_worker,
            self.stop_worker,
            self.freeze_worker,
            self.kill_coordinator,
            self.freeze_coordinator,
            self.empty_broker,
            self.restart_broker,
            self.restart_database,
            self.cut_connections,
            self.make_statements_fail,
            self.repeat_messages,
            self.cut_off,
            self.break_connections,
        ]

    # -- processes ------------------------------------------------------------------------------------------------------

    def kill_child(self) -> Disturbance:
        for entry in self.scene.at_work()[:1]:
            kill(entry.pid)
        yield 0.0

    def kill_worker(self) -> Disturbance:
        worker = self._any_worker()
        signal_group(worker, signal.SIGKILL)
        yield self._seconds()
        self.scene.workers.append(self._start("worker", "-c", "2"))

    def stop_worker(self) -> Disturbance:
        self._any_worker().send(signal.SIGTERM)
        yield self._seconds()
        self.scene.workers.append(self._start("worker", "-c", "2"))

    def freeze_worker(self) -> Disturbance:
        worker = self._any_worker()
        signal_group(worker, signal.SIGSTOP)
        yield self._seconds(9)
        with suppress(ProcessLookupError):
            signal_group(worker, signal.SIGCONT)

    def kill_coordinator(self) -> Disturbance:
        self._any_coordinator().kill_all()
        yield self._seconds()
        self._coordinators.append(self._start("coordinator"))

    def freeze_coordinator(self) -> Disturbance:
        coordinator = self._any_coordinator()
        coordinator.send(signal.SIGSTOP)
        yield self._seconds(8)
        coordinator.send(signal.SIGCONT)

    # -- servers --------------------------------------------------------------------------------------------------------

    def empty_broker(self) -> Disturbance:
        with suppress(RedisError), self.scene.servers.redis() as client:
            client.flushall()
        yield 0.0

    def restart_broker(self) -> Disturbance:
        self.scene.servers.kill_broker()
        if self.random.random() < 0.5:
            self.scene.servers.forget_messages()
        yield self._seconds()
        self.scene.servers.start_again()

    def restart_database(self) -> Disturbance:
        self.scene.servers.stop_database(self.random.choice([signal.SIGINT, signal.SIGQUIT, signal.SIGKILL]))
        yield self._seconds()
        self.scene.servers.start_again()

    def cut_connections(self) -> Disturbance:
        with suppress(OperationalError):
            self.scene.rows.ask(CUT_CONNECTIONS)
        yield 0.0

    def make_statements_fail(self) -> Disturbance:
        """Give each of them a trigger of its own, since several may be at it."""
        name = f"unlucky_{next(self._unluck)}"
        self._write(UNLUCKY.replace("unlucky", name))
        yield self._seconds()
        self._write(f"drop function if exists {name} cascade")

    def repeat_messages(self) -> Disturbance:
        with self.scene.servers.redis() as client, suppress(RedisError):
            messages = client.lrange(QUEUE, 0, -1)
            yield self._seconds()
            if messages:
                client.rpush(QUEUE, *messages, *messages)

    # -- the network ----------------------------------------------------------------------------------------------------

    def cut_off(self) -> Disturbance:
        """Let nothing pass between one process and one server."""
        gate = self._any_gate()
        gate.fall_silent()
        yield self._seconds(9)
        gate.open()

    def break_connections(self) -> Disturbance:
        gate = self._any_gate()
        gate.cut()
        yield self._seconds()
        gate.open()

    # -- who ------------------------------------------------------------------------------------------------------------

    def _start(self, *arguments: str) -> Command:
        database, broker = (
            self.scene.gate(socket) for socket in (self.scene.servers.database_socket, self.scene.servers.broker_socket)
        )
        command = self.scene.start(*arguments, **self.scene.through(database, broker), task__infrastructure_retries=100)
        self._gates[command.process.pid] = database, broker
        return command

    def _any_worker(self) -> Command:
        return self._any([worker for worker in self.scene.workers if worker.process.poll() is None])

    def _any_coordinator(self) -> Command:
        return self._any([each for each in self._coordinators if each.process.poll() is None])

    def _any(self, living: list[Command]) -> Command:
        return self.random.choice(living or [self._start("coordinator")])

    def _any_gate(self) -> Gate:
        return self.random.choice(self._gates[self._any([*self.scene.workers, *self._coordinators]).process.pid])

    def _seconds(self, most: float = 4) -> float:
        return self.random.uniform(0.1, most)

    def _write(self, sql: str) -> None:
        with suppress(OperationalError):
            self.scene.rows.write(sql)
