"""What is said of jobs: counts, errors, task instances, what runs now, pace (S9.5 to S9.7). Reads only.

The task instances of a job are those of the runs of its dates: joined by `job_run_date.dag_run_id`, for a run keeps no
mark of jobs that drove it before. Dates not admitted yet have no run here; their task instances are for the caller to
add (S9.5).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import text

from backfill.states import IDLE, IN_FLIGHT, TaskInstanceState
from backfill.store.clearing import RUN_TIMED_OUT
from backfill.store.database import Tx
from backfill.store.statements import statement

_DATES = "job_run_date d join job j on j.id = d.job_id"
#: Dates that have been admitted, or count as done without being touched (S2.8).
_ADMITTED = "(d.progress <> 'pending' or d.action = 'done')"
_MINE = f"d.job_id = :job_id and {_ADMITTED}"
#: Task instances of chosen tasks only (S13.7); those of subdags are all chosen.
_CHOSEN = "(t.dag_id <> j.dag_id or cast(:task_ids as text[]) is null or t.task_id = any(cast(:task_ids as text[])))"


@dataclass(frozen=True, slots=True)
class RunCounts:
    """Dates of a job, by what became of them. `total` counts also those that are neither finished nor running."""

    total: int = 0
    success: int = 0
    failed: int = 0
    running: int = 0

    @property
    def finished(self) -> int:
        """Runs that ended, well or badly."""
        return self.success + self.failed


@dataclass(frozen=True, slots=True)
class JobCounts:
    """Counts of one job. `states` has every state; `removed` is part of no sum (S9.5)."""

    runs: RunCounts
    states: dict[TaskInstanceState, int]

    @property
    def running(self) -> int:
        """Task instances in flight."""
        return sum(self.states[state] for state in IN_FLIGHT)

    @property
    def waiting(self) -> int:
        """Task instances of admitted dates that are unfinished and not in flight."""
        return sum(self.states[state] for state in IDLE)


_JOB_COUNTS = text(f"""
select 'run', case when r.state is null or not ({_MINE}) then 'pending' else r.state end as word, count(*)
from {_DATES} left join dag_run r on r.id = d.dag_run_id
where d.job_id = :job_id and d.dag_id = j.dag_id
group by word
union all
select 'task instance', t.state, count(*)
from {_DATES} join task_instance t on t.dag_run_id = d.dag_run_id
where {_MINE} and {_CHOSEN}
group by t.state
""")  # noqa: S608  # put together from constants


def job_counts(tx: Tx, job_id: int, *, task_ids: Collection[str] | None = None) -> JobCounts:
    """Count the runs of a job and the task instances of those that are admitted or count as done.

    Runs of subdags are not counted (S2.3), their task instances are. With `task_ids` only these tasks of the job's DAG count.
    """
    return _counts(tx.execute(_JOB_COUNTS, _job(job_id, task_ids)))


def _counts(rows: Iterable[Any]) -> JobCounts:
    runs: dict[str, int] = {}
    states = dict.fromkeys(TaskInstanceState, 0)
    for kind, word, count in rows:
        if kind == "run":
            runs[word] = count
        else:
            states[TaskInstanceState(word)] = count
    counts = RunCounts(sum(runs.values()), runs.get("success", 0), runs.get("failed", 0), runs.get("running", 0))
    return JobCounts(counts, states)


def _job(job_id: int, task_ids: Collection[str] | None) -> dict[str, Any]:
    return {"job_id": job_id, "task_ids": None if task_ids is None else list(task_ids)}


_DEPARTED = text(f"""
select 'run', r.state as word, count(*)
from {_DATES} left join dag_run r on r.id = d.dag_run_id
where d.job_id = :job_id and d.dag_id = j.dag_id and d.progress = 'finished'
group by r.state
union all
select 'task instance', t.state, count(*)
from {_DATES} join task_instance t on t.dag_run_id = d.dag_run_id
where d.job_id = :job_id and d.progress = 'finished' and {_CHOSEN} and (d.dag_id = j.dag_id or exists (
    select from job_run_date above
    where above.job_id = d.job_id and above.dag_id = j.dag_id and above.ordinal = d.ordinal and above.progress = 'finished'
))
group by t.state
""")  # noqa: S608  # put together from constants


def departed_counts(tx: Tx, job_id: int, *, task_ids: Collection[str] | None = None) -> JobCounts:
    """Count the dates of a job that are done with, and their task instances: what has left the window.

    A run of a subdag leaves it with the run of the job's DAG that it belongs to.
    """
    return _counts(tx.execute(_DEPARTED, _job(job_id, task_ids)))


#: A task in the order of a report: its id, with the DAG's before it where that is not the job's own.
PlacedTask = str | tuple[str, str]


def _order(tasks: Sequence[PlacedTask]) -> dict[str, Any]:
    pairs = [(None, task) if isinstance(task, str) else task for task in tasks]
    return {"order_dags": [dag_id for dag_id, _ in pairs], "order": [task_id for _, task_id in pairs]}


class TaskInstanceError(NamedTuple):
    """A task instance that ended badly."""

    task_instance_id: int
    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    logical_date: datetime
    try_number: int
    #: `failed` or `upstream_failed`.
    state: str
    #: Text of its last error.
    error: str | None
    hostname: str | None


#: Places of tasks in the caller's order; a task that is not in it comes last, by name.
_PLACES = """
left join unnest(cast(:order_dags as text[]), cast(:order as text[])) with ordinality as p (dag_id, task_id, place)
    on p.task_id = t.task_id and coalesce(p.dag_id, j.dag_id) = t.dag_id
"""
_IN_ORDER = "order by r.logical_date, p.place nulls last, t.dag_id, t.task_id, t.map_index"
_ROWS = f"{_DATES} join dag_run r on r.id = d.dag_run_id join task_instance t on t.dag_run_id = r.id {_PLACES}"

_SELECT_ERRORS = text(f"""
select t.id, t.dag_id, t.task_id, t.run_id, t.map_index, r.logical_date, t.try_number, t.state, t.error, t.hostname
from {_ROWS}
where {_MINE} and {_CHOSEN} and t.state in ('failed', 'upstream_failed')
{_IN_ORDER}
""")  # noqa: S608  # put together from constants


def select_errors(
    tx: Tx, job_id: int, *, topological_order: Sequence[PlacedTask], task_ids: Collection[str] | None = None
) -> list[TaskInstanceError]:
    """Return the task instances of a job that ended badly, by run date, topological order and map index (S9.7).

    `topological_order` are the task ids of the DAG; with `task_ids` only these tasks of the job's DAG are looked at.
    """
    values = {**_job(job_id, task_ids), **_order(topological_order)}
    return [TaskInstanceError(*row) for row in tx.execute(_SELECT_ERRORS, values)]


class TimedOutRun(NamedTuple):
    """A run whose `dagrun_timeout` ran out (S6.6)."""

    dag_id: str
    run_id: str
    logical_date: datetime
    #: What its task instances were told.
    error: str


_SELECT_TIMED_OUT = text(f"""
select r.dag_id, r.run_id, r.logical_date, min(t.error)
from {_DATES} join dag_run r on r.id = d.dag_run_id join task_instance t on t.dag_run_id = r.id
where {_MINE} and r.state = 'failed' and t.state = 'skipped' and starts_with(t.error, :beginning)
group by r.id
order by r.logical_date, r.id
""")  # noqa: S608  # put together from constants


def select_timed_out(tx: Tx, job_id: int) -> list[TimedOutRun]:
    """Return the runs of a job that timed out, by date, whichever process saw it."""
    return [TimedOutRun(*row) for row in tx.execute(_SELECT_TIMED_OUT, {"job_id": job_id, "beginning": RUN_TIMED_OUT})]


_FAILURES = text(f"""
select coalesce(bool_or(d.action = 'done'), false) as before, coalesce(bool_or(d.action <> 'done'), false) as own
from {_DATES} join dag_run r on r.id = d.dag_run_id
where {_MINE} and (r.state = 'failed' or exists (
    select from task_instance t where t.dag_run_id = r.id and t.state in ('failed', 'upstream_failed') and {_CHOSEN}
))
""")  # noqa: S608  # put together from constants


def failed_before_only(tx: Tx, job_id: int, *, task_ids: Collection[str] | None = None) -> bool:
    """Return whether what failed of a job is all of runs that were there before it and count as done (S2.8)."""
    row = tx.execute(_FAILURES, _job(job_id, task_ids)).one()
    return bool(row.before and not row.own)


_SELECT_ERROR_TEXTS = statement("select id, error from task_instance where id = any(cast(:ti_ids as bigint[]))")


def select_error_texts(tx: Tx, ti_ids: Sequence[int]) -> dict[int, str | None]:
    """Return the text of the last error of each of these task instances, by id."""
    return {row.id: row.error for row in tx.execute(_SELECT_ERROR_TEXTS, {"ti_ids": list(ti_ids)})}


class TaskInstanceRow(NamedTuple):
    """One task instance of a job; names and order are those of `backfill tasks -o json` (interface.md, section 3)."""

    dag_id: str
    task_id: str
    run_id: str
    logical_date: datetime
    map_index: int
    state: str
    try_number: int
    start_date: datetime | None
    end_date: datetime | None
    #: Seconds.
    duration: float | None
    hostname: str | None
    external_executor_id: str | None
    error: str | None


_SELECT_TASK_INSTANCES = text(f"""
select t.dag_id, t.task_id, t.run_id, r.logical_date, t.map_index, t.state, t.try_number, t.start_date, t.end_date,
       t.duration, t.hostname, cast(t.external_executor_id as text), t.error
from {_ROWS}
where {_MINE} and {_CHOSEN} and (cast(:state as text) is null or t.state = :state)
{_IN_ORDER}
""")  # noqa: S608  # put together from constants


def select_task_instances(
    tx: Tx,
    job_id: int,
    state: TaskInstanceState | None = None,
    *,
    topological_order: Sequence[PlacedTask] = (),
    task_ids: Collection[str] | None = None,
) -> list[TaskInstanceRow]:
    """Return the task instances of a job, all or those in `state`, ordered as `select_errors` does."""
    values = {**_job(job_id, task_ids), **_order(topological_order), "state": state and state.value}
    return [TaskInstanceRow(*row) for row in tx.execute(_SELECT_TASK_INSTANCES, values)]


class RunningTaskInstance(NamedTuple):
    """A task instance that runs now; `elapsed` is the age of its attempt by the database's clock."""

    task_instance_id: int
    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    logical_date: datetime
    try_number: int
    start_date: datetime
    elapsed: timedelta
    hostname: str | None


# from what is in flight in the DAGs that have runs in the job's window: that is never more than what runs now
_SELECT_RUNNING = statement("""
with run as materialized (
    select id, dag_id, logical_date from dag_run where job_id = :job_id and state = 'running'
), in_flight as materialized (
    select t.* from (select distinct dag_id from run) d
    join task_instance t on t.dag_id = d.dag_id and t.in_flight
)
select t.id, t.dag_id, t.task_id, t.run_id, t.map_index, r.logical_date, t.try_number, t.start_date,
       statement_timestamp() - t.start_date, t.hostname
from in_flight t join run r on r.id = t.dag_run_id
where t.state = 'running' and t.start_date is not null
  and not (t.operator = 'SubDagOperator' and t.external_executor_id is null)
order by t.start_date, t.id limit :limit
""")


def select_running(tx: Tx, job_id: int, *, limit: int | None = None) -> list[RunningTaskInstance]:
    """Return what of a job runs now, the longest first; at most `limit` of them. What stands for a subdag is not named."""
    return [RunningTaskInstance(*row) for row in tx.execute(_SELECT_RUNNING, {"job_id": job_id, "limit": limit})]


class Pace(NamedTuple):
    """How many task instances a job finished in how long."""

    finished: int
    elapsed: timedelta

    @property
    def per_second(self) -> float:
        """Task instances per second; 0 where no time has passed."""
        seconds = self.elapsed.total_seconds()
        return self.finished / seconds if seconds > 0 else 0.0


# runs that ended before the window have nothing to add, so that the cost does not grow with the range; they are left out first
# and the others looked at one by one, because the planner does not foresee how few are left
_FINISHED_SINCE = text("""
with span as (
    select greatest(start_date, coalesce(end_date, statement_timestamp()) - cast(:window as interval)) as since,
           coalesce(end_date, statement_timestamp()) as until
    from job where id = :job_id and start_date is not null
), fresh as materialized (
    select r.id, s.since, s.until
    from span s
    join job_run_date d on d.job_id = :job_id and d.progress <> 'pending' and d.action <> 'done'
    join dag_run r on r.id = d.dag_run_id and (r.end_date is null or r.end_date >= s.since)
), finished as (
    select sum(n.finished) as total
    from fresh f cross join lateral (
        select count(*) as finished from task_instance t
        where t.dag_run_id = f.id and t.end_date between f.since and f.until
          and t.state in ('success', 'skipped', 'failed', 'upstream_failed')
    ) n
)
select cast(coalesce(f.total, 0) as bigint), s.until - s.since from span s cross join finished f
""")


def finished_since(tx: Tx, job_id: int, window: timedelta = timedelta(seconds=60)) -> Pace:
    """Return what a job finished within the last `window`, or since its start if that is shorter ago (S9.6).

    For a job that has ended the window is the one before its end.
    """
    row = tx.execute(_FINISHED_SINCE, {"job_id": job_id, "window": window}).one_or_none()
    return Pace(0, timedelta(0)) if row is None else Pace(*row)


class JobSummary(NamedTuple):
    """One line of `backfill list`."""

    job_id: int
    dag_id: str
    state: str
    created_at: datetime
    start_date: datetime | None
    end_date: datetime | None
    runs: int
    runs_finished: int
    runs_failed: int
    #: Who drives the job, and how long ago the lease was renewed; None when nobody does.
    lease_holder: str | None
    lease_age: timedelta | None
    error: str | None


_LIST_JOB_SUMMARIES = text(f"""
select j.id, j.dag_id, j.state, j.created_at, j.start_date, j.end_date, coalesce(n.runs, 0),
       coalesce(n.finished, 0), coalesce(n.failed, 0), j.lease_holder,
       case when j.lease_holder is not null then statement_timestamp() - j.latest_heartbeat end, j.error
from job j
left join lateral (
    select count(*) as runs,
           count(*) filter (where {_ADMITTED} and r.state in ('success', 'failed')) as finished,
           count(*) filter (where {_ADMITTED} and r.state = 'failed') as failed
    from job_run_date d left join dag_run r on r.id = d.dag_run_id
    where d.job_id = j.id and d.dag_id = j.dag_id
) n on true
order by j.id desc limit :limit
""")  # noqa: S608  # put together from constants


def list_job_summaries(tx: Tx, *, limit: int | None = None) -> list[JobSummary]:
    """Return the latest jobs, newest first, with how far each has come; all of them without a limit."""
    return [JobSummary(*row) for row in tx.execute(_LIST_JOB_SUMMARIES, {"limit": limit})]
