"""Workers and their children die, freeze, stop, and are cut off."""

from __future__ import annotations

import signal
from dataclasses import replace

from chaos_faults import default_plan, fault
from chaos_plans import Plan, TaskPlan
from chaos_scene import Scene, kill, signal_group
from waiting import wait_until

#: Address space that a worker's process has enough in, in bytes, three times what it takes.
LITTLE_MEMORY = 2**30


@fault("nothing")
def nothing_happens(scene: Scene) -> None:
    """Show that the plan is what a backfill comes to that nobody disturbs."""
    scene.start_workers()
    run = scene.run()
    with scene.strike():
        pass
    scene.expect_end(run)


@fault("kill -9 of a worker's child", kills=True)
def a_child_is_killed(scene: Scene) -> None:
    scene.start_workers()
    run = scene.run()
    with scene.strike():
        kill(scene.random.choice(scene.at_work()).pid)
    scene.expect_end(run)


@fault("kill -9 of a worker", kills=True, quick=True)
def a_worker_is_killed(scene: Scene) -> None:
    workers = scene.start_workers()
    run = scene.run()
    with scene.strike():
        scene.random.choice(workers).kill_all()
    scene.expect_end(run)


@fault("kill -9 of a worker's main process", kills=True)
def a_main_process_is_killed(scene: Scene) -> None:
    """Its children find out, and stop."""
    workers = scene.start_workers()
    run = scene.run()
    with scene.strike():
        kill(scene.random.choice(workers).process.pid)
    scene.expect_end(run)


@fault("kill -9 of all workers, then one is started", kills=True)
def all_workers_are_killed(scene: Scene) -> None:
    workers = scene.start_workers()
    run = scene.run()
    with scene.strike():
        for worker in workers:
            worker.kill_all()
    scene.start_workers(1, 4)
    scene.expect_end(run)


@fault("a worker is frozen (SIGSTOP) for longer than the heartbeat timeout", kills=True)
def a_worker_is_frozen(scene: Scene) -> None:
    """Its attempts are run by others; when it wakes, they are dead."""
    workers = scene.start_workers()
    run = scene.run()
    with scene.strike():
        frozen = scene.random.choice(workers)
        signal_group(frozen, signal.SIGSTOP)
    wait_until(lambda: scene.rows.outcomes()["lost"], "its attempts are told to be lost")
    signal_group(frozen, signal.SIGCONT)
    scene.expect_end(run)


@fault("SIGTERM to a worker: it hands back")
def a_worker_is_told_to_stop(scene: Scene) -> None:
    workers = scene.start_workers()
    run = scene.run()
    with scene.strike():
        stopped = scene.random.choice(workers)
        stopped.send(signal.SIGTERM)
    assert stopped.end() == 0, stopped.told
    scene.expect_end(run)


def deadly_plan(seed: int) -> Plan:
    """Return a plan in which three tasks die in each attempt, each in its own way."""
    plan = default_plan(seed)
    deadly = [
        TaskPlan(task_id=f"dies_by_{death}", after=[plan.tasks[0].task_id], trigger_rule="all_done", death=death)
        for death in ("exit", "SIGSEGV", "SIGKILL")
    ]
    after = TaskPlan(task_id="after_deadly", after=[each.task_id for each in deadly])
    return replace(plan, days=2, tasks=[*plan.tasks, *deadly, after])


@fault("a task ends its own process each time (os._exit, SIGSEGV, SIGKILL)", kills=True, plan=deadly_plan)
def a_task_ends_its_own_process(scene: Scene) -> None:
    scene.start_workers()
    run = scene.run()
    with scene.strike():
        pass
    scene.expect_end(run)
    dead = scene.rows.ask("select * from task_instance where task_id like 'dies_by_%'")
    assert len(dead) == 6
    for row in dead:
        assert "infrastructure budget of 3 lost attempts" in row.error
    starts = scene.count("start")
    assert {starts[key] for key in starts if key.task_id.startswith("dies_by_")} == {4}


def greedy_plan(seed: int) -> Plan:
    """Return a plan in which two tasks use up all memory in each try."""
    plan = default_plan(seed)
    greedy = [
        TaskPlan(
            task_id=f"greedy_{retries}",
            after=[plan.tasks[0].task_id],
            trigger_rule="all_done",
            death="memory",
            retries=retries,
        )
        for retries in (0, 2)
    ]
    after = TaskPlan(task_id="after_greedy", after=[each.task_id for each in greedy], trigger_rule="all_done")
    return replace(plan, days=4, tasks=[*plan.tasks, *greedy, after])


@fault("tasks use up all memory that their process may have (RLIMIT_AS)", plan=greedy_plan)
def tasks_use_up_their_memory(scene: Scene) -> None:
    """They fail with that reason, on their own tries; nothing else is lost with them."""
    scene.await_workers([scene.start_worker_with_little_memory(LITTLE_MEMORY) for _ in range(2)])
    run = scene.run()
    with scene.strike():
        pass
    scene.expect_end(run)
    greedy = scene.rows.ask("select * from task_instance where task_id like 'greedy_%'")
    assert {(row.task_id, row.error, row.infrastructure_failures) for row in greedy} == {
        ("greedy_0", "MemoryError", 0),
        ("greedy_2", "MemoryError", 0),
    }


@fault("a worker's clock is an hour ahead, another's an hour behind")
def clocks_are_wrong(scene: Scene) -> None:
    wrong = [scene.start_worker_with_a_wrong_clock(seconds) for seconds in (3600, -3600)]
    scene.await_workers(wrong)
    run = scene.run()
    with scene.strike():
        times = [entry.time for entry in scene.journal()]
        assert max(times) - min(times) > 7000
    scene.expect_end(run)


@fault("a worker is cut off from PostgreSQL alone", kills=True, quick=True)
def a_worker_is_cut_off_from_the_database(scene: Scene) -> None:
    """What it was writing when it was cut off arrives when others have its work; it is refused."""
    gate = scene.gate(scene.servers.database_socket)
    scene.start_workers(1)
    scene.start_workers(1, **scene.through(database=gate))
    run = scene.run()
    with scene.strike():
        gate.fall_silent()
    wait_until(lambda: scene.rows.outcomes()["lost"], "its attempts are told to be lost")
    gate.open()
    scene.expect_end(run)


@fault("a worker is cut off from Redis alone")
def a_worker_is_cut_off_from_the_broker(scene: Scene) -> None:
    """What it runs goes on, since its heartbeats are in the database; others take what comes next."""
    gate = scene.gate(scene.servers.broker_socket)
    scene.start_workers(1)
    scene.start_workers(1, **scene.through(broker=gate))
    run = scene.run()
    with scene.strike():
        gate.fall_silent()
    scene.expect_end(run)
    gate.open()
