"""A job at work in a few lines: its DAG, an executor that does as it is told, and a look at the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, func, insert, select, update

from backfill import DAG
from backfill.executors import BaseExecutor, QueuedAttempt, Unsent
from backfill.jobs import BackfillJob
from backfill.jobs.request import BackfillRequest
from backfill.jobs.task_status import DagRunTaskStatus, TaskInstance
from backfill.keys import backfill_run_id
from backfill.messages import DagSource, ExecutorEvent
from backfill.models import dag_run, job, job_run_date, task_instance
from backfill.operators import PythonOperator
from backfill.states import TaskInstanceState
from backfill.store.dates import PlannedDate, pending_dates
from backfill.telemetry import Event, Telemetry
from backfill.testing.script import Script, ScriptedExecutor
from backfill.testing.stage import CastJob, Stage

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def day(number: int) -> datetime:
    return FIRST + (number - 1) * DAY


def nothing() -> None:
    """The body of tasks that only a script plays."""


def dag_of(
    *tasks: str, dag_id: str = "d", arguments: Mapping[str, Mapping[str, Any]] | None = None, **given: Any
) -> DAG:
    """Return a daily DAG of scripted tasks; `b < a c` is the task b below a and c."""
    with DAG(dag_id, schedule="@daily", start_date=datetime(2023, 1, 1, tzinfo=UTC), **given) as dag:
        for described in tasks:
            task_id, _, upstream = (part.strip() for part in described.partition("<"))
            own = {"retry_delay": timedelta(), **(arguments or {}).get(task_id, {})}
            operator = PythonOperator(task_id=task_id, python_callable=nothing, **own)
            for parent in upstream.split():
                dag.task_dict[parent] >> operator
    return dag


class SilentExecutor(BaseExecutor):
    """Takes attempts and does nothing with them; a test says what it holds and what it cannot send."""

    name = "silent"

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[QueuedAttempt] = []
        self.adopted: list[QueuedAttempt] = []
        self.held: set[str] = set()
        self.refuses: Callable[[QueuedAttempt], Unsent | None] = lambda queued: None

    def queue_task_instances(self, attempts: Sequence[QueuedAttempt]) -> list[Unsent]:
        unsent = [refused for each in attempts if (refused := self.refuses(each)) is not None]
        self.taken += attempts
        self.held |= {each.attempt.attempt_id for each in attempts} - {each.attempt_id for each in unsent}
        return unsent

    def holds(self, attempt_ids: Iterable[str]) -> set[str]:
        return self.held & set(attempt_ids)

    def adopt(self, attempts: Sequence[QueuedAttempt]) -> set[str]:
        self.adopted += attempts
        return self.held & {each.attempt.attempt_id for each in attempts}

    def revoke(self, attempt_ids: Iterable[str]) -> None:
        self.held -= set(attempt_ids)

    def terminate(self, attempt_ids: Iterable[str]) -> None:
        pass

    def end(self) -> None:
        pass

    def order(self) -> list[str]:
        """Return the task ids and days of the month of what was taken, in order."""
        return [f"{each.attempt.key.task_id}{each.logical_date.day}" for each in self.taken]


class JobAtWork:
    """A job whose steps a test calls by hand."""

    def __init__(self, cast: CastJob, executor: BaseExecutor, engine: Engine) -> None:
        self.job, self.executor, self.engine = cast.job, executor, engine
        self.workplace, self.lease = cast.workplace, cast.lease
        self.ti_status: DagRunTaskStatus = BackfillJob._DagRunTaskStatus(total_runs=self.job.total_runs)

    def dates(self) -> list[PlannedDate]:
        """Return the dates that have not come up."""
        with self.engine.connect() as tx:
            return pending_dates(tx, self.job.id, 100)

    def admit(self) -> None:
        """Let in the dates whose turn it is, as the loop does."""
        self.job._admit(self.job.course.admission, self.ti_status, None)

    def process(self) -> None:
        self.job._process_backfill_task_instances(self.ti_status, self.executor, None)

    def report(self, ti: TaskInstance, state: TaskInstanceState, attempt_id: str | None = None, **said: Any) -> None:
        """Let the executor report the present attempt of `ti`, or another."""
        event = ExecutorEvent(ti.facts.id, attempt_id or str(ti.facts.attempt_id), state, **said)
        self.workplace.mailbox.put(event)

    def running(self, task_id: str) -> TaskInstance:
        return next(ti for key, ti in self.ti_status.running.items() if key.task_id == task_id)


@dataclass(frozen=True)
class Playhouse:
    """The stage of one test, and what it needs around it."""

    stage: Stage
    at_the_end: ExitStack
    events: list[Event] = field(default_factory=list)

    @property
    def engine(self) -> Engine:
        return self.stage.engine

    # -- jobs -----------------------------------------------------------------------------------------------------------

    def put_on(self, dag: DAG, executor: BaseExecutor, days: int | tuple[int, int] = 1, **request: Any) -> CastJob:
        first, last = (1, days) if isinstance(days, int) else days
        asked = BackfillRequest(
            start_date=day(first), end_date=day(last), delay_on_limit_secs=0.01, executor=executor.name
        )
        telemetry = Telemetry()
        telemetry.subscribe(self.events.append)
        return replace(self.stage, telemetry=telemetry).put_on(dag, replace(asked, **request), executor)

    def at_work(self, dag: DAG, days: int | tuple[int, int] = 1, **request: Any) -> JobAtWork:
        """Return a job over the first `days` of January 2024, driven by this process, that has done nothing yet."""
        executor = SilentExecutor()
        cast = self.put_on(dag, executor, days, **request)
        cast.job.take_up_work(cast.workplace)
        cast.workplace.start_executors(DagSource(dag_id=dag.dag_id), self.at_the_end)
        self.at_the_end.callback(cast.job._callbacks.end)
        return JobAtWork(cast, executor, self.engine)

    def play(
        self, dag: DAG, days: int | tuple[int, int] = 1, outcomes: Mapping[str, Any] | None = None, **request: Any
    ):
        """Drive a job to its end with scripted outcomes, and return its report."""
        return self.put_on(dag, ScriptedExecutor(self.engine, Script(dag, outcomes or {})), days, **request).drive()

    # -- rows -----------------------------------------------------------------------------------------------------------

    def rows(self, *columns: str, **where: Any) -> list[Any]:
        """Return columns of task instances in the order of date, id; one column gives plain values."""
        chosen = [task_instance.c[name] for name in columns]
        asked = select(*chosen).join(dag_run, dag_run.c.id == task_instance.c.dag_run_id)
        for name, value in where.items():
            asked = asked.where(task_instance.c[name] == value)
        asked = asked.order_by(dag_run.c.logical_date, task_instance.c.id)
        with self.engine.connect() as tx:
            found = tx.execute(asked).all()
        return [row[0] for row in found] if len(columns) == 1 else [tuple(row) for row in found]

    def states(self, dag_id: str = "d") -> dict[str, str]:
        """Return the states of all task instances by task id and day of the month, and index if mapped."""
        asked = (
            select(task_instance.c.task_id, task_instance.c.map_index, dag_run.c.logical_date, task_instance.c.state)
            .join(dag_run, dag_run.c.id == task_instance.c.dag_run_id)
            .where(task_instance.c.dag_id == dag_id)
        )
        with self.engine.connect() as tx:
            found = tx.execute(asked).all()
        return {
            f"{row.task_id}{row.logical_date.astimezone(UTC).day}"
            + (f"[{row.map_index}]" if row.map_index >= 0 else ""): row.state
            for row in found
        }

    def runs(self, dag_id: str = "d") -> dict[int, str]:
        """Return the states of runs by day of the month."""
        with self.engine.connect() as tx:
            found = tx.execute(select(dag_run.c.logical_date, dag_run.c.state).where(dag_run.c.dag_id == dag_id)).all()
        return {row.logical_date.astimezone(UTC).day: row.state for row in found}

    def run_row(self, number: int = 1, dag_id: str = "d") -> Any:
        with self.engine.connect() as tx:
            asked = select(dag_run).where(dag_run.c.dag_id == dag_id, dag_run.c.logical_date == day(number))
            return tx.execute(asked).one()

    def set_rows(self, ti_ids: int | Iterable[int], **values: Any) -> None:
        """Change task instances by hand."""
        ids = [ti_ids] if isinstance(ti_ids, int) else list(ti_ids)
        with self.engine.begin() as tx:
            tx.execute(update(task_instance).where(task_instance.c.id.in_(ids)).values(values))

    def set_run(self, number: int, **values: Any) -> None:
        with self.engine.begin() as tx:
            tx.execute(update(dag_run).where(dag_run.c.logical_date == day(number)).values(values))

    def plant_run(self, number: int, states: Mapping[str, str], dag_id: str = "d", **values: Any) -> int:
        """Write a run with task instances in the given states, as if it had been there before."""
        date = day(number)
        run = {
            "dag_id": dag_id,
            "run_id": backfill_run_id(date),
            "logical_date": date,
            "data_interval_start": date,
            "data_interval_end": date + DAY,
            "run_type": "backfill",
            "state": "success",
            "start_date": date,
            **values,
        }
        with self.engine.begin() as tx:
            run_id = tx.execute(insert(dag_run).values(run).returning(dag_run.c.id)).scalar_one()
            for task_id, state in states.items():
                row = {"dag_run_id": run_id, "dag_id": dag_id, "run_id": run["run_id"], "task_id": task_id}
                row |= {"state": state, "pool": "default_pool", "queue": "backfill", "try_number": int(state != "none")}
                tx.execute(insert(task_instance).values(row))
        return run_id

    def nothing_written(self) -> bool:
        """Return whether there is no job, run, date or task instance at all."""
        with self.engine.connect() as tx:
            return not any(
                tx.execute(select(func.count()).select_from(table)).scalar_one()
                for table in (job, job_run_date, dag_run, task_instance)
            )
