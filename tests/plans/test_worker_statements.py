"""What every task instance passes, and what is watched while a job runs, finds its rows by index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import servers
from sqlalchemy import Connection, Engine, event, text

from backfill.keys import TaskInstanceKey
from backfill.messages import Attempt
from backfill.states import TaskInstanceState
from backfill.store import attempts, claims, context, report, xcoms
from backfill.store.attempts import Finish
from backfill.store.database import create_engine

#: Runs, and ten task instances of each; all but the last twenty runs have finished.
RUNS = 3000
GROWING = ("dag_run", "job_run_date", "task_instance", "task_attempt", "xcom")
#: Rows of these that one statement may read: those of fifty attempts a few times over.
MOST_READ = 500
#: Of a table that nobody has analysed yet it reads the earlier runs of the DAG.
MORE_READ = {"previous success": RUNS}

ROWS = (
    "insert into job (job_type, dag_id, state, start_date) values ('BackfillJob', 'sales', 'running', now())",
    """insert into dag_run
         (dag_id, run_id, logical_date, data_interval_start, data_interval_end, run_type, state, start_date, end_date)
       select 'sales', 'run ' || n, date, date, date, 'backfill', case when n <= :done then 'success' else 'running' end,
              now(), case when n <= :done then now() - interval '1 hour' end
       from generate_series(1, :runs) n, lateral (select timestamptz '2000-01-01' + n * interval '1 hour' as date) d""",
    """insert into job_run_date (job_id, dag_id, ordinal, logical_date, data_interval_start, data_interval_end, action,
                                 dag_run_id, progress)
       select 1, dag_id, id, logical_date, logical_date, logical_date, 'create', id,
              case when state = 'success' then 'finished' else 'admitted' end
       from dag_run""",
    """insert into task_instance (dag_run_id, dag_id, task_id, run_id, state, try_number, external_executor_id, queued_by_job_id,
                                  start_date, pool, queue)
       select r.id, r.dag_id, 't' || n, r.run_id, r.state, 1, gen_random_uuid(), 1, now(), 'default_pool', 'backfill'
       from dag_run r, generate_series(1, 10) n""",
    """insert into task_attempt (attempt_id, task_instance_id, try_number, start_date)
       select external_executor_id, id, 1, now() from task_instance""",
    "insert into xcom (task_instance_id, key, value) select id, 'return_value', '1' from task_instance",
)


@pytest.fixture(scope="module", params=["analysed", "never analysed", "planned when there were no rows"])
def large(databases: servers.Databases, request: pytest.FixtureRequest) -> Iterator[Engine]:
    name = databases.clone()
    engine, loader = (create_engine(databases.url(name), application_name="tests", pool_size=1) for _ in range(2))
    with loader.begin() as tx:
        for table in GROWING:
            tx.execute(text(f"alter table {table} set (autovacuum_enabled = off)"))
    if request.param.startswith("planned"):
        for call in (STATEMENTS | WATCHED).values():
            plan(engine, call)
    with loader.begin() as tx:
        for statement in ROWS:
            tx.execute(text(statement), {"runs": RUNS, "done": RUNS - 20} if ":runs" in statement else {})
        if request.param == "analysed":
            tx.execute(text("analyze"))
    loader.dispose()
    yield engine
    engine.dispose()
    databases.drop(name)


def plan(engine: Engine, call: Callable[[Connection], Any]) -> dict[str, Any]:
    """The plan of the one statement that `call` executes, as it is kept when it is sent again and again, with what it read."""
    executed: list[tuple[str, Any]] = []

    def note(*args: Any) -> None:
        executed.append((args[2], args[3]))

    with engine.connect() as tx:
        for _ in range(2):
            call(tx)
        event.listen(engine, "before_cursor_execute", note)
        call(tx)
        event.remove(engine, "before_cursor_execute", note)
        tx.rollback()
        ((statement, parameters),) = executed
        (found,) = tx.exec_driver_sql(
            f"explain (analyze, timing off, format json) {statement}", parameters
        ).scalar_one()
        tx.rollback()
        return found["Plan"]


def reads(node: dict[str, Any]) -> Iterator[tuple[str, str, float]]:
    """How each growing table was read: table, kind of scan, rows that were looked at."""
    if node.get("Relation Name") in GROWING and "Scan" in node["Node Type"]:
        looked_at = sum(
            node.get(rows, 0) for rows in ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
        )
        yield node["Relation Name"], node["Node Type"], looked_at * node["Actual Loops"]
    for child in node.get("Plans", ()):
        yield from reads(child)


ATTEMPTS = [str(UUID(int=n)) for n in range(50)]


def attempt(number: int, attempt_id: str) -> Attempt:
    return Attempt(number, TaskInstanceKey("sales", "t1", "run 1"), attempt_id, 1)


def claim(number: int, attempt_id: str) -> claims.Claim:
    told = dict.fromkeys(claims.Claim._fields) | {"task_instance_id": number, "attempt_id": attempt_id}
    return claims.Claim(**told | {"start_date": datetime(2024, 1, 1, tzinfo=UTC)})


STATEMENTS: dict[str, Callable[[Connection], Any]] = {
    "claim one": lambda tx: claims.claim_if_queued(tx, [attempt(5, ATTEMPTS[0])], hostname="h", pid=1),
    "claim fifty": lambda tx: claims.claim_if_queued(
        tx, [attempt(n, a) for n, a in enumerate(ATTEMPTS)], hostname="h", pid=1
    ),
    "claims known again": lambda tx: claims.renew_if_claimed(
        tx, [claim(n, a) for n, a in enumerate(ATTEMPTS)], hostname="h", pid=1
    ),
    "unclaim": lambda tx: claims.unclaim_if_running(tx, ATTEMPTS),
    "finish one": lambda tx: attempts.finish_if_current(tx, [Finish(5, ATTEMPTS[0], TaskInstanceState.SUCCESS)]),
    "finish fifty": lambda tx: attempts.finish_if_current(
        tx, [Finish(n, a, TaskInstanceState.SUCCESS, xcoms={"return_value": 1}) for n, a in enumerate(ATTEMPTS)]
    ),
    "heartbeat": lambda tx: attempts.renew_heartbeats(tx, ATTEMPTS),
    "heartbeat of what began late": lambda tx: attempts.renew_heartbeats(
        tx, ATTEMPTS, started_ago={ATTEMPTS[0]: timedelta(seconds=1)}
    ),
    "cancelled": lambda tx: attempts.select_cancelled(tx, ATTEMPTS),
    "hand back": lambda tx: attempts.hand_back_if_running(tx, ATTEMPTS),
    "fail stop": lambda tx: attempts.stop_run_after_failure(tx, 7, spared_task_ids=["t1"], error="e"),
    "push": lambda tx: xcoms.push_if_current(tx, ATTEMPTS[0], "k", 1),
    "pull": lambda tx: xcoms.pull(tx, dag_run_id=7, task_ids=["t1", "t2"]),
    "previous success": lambda tx: context.select_previous_success(tx, "sales", datetime(2000, 3, 1, tzinfo=UTC)),
    "expanded": lambda tx: context.count_expanded(tx, 7, "t1"),
}

#: What is asked for again and again while a job runs.
WATCHED: dict[str, Callable[[Connection], Any]] = {
    "running now": lambda tx: report.select_running(tx, 1),
    "pace": lambda tx: report.finished_since(tx, 1),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_it_reads_what_it_is_about_and_no_growing_table_from_end_to_end(large: Engine, name: str) -> None:
    found = list(reads(plan(large, STATEMENTS[name])))
    assert not [look for look in found if look[1] == "Seq Scan"], found
    assert sum(rows for _, _, rows in found) <= MORE_READ.get(name, MOST_READ), found


@pytest.mark.parametrize("name", WATCHED)
def test_watching_a_job_does_not_read_all_of_its_task_instances(large: Engine, name: str) -> None:
    found = list(reads(plan(large, WATCHED[name])))
    assert sum(rows for table, _, rows in found if table == "task_instance") < RUNS, found
