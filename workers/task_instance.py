"""`ti` and `dag_run` of the template context: what a task may ask and tell about itself (S12.2, S12.5)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from backfill.keys import TaskInstanceKey
from backfill.states import DagRunState, TaskInstanceState
from backfill.store import context as store_context, xcoms
from backfill.store.claims import Claim
from backfill.store.xcoms import RETURN_VALUE, XCom

logger = logging.getLogger(__name__)
#: What `ti.log` is: it takes as long to be found as a short task.
_TASK_LOGGER = logging.getLogger("task")

T = TypeVar("T")


class Database(Protocol):
    """Does some work in one transaction, repeated on passing errors."""

    def __call__(self, work: Callable[[Connection], T], /) -> T:
        """Return what `work` returns."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DagRun:
    """The run that the task instance belongs to."""

    id: int
    dag_id: str
    run_id: str
    logical_date: datetime
    data_interval_start: datetime
    data_interval_end: datetime
    run_type: str
    external_trigger: bool
    conf: Mapping[str, Any]
    start_date: datetime | None
    state: DagRunState = DagRunState.RUNNING
    end_date: datetime | None = None

    @classmethod
    def of(cls, claim: Claim) -> DagRun:
        """Return the run of a claimed attempt."""
        return cls(
            id=claim.dag_run_id,
            dag_id=claim.dag_id,
            run_id=claim.run_id,
            logical_date=claim.logical_date,
            data_interval_start=claim.data_interval_start,
            data_interval_end=claim.data_interval_end,
            run_type=claim.run_type,
            external_trigger=claim.external_trigger,
            conf=claim.conf,
            start_date=claim.run_start_date,
        )

    @property
    def execution_date(self) -> datetime:
        """The logical date, by its old name."""
        return self.logical_date


class TaskInstance:
    """The attempt that runs, as its task sees it.

    It has the attributes of `backfill.store.attempts.Claim`: `dag_id`, `task_id`, `run_id`, `map_index`, `try_number`, `max_tries`,
    `start_date`, `first_start_date`, `pool`, `queue` and so on, and those below.
    """

    def __init__(self, claim: Claim, *, hostname: str, task: Any, database: Database) -> None:
        self._claim = claim
        self._database = database
        self.hostname = hostname
        self.pid = os.getpid()
        #: The operator of this attempt: unmapped and, later, rendered.
        self.task = task
        #: `running`; in callbacks the state that the attempt is about to get.
        self.state = TaskInstanceState.RUNNING
        self.end_date: datetime | None = None
        self.log = _TASK_LOGGER

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in Claim._fields:
            raise AttributeError(f"a task instance has no attribute {name!r}")
        return getattr(self._claim, name)

    def __repr__(self) -> str:
        return f"<TaskInstance {self.key} try {self._claim.try_number} [{self.state}]>"

    @cached_property
    def dag_run(self) -> DagRun:
        """The run that it belongs to."""
        return DagRun.of(self._claim)

    @property
    def key(self) -> TaskInstanceKey:
        """What names the task instance."""
        return self._claim.key

    @property
    def execution_date(self) -> datetime:
        """The logical date, by its old name."""
        return self._claim.logical_date

    @property
    def external_executor_id(self) -> str:
        """The attempt id."""
        return self._claim.attempt_id

    @property
    def duration(self) -> float | None:
        """Seconds that the attempt took; None while it runs."""
        return None if self.end_date is None else (self.end_date - self._claim.start_date).total_seconds()

    def xcom_push(self, key: str, value: Any) -> None:
        """Leave `value`, which JSON can hold, for others under `key`.

        Raises `UsageError` for another value. An attempt that is not current any more pushes nothing (S7.7).
        """
        attempt_id = self._claim.attempt_id
        if not self._database(lambda tx: xcoms.push_if_current(tx, attempt_id, key, value)):
            logger.warning("The XCom %r is thrown away: another attempt of this task instance is current", key)

    def xcom_pull(
        self,
        task_ids: str | Iterable[str] | None = None,
        dag_id: str | None = None,
        key: str = RETURN_VALUE,
        include_prior_dates: bool = False,
        *,
        map_indexes: int | Iterable[int] | None = None,
        default: Any = None,
        run_id: str | None = None,
    ) -> Any:
        """Return what others left under `key`.

        One task id that is not mapped, or one index of it, gives its value, or `default` if there is none. A mapped task,
        several tasks or several indexes give a list: of each in the order asked for, then by index (S12.5). Without
        `task_ids` any task will do. `include_prior_dates` looks at the latest run that has a value, this one included.
        """
        wanted = _list(task_ids, str)
        indexes = _list(map_indexes, int)
        found = self._pull(wanted, dag_id or self._claim.dag_id, key, include_prior_dates, indexes, run_id)
        one = not isinstance(map_indexes, Iterable) and (task_ids is None or isinstance(task_ids, str))
        if not one:
            return [xcom.value for xcom in found]
        if not found:
            return [] if default is None and self._has_many_instances(task_ids) else default
        if found[0].map_index < 0 or map_indexes is not None:
            return found[0].value
        return [xcom.value for xcom in found if xcom.task_id == found[0].task_id]

    def _pull(
        self,
        task_ids: list[str] | None,
        dag_id: str,
        key: str,
        prior: bool,
        indexes: list[int] | None,
        run_id: str | None,
    ) -> list[XCom]:
        if prior and task_ids is not None:
            until = self._claim.logical_date
            return self._database(
                lambda tx: xcoms.pull_latest(
                    tx, dag_id=dag_id, until=until, task_ids=task_ids, key=key, map_indexes=indexes
                )
            )
        return self._database(
            lambda tx: (
                []
                if (run := self._run(tx, dag_id, run_id)) is None
                else xcoms.pull(tx, dag_run_id=run, task_ids=task_ids, key=key, map_indexes=indexes)
            )
        )

    def _has_many_instances(self, task_id: Any) -> bool:
        """Return whether the values of that task come as a list, though there are none."""
        task = self.task.dag.task_dict.get(task_id)
        return task is not None and task.has_many_instances

    def _run(self, tx: Connection, dag_id: str, run_id: str | None) -> int | None:
        """Return the id of the run to pull from: that of the run id, else of the same date, in the DAG."""
        if dag_id == self._claim.dag_id and run_id in {None, self._claim.run_id}:
            return self._claim.dag_run_id
        date = self._claim.logical_date if run_id is None else None
        return store_context.find_run(tx, dag_id, run_id=run_id, logical_date=date)


def _list(value: Any, single: type) -> list[Any] | None:
    if value is None:
        return None
    return [value] if isinstance(value, single) else list(value)
