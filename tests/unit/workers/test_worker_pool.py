"""Which pipes the main process looks at when messages wait for children; Celery's loop and pool are real, the children are pipes."""

import os
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from celery.concurrency import asynpool, get_implementation
from kombu.asynchronous import Hub

from workers.app import app
from workers.pool import Pool

CHILDREN = 8


class Bench(Pool):
    """The part of a pool that hands messages over, to pipes."""

    def __init__(self, hub: Any, pipes: list[tuple[int, int]], strategy: int = asynpool.SCHED_STRATEGY_FAIR) -> None:
        self._oldest = None
        self._all_inqueues = {end for _, end in pipes}
        self._active_writes: set[int] = set()
        self._active_writers: set[Any] = set()
        self._busy_workers: set[int] = set()
        self._fileno_to_inq: dict[int, Any] = {}
        self._fileno_to_synq: dict[int, Any] = {}
        self._cache: dict[int, Any] = {}
        self.outbound_buffer: deque[object] = deque()
        self.write_stats: dict[int, int] = {}
        self.sched_strategy = strategy
        self._create_write_handlers(hub)


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    made = [os.pipe() for _ in range(CHILDREN)]
    yield made
    for end in (end for pair in made for end in pair):
        os.close(end)


@pytest.fixture
def hub() -> Iterator[Any]:
    made = Hub()
    yield made
    made.close()


@pytest.fixture
def bench(hub: Any, pipes: list[tuple[int, int]]) -> Bench:
    return Bench(hub, pipes)


def looked_at(hub: Any) -> set[int]:
    return set(hub.writers)


def test_as_many_idle_children_are_looked_for_as_messages_wait(bench: Bench, hub: Any) -> None:
    bench.on_poll_start()
    assert not looked_at(hub)
    bench.outbound_buffer.extend([object(), object()])
    bench.on_poll_start()
    assert len(looked_at(hub)) == 2
    assert hub.consolidate == looked_at(hub)


def test_a_busy_child_is_not_looked_for(bench: Bench, hub: Any) -> None:
    idle = max(bench._all_inqueues)
    bench._busy_workers |= bench._all_inqueues - {idle}
    bench.outbound_buffer.append(object())
    bench.on_poll_start()
    assert looked_at(hub) == {idle}


def test_all_idle_children_are_looked_for_when_those_chosen_did_not_take_the_message(bench: Bench, hub: Any) -> None:
    bench.outbound_buffer.append(object())
    bench.on_poll_start()
    bench.on_poll_start()
    assert looked_at(hub) == bench._all_inqueues


def test_the_next_message_is_for_one_child_again(bench: Bench, hub: Any) -> None:
    bench.outbound_buffer.append(object())
    bench.on_poll_start()
    bench.outbound_buffer.clear()
    bench.on_poll_start()
    assert not looked_at(hub)
    bench.outbound_buffer.append(object())
    bench.on_poll_start()
    assert len(looked_at(hub)) == 1


def test_nothing_is_looked_for_when_nothing_waits_or_nobody_is_idle(bench: Bench, hub: Any) -> None:
    bench.outbound_buffer.append(object())
    bench.on_poll_start()
    bench._busy_workers |= bench._all_inqueues
    bench.on_poll_start()
    assert not looked_at(hub)


def test_a_pipe_that_is_written_to_stays_with_its_writer(bench: Bench, hub: Any) -> None:
    [child, *_] = bench._all_inqueues
    bench.outbound_buffer.append(object())
    bench.on_poll_start()
    bench._active_writes.add(child)
    hub.add_writer(child, print)
    bench.outbound_buffer.clear()
    bench.on_poll_start()
    assert looked_at(hub) == {child}


def test_a_strategy_that_gives_messages_to_busy_children_keeps_celerys_own_way(
    hub: Any, pipes: list[tuple[int, int]]
) -> None:
    bench = Bench(hub, pipes, strategy=asynpool.SCHED_STRATEGY_FCFS)
    bench._busy_workers |= bench._all_inqueues
    bench.outbound_buffer.append(object())
    bench.on_poll_start()
    assert looked_at(hub) == bench._all_inqueues


def test_the_worker_has_these_processes() -> None:
    assert get_implementation(app.conf.worker_pool).Pool is Pool
