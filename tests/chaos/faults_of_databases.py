"""PostgreSQL restarts, is away, cuts connections, and refuses statements for reasons that pass."""

from __future__ import annotations

import signal
import threading

import sqlalchemy as sa
from chaos_faults import fault
from chaos_scene import Scene

#: Lets three of ten statements that change task instances fail as a deadlock, or as a serialisation error.
UNLUCKY = """
create function unlucky() returns trigger language plpgsql as $$
declare luck float := random();
begin
    if luck < 0.15 then raise exception using errcode = '40P01', message = 'deadlock detected';
    elsif luck < 0.3 then raise exception using errcode = '40001', message = 'could not serialize access';
    end if;
    return null;
end $$;
create trigger unlucky before update on task_instance for each statement execute function unlucky();
"""
CUT_CONNECTIONS = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and application_name like 'backfill%'
"""


@fault("PostgreSQL restarts, fast shutdown", quick=True)
def the_database_restarts(scene: Scene) -> None:
    _restart(scene, signal.SIGINT)


@fault("PostgreSQL restarts, immediate shutdown")
def the_database_restarts_at_once(scene: Scene) -> None:
    _restart(scene, signal.SIGQUIT)


@fault("kill -9 of PostgreSQL")
def the_database_is_killed(scene: Scene) -> None:
    _restart(scene, signal.SIGKILL)


def _restart(scene: Scene, how: signal.Signals) -> None:
    """What ends meanwhile is written later by its worker: no attempt is lost."""
    scene.start_workers()
    run = scene.run()
    with scene.strike():
        scene.servers.stop_database(how)
        scene.servers.start_again()
    scene.expect_end(run)


@fault("PostgreSQL is down for a minute", kills=True)
def the_database_is_down(scene: Scene) -> None:
    """For longer than a heartbeat may be late: what still runs then is killed by its own worker."""
    scene.start_workers()
    run = scene.run()
    with scene.strike():
        scene.servers.stop_database(signal.SIGINT)
    scene.pause(60)
    scene.servers.start_again()
    scene.expect_end(run)


@fault("all connections to PostgreSQL are cut, twenty times")
def connections_are_cut(scene: Scene) -> None:
    scene.start_workers()
    run = scene.run()
    with scene.strike():
        for _ in range(20):
            scene.rows.ask(CUT_CONNECTIONS)
            scene.pause(0.1)
    scene.expect_end(run)


@fault("deadlocks and serialisation errors in three of ten statements")
def statements_fail(scene: Scene) -> None:
    scene.start_workers()
    run = scene.run()
    with scene.strike():
        scene.rows.write(UNLUCKY)
    scene.expect_end(run)


@fault("another session locks rows in the wrong order")
def rows_are_locked(scene: Scene) -> None:
    """Real deadlocks, of which the server chooses the victim."""
    scene.start_workers()
    run = scene.run()
    ended = threading.Event()
    locker = threading.Thread(target=_lock_rows, args=(scene, ended))
    with scene.strike():
        locker.start()
    scene.expect_end(run)
    ended.set()
    locker.join()


def _lock_rows(scene: Scene, ended: threading.Event) -> None:
    in_flight = "select id from task_instance where state in ('queued', 'running') order by id desc limit 6"
    while not ended.wait(0.05):
        ids = [row.id for row in scene.rows.ask(in_flight)]
        try:
            with scene.rows.engine.begin() as tx:
                for ti_id in ids:
                    tx.execute(sa.text("select from task_instance where id = :id for update"), {"id": ti_id})
                    ended.wait(0.03)
        except sa.exc.OperationalError:
            continue  # it was the victim


@fault("connections to PostgreSQL are broken by the network, twenty times", kills=True)
def the_network_breaks(scene: Scene) -> None:
    """The answer to a commit may be lost on its way: an attempt that was claimed so is run by nobody, and found lost."""
    gate = scene.gate(scene.servers.database_socket)
    scene.start_workers(2, **scene.through(database=gate))
    run = scene.run(**scene.through(database=gate))
    with scene.strike():
        for _ in range(20):
            gate.cut()
            gate.open()
            scene.pause(0.15)
    scene.expect_end(run)
