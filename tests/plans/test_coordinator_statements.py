"""Every statement of the coordinator's loop finds what it wants by index, and reads little more than that.

The plans are those of statements that are carried out, with what they read counted, in a database in which all but a window of
runs have finished. What the loop sends is recorded from jobs that it drives, so that no statement is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import servers
from sqlalchemy import Connection, Engine, event, text

from backfill import DAG
from backfill.config import Settings
from backfill.exceptions import LeaseLost
from backfill.executors import QueuedAttempt, Unsent
from backfill.jobs.request import BackfillRequest
from backfill.keys import TaskInstanceKey
from backfill.messages import Attempt, ExecutorEvent
from backfill.operators import BranchPythonOperator, EmptyOperator, PythonOperator
from backfill.states import DagRunState, TaskInstanceState
from backfill.store import (
    alignment,
    clearing,
    dates,
    leases,
    mapping,
    previous,
    recovery,
    report,
    runs,
    task_instances,
)
from backfill.store.alignment import TaskTemplate
from backfill.store.claims import claim_if_queued
from backfill.store.database import create_engine
from backfill.store.task_instances import QueueRequest
from backfill.telemetry import Telemetry
from backfill.testing.script import Script, ScriptedExecutor
from backfill.testing.stage import Stage

TASKS = 10
WINDOW = 64
#: Finished runs of the job that is under way, and dates that it has yet to admit.
FINISHED, PENDING = 4000, 936
#: Rows of growing tables that one statement may read, whatever is in the tables: those of the window a few times over.
MOST_READ = 5 * WINDOW * TASKS
GROWING = {"task_instance", "task_attempt", "xcom", "dag_run", "job_run_date"}
TIMES_BEFORE_A_PLAN_IS_KEPT = 2
JOB, DAG_ID, SECOND = 2, "sales", timedelta(seconds=1)

ROWS = (
    """insert into job (job_type, dag_id, state, lease_holder, lease_epoch, latest_heartbeat, start_date)
       values ('BackfillJob', 'sales', 'success', null, 1, now(), now()),
              ('BackfillJob', 'sales', 'running', 'me', 1, now(), now())""",
    "insert into dag (dag_id) values ('sales')",
    "update slot_pool set slots = -1",
    """insert into dag_run (dag_id, run_id, logical_date, data_interval_start, data_interval_end, run_type, state, start_date,
                            end_date, job_id, creating_job_id)
       select 'sales', 'run ' || n, date, date, date, 'backfill', case when lives then 'running' else 'success' end, now(),
              case when not lives then now() end, case when lives then 2 end, case when n > :runs - 4064 then 2 else 1 end
       from generate_series(1, :runs) n,
            lateral (select timestamptz '1900-01-01' + n * interval '1 hour' as date, n > :runs - 64 as lives) run""",
    """insert into job_run_date (job_id, dag_id, ordinal, logical_date, data_interval_start, data_interval_end, action,
                                 dag_run_id, progress, active)
       select coalesce(creating_job_id, 1), dag_id, case creating_job_id when 2 then id - :runs + 4064 else id end, logical_date,
              logical_date, logical_date, 'create', id, case state when 'running' then 'admitted' else 'finished' end,
              creating_job_id = 2
       from dag_run""",
    """insert into job_run_date (job_id, dag_id, ordinal, logical_date, data_interval_start, data_interval_end, action)
       select 2, 'sales', 4064 + n, date, date, date, 'create'
       from generate_series(1, 936) n, lateral (select timestamptz '1900-01-01' + (:runs + n) * interval '1 hour' as date) d""",
    """insert into task_instance (dag_run_id, dag_id, task_id, run_id, state, try_number, external_executor_id, queued_by_job_id,
                                  queued_at, start_date, heartbeat_at, pool, queue)
       select r.id, r.dag_id, 't' || n, r.run_id,
              case when r.state = 'running' then (array['success', 'success', 'success', 'queued', 'running', 'queued', 'running',
                                                        'scheduled', 'none', 'none'])[n] else 'success' end,
              1, gen_random_uuid(), r.creating_job_id, now(), now(), now(), 'default_pool', 'backfill'
       from dag_run r, generate_series(1, 10) n order by r.id, n""",
    """insert into task_attempt (attempt_id, task_instance_id, try_number, start_date)
       select external_executor_id, id, 1, now() from task_instance where task_id in ('t5', 't6')""",
    "insert into xcom (task_instance_id, key, value) select id, 'return_value', '[1]' from task_instance where task_id = 't1'",
)


@dataclass(frozen=True)
class Large:
    """A database with so many runs, `TASKS` task instances each."""

    url: str
    #: Has one connection, which keeps plans.
    engine: Engine
    #: For what is asked besides.
    aside: Engine
    runs: int

    @property
    def window(self) -> list[int]:
        """The runs that are under way."""
        return list(range(self.runs - WINDOW + 1, self.runs + 1))

    def tis(self, *tasks: int) -> list[int]:
        """The task instances of these tasks in the window, by id."""
        return [(run - 1) * TASKS + task for run in self.window for task in tasks]

    def attempts(self, *tasks: int) -> list[tuple[int, str]]:
        """The same with their attempt ids."""
        with self.aside.connect() as tx:
            asked = "select id, external_executor_id::text from task_instance where id = any(:ids) order by id"
            return [tuple(row) for row in tx.execute(text(asked), {"ids": self.tis(*tasks)})]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((10_000, "analysed"), id="1e5 rows, analysed"),
        pytest.param((10_000, "never analysed"), id="1e5 rows, never analysed"),
        pytest.param((10_000, "planned before"), id="1e5 rows, by plans that were made when there were none"),
        pytest.param((100_000, "analysed"), id="1e6 rows, analysed", marks=pytest.mark.slow),
    ],
)
def large(databases: servers.Databases, request: pytest.FixtureRequest) -> Iterator[Large]:
    size, how = request.param
    name = databases.clone()
    url = databases.url(name)
    engine, aside = (
        create_engine(url, application_name="tests", pool_size=1),
        create_engine(url, application_name="rows"),
    )
    database = Large(url, engine, aside, size)
    with aside.begin() as tx:
        for table in GROWING:  # the server's own analysis would come at any time
            tx.execute(text(f"alter table {table} set (autovacuum_enabled = off)"))
    if how == "planned before":
        for call in STATEMENTS.values():
            plan_for_good(database, call)
    with aside.begin() as tx:
        for statement in ROWS:
            tx.execute(text(statement), {"runs": size} if ":runs" in statement else {})
        if how == "analysed":
            tx.execute(text("analyze"))
    yield database
    engine.dispose()
    aside.dispose()
    databases.drop(name)


def plan_for_good(db: Large, call: Callable[[Connection, Large], Any]) -> None:
    """Have the one connection of `db` send what `call` sends until its plans are kept, and change nothing."""
    with db.engine.connect() as tx:
        for _ in range(TIMES_BEFORE_A_PLAN_IS_KEPT):
            with tx.begin_nested() as undone, suppress(LeaseLost):
                call(tx, db)
                undone.rollback()
        tx.rollback()


TEMPLATES = [TaskTemplate(f"t{n}", -1, 0, "default_pool", 1, "backfill", "", "", 1) for n in range(1, TASKS + 1)]
OTHER_POOL = [template._replace(pool="other") for template in TEMPLATES]
ALL = range(1, TASKS + 1)

#: Each function of the store that the loop calls, as it calls it.
STATEMENTS: dict[str, Callable[[Connection, Large], Any]] = {
    # at the beginning of each transaction, and with each heartbeat
    "fence": lambda tx, _: leases.fence(tx, JOB, 1),
    "renew lease": lambda tx, _: leases.renew_lease_if_held(tx, JOB, 1),
    # admission
    "fence and lock the DAG": lambda tx, _: leases.fence_and_lock_limits(tx, JOB, 1, [DAG_ID], []),
    "count running runs": lambda tx, _: runs.count_running_runs(tx, DAG_ID, JOB),
    "pending dates": lambda tx, _: dates.pending_dates(tx, JOB, 564),
    "admit": lambda tx, _: runs.admit_dates(
        tx, JOB, DAG_ID, range(FINISHED + WINDOW + 1, FINISHED + WINDOW + 51), conf=None
    ),
    "admit runs that are there": lambda tx, _: runs.admit_dates(tx, JOB, DAG_ID, range(1, 51), conf={}),
    "align": lambda tx, db: alignment.align_task_instances(tx, db.window, OTHER_POOL),
    "rows of runs": lambda tx, db: task_instances.select_facts_of_runs(tx, db.window),
    "previous runs": lambda tx, db: previous.select_previous_runs(tx, DAG_ID, db.window, ["t1", "t9"]),
    "clear": lambda tx, db: clearing.clear_task_instances(tx, db.window, {"t1": 2}),
    "dates that count as done": lambda tx, _: dates.mark_dates(tx, JOB, range(FINISHED, FINISHED + 50), "finished"),
    "runs that count as done": lambda tx, db: runs.select_runs(tx, db.window),
    # dispatch
    "fence and lock all limits": lambda tx, _: leases.fence_and_lock_limits(tx, JOB, 1, [DAG_ID], ["default_pool"]),
    "occupancy": lambda tx, _: task_instances.select_occupancy(tx, [DAG_ID], ["default_pool"], apart=["t4"]),
    "queue": lambda tx, db: task_instances.queue_if_idle(
        tx,
        JOB,
        [QueueRequest(ti, str(UUID(int=ti)), "default_pool", "celery") for ti in db.tis(8, 9)],
        waiting=db.tis(10),
    ),
    "schedule": lambda tx, db: task_instances.schedule_if_idle(tx, db.tis(9, 10)),
    "take back": lambda tx, db: task_instances.take_back_if_queued(tx, db.attempts(4)),
    # what dependencies decide
    "settle": lambda tx, db: task_instances.settle_if_idle(tx, [(ti, TaskInstanceState.SKIPPED) for ti in db.tis(9)]),
    "unschedule": lambda tx, db: task_instances.unschedule_if_scheduled(tx, db.tis(8)),
    "lengths of mappings": lambda tx, db: mapping.return_values_lengths(tx, db.window[0], ["t1", "t2"]),
    "expand": lambda tx, db: mapping.expand_mapping(tx, db.window[0], TEMPLATES[9], 20, at_once=20),
    "expand a portion": lambda tx, db: mapping.expand_mapping(tx, db.window[0], TEMPLATES[9], 20, at_once=5),
    # what was reported
    "reported": lambda tx, db: task_instances.select_reported(tx, db.tis(*ALL)),
    "rows": lambda tx, db: task_instances.select_facts(tx, db.tis(*ALL)),
    "hosts": lambda tx, db: recovery.select_hosts(tx, db.tis(5)),
    "fail": lambda tx, db: recovery.fail_if_current(
        tx, [recovery.Failure(ti, attempt, "e", SECOND) for ti, attempt in db.attempts(5)]
    ),
    "lose": lambda tx, db: recovery.lose_if_current(
        tx, [recovery.Loss(ti, attempt, "e") for ti, attempt in db.attempts(5)]
    ),
    "texts of errors": lambda tx, db: report.select_error_texts(tx, db.tis(1)),
    # what nobody reported
    "sweep": lambda tx, db: recovery.sweep_runs(tx, JOB, db.window, heartbeat_timeout=SECOND, queued_timeout=SECOND),
    "in flight": lambda tx, _: recovery.select_in_flight(tx, JOB),
    "zombies": lambda tx, _: recovery.select_zombies(tx, JOB, SECOND),
    "orphans of a run": lambda tx, db: recovery.reset_orphans(tx, JOB, SECOND, held=[], dag_run_id=db.window[0]),
    "orphans": lambda tx, _: recovery.reset_orphans(tx, JOB, SECOND, held=[]),
    # runs end
    "lock runs": lambda tx, db: runs.lock_runs(tx, db.window),
    "finish runs": lambda tx, db: runs.finish_runs_if_running(
        tx, [(run, DagRunState.FAILED) for run in db.window], seen=[(ti, "success") for ti in db.tis(1, 2, 3)]
    ),
    "unschedule what was closed": lambda tx, db: clearing.unschedule_if_run_closed(tx, db.window),
    "runs that take too long": lambda tx, db: runs.lock_timed_out_runs(tx, db.window, timedelta()),
    "skip what takes too long": lambda tx, db: clearing.skip_if_unfinished(tx, db.window, "e"),
    # for display
    "running now": lambda tx, _: report.select_running(tx, JOB, limit=8),
    # a new holder, and a cancel
    "runs of the window": lambda tx, _: runs.select_window_runs(tx, JOB),
    "cut short": lambda tx, _: runs.select_cut_short(tx, JOB),
    "to cancel": lambda tx, _: clearing.select_to_cancel(tx, JOB),
    "cancel": lambda tx, db: clearing.cancel_if_current(tx, db.attempts(5), "e"),
}

#: Their plans would not be right for ever if they were made when the tables were empty.
PLANNED_EACH_TIME = {"align", "previous runs", "dates that count as done"}

#: Sent once in a job, before its first round or after its last, about all of its dates: how they begin, without blanks.
ONCE_IN_A_JOB = (
    "select clock_timestamp()",
    "select 'run', r.state as word",  # what earlier holders saw finish
    "select 'run', case when r.state is null",  # the report
    "with span as (",
    "with date as materialized ( select * from job_run_date",  # with no limit; with one it is in STATEMENTS
    "select t.id, t.dag_id, t.task_id, t.run_id, t.map_index, r.logical_date, t.try_number, t.state, t.error",
    "select r.dag_id, r.run_id, r.logical_date, min(t.error)",
    "select coalesce(bool_or(d.action = 'done'), false) as before",
    "select id, job_type, dag_id, state, params",
    "with moved as ( update job set state",
    "update job set lease_holder = null",
)


@contextmanager
def sent(engine: Engine, *, in_full: bool = False) -> Iterator[list[tuple[str, Any]]]:
    """Yield what `engine` sends within the block: statements and parameters. `in_full`: not by the names of what is prepared."""
    executed: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, context: Any, *___: Any) -> None:
        if not in_full:
            executed.append((statement, parameters))
        elif not statement.startswith("prepare backfill_"):
            executed.append((statement if context.compiled is None else str(context.compiled), parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield executed
    finally:
        event.remove(engine, "before_cursor_execute", note)


def statements_of(db: Large, name: str, *, in_full: bool = False) -> list[tuple[str, Any]]:
    """Return what a function of the store sends."""
    with db.engine.connect() as tx, sent(db.engine, in_full=in_full) as executed:
        STATEMENTS[name](tx, db)
        tx.rollback()
    return executed


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes_of(child)


def looks(nodes: Sequence[dict[str, Any]]) -> list[tuple[str, str, float]]:
    """Return how each growing table was read: table, kind of scan, rows that were looked at."""
    return [
        (
            node["Relation Name"],
            node["Node Type"],
            node["Actual Loops"]
            * sum(
                node.get(rows, 0) for rows in ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
            ),
        )
        for node in nodes
        if node.get("Relation Name") in GROWING and "Scan" in node["Node Type"] and node["Actual Loops"]
    ]


@pytest.mark.parametrize("name", STATEMENTS)
def test_it_reads_what_it_returns_and_no_growing_table_from_end_to_end(large: Large, name: str) -> None:
    plan_for_good(large, STATEMENTS[name])
    executed = statements_of(large, name)
    with large.engine.connect() as tx:
        for statement, parameters in executed:
            assert statement.startswith("execute backfill_") or name in PLANNED_EACH_TIME, statement
            explained = f"explain (analyze, timing off, format json) {statement}"
            (found,) = tx.exec_driver_sql(explained, parameters).scalar_one()
            nodes = list(nodes_of(found["Plan"]))
            how = looks(nodes)
            assert not [look for look in how if look[1] == "Seq Scan"], (statement, how)
            assert sum(rows for _, _, rows in how) <= MOST_READ, (statement, how)
        tx.rollback()


def test_what_is_queued_is_not_looked_for_among_thousands_of_the_same_run(large: Large) -> None:
    of_one_task = (
        "insert into task_instance (dag_run_id, dag_id, task_id, run_id, map_index, pool, queue)"
        " select id, dag_id, 'mapped', run_id, n, 'default_pool', 'backfill' from dag_run, generate_series(1, 5000) n"
        " where id = :run returning id"
    )
    with large.engine.connect() as tx:
        ids = tx.execute(text(of_one_task), {"run": large.window[0]}).scalars().all()[:20]
        requests = [QueueRequest(ti_id, str(UUID(int=ti_id)), "default_pool", "celery") for ti_id in ids]
        with sent(large.engine, in_full=True) as executed:
            assert len(task_instances.queue_if_idle(tx, JOB, requests)) == len(ids)
        tx.execute(text("update task_instance set state = 'none' where id = any(:ids)"), {"ids": ids})
        [(statement, parameters)] = executed
        (found,) = tx.exec_driver_sql(f"explain (analyze, format json) {statement}", parameters).scalar_one()
        assert sum(rows for _, _, rows in looks(list(nodes_of(found["Plan"])))) < 2000
        tx.rollback()


def test_a_claim_touches_no_index(large: Large) -> None:
    counted = "select n_tup_upd, n_tup_hot_upd from pg_stat_xact_user_tables where relname = 'task_instance'"
    with large.engine.connect() as tx:
        ti_id = large.tis(8)[0]
        (queued,) = task_instances.queue_if_idle(
            tx, JOB, [QueueRequest(ti_id, str(UUID(int=1)), "default_pool", "celery")]
        )
        before = tx.execute(text(counted)).one()
        key = TaskInstanceKey("d", queued.task_id, "r", queued.map_index)
        attempt = Attempt(ti_id, key, str(UUID(int=1)), queued.try_number)
        assert len(claim_if_queued(tx, [attempt], hostname="h", pid=1)) == 1
        assert tx.execute(text(counted)).one() == (before.n_tup_upd + 1, before.n_tup_hot_upd + 1)
        tx.rollback()


# -- nothing is left out ------------------------------------------------------------------------------------------------


class Unreliable(ScriptedExecutor):
    """Cannot send its first attempts, and reports others as lost or failed that nobody has claimed."""

    name = "unreliable"

    def __init__(self, engine: Engine, script: Script) -> None:
        super().__init__(engine, script)
        self._ends = [self._unsent, self._lost, self._failed]

    def queue_task_instances(self, attempts: Sequence[QueuedAttempt]) -> list[Unsent]:
        if self._ends:
            return self._ends.pop()(attempts[0]) + super().queue_task_instances(attempts[1:])
        return super().queue_task_instances(attempts)

    def _unsent(self, queued: QueuedAttempt) -> list[Unsent]:
        return [Unsent(queued.attempt.attempt_id, "rejected", broker_away=False)]

    def _lost(self, queued: QueuedAttempt) -> list[Unsent]:
        return self._report(queued, infrastructure=True)

    def _failed(self, queued: QueuedAttempt) -> list[Unsent]:
        return self._report(queued, infrastructure=False)

    def _report(self, queued: QueuedAttempt, *, infrastructure: bool) -> list[Unsent]:
        attempt = queued.attempt
        self.context.mailbox.put(
            ExecutorEvent(
                attempt.task_instance_id, attempt.attempt_id, TaskInstanceState.FAILED, infrastructure=infrastructure
            )
        )
        return []


def nothing() -> None:
    """The body of tasks that only a script plays."""


def varied_dag() -> DAG:
    """Everything that makes the loop send statements of its own."""
    given = {"schedule": "@daily", "start_date": datetime(2024, 1, 1, tzinfo=UTC), "dagrun_timeout": timedelta(hours=1)}
    with DAG("varied", max_active_tasks=3, max_active_runs=2, **given) as dag:
        first = EmptyOperator(task_id="first")
        past = PythonOperator(task_id="past", python_callable=nothing, depends_on_past=True)
        flaky = PythonOperator(task_id="flaky", python_callable=nothing, retries=1, retry_delay=timedelta())
        branch = BranchPythonOperator(task_id="branch", python_callable=nothing)
        values = PythonOperator(task_id="values", python_callable=nothing)
        mapped = PythonOperator.partial(task_id="mapped", python_callable=nothing).expand(op_args=values.output)
        first >> [past, flaky, branch]
        branch >> [EmptyOperator(task_id="taken"), EmptyOperator(task_id="not_taken")]
        values >> mapped
    return dag


def plain(statement: str) -> str:
    return " ".join(statement.split())


def test_every_statement_that_a_job_sends_is_among_them(large: Large) -> None:
    engine, workers = (create_engine(large.url, application_name=who) for who in ("loop", "workers"))
    script = Script(
        dag := varied_dag(),
        {
            "flaky": {"*": ["failed", "failed"]},
            "branch": {"*": {"follow": ["taken"]}},
            "values": {"*": {"return": [[1], [2], [3]]}},
        },
    )
    telemetry = Telemetry()
    telemetry.subscribe(lambda _: None)
    settings = Settings().override("the test", {"coordinator.heartbeat_interval": 0.01})
    stage = Stage(engine=engine, settings=settings, telemetry=telemetry)
    request = BackfillRequest(
        start_date=datetime(2024, 1, 1, tzinfo=UTC),
        end_date=datetime(2024, 1, 9, tzinfo=UTC),
        executor=Unreliable.name,
        continue_on_failures=True,
        delay_on_limit_secs=0.01,
    )
    cast = stage.put_on(dag, request, Unreliable(workers, script))
    with sent(engine, in_full=True) as executed:
        report = cast.drive()
    seen = {plain(statement) for statement, _ in executed}
    covered = {plain(statement) for each in STATEMENTS for statement, _ in statements_of(large, each, in_full=True)}
    left_out = [each for each in seen - covered if not each.startswith(ONCE_IN_A_JOB)]
    engine.dispose()
    workers.dispose()
    assert report.tasks["failed"] >= 9
    assert report.tasks["running"] == report.tasks["waiting"] == 0
    assert not left_out
