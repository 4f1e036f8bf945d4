"""Template fields as an attempt would render them, before there is an attempt: for `-n` of `run`. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from backfill.dag import DAG
from backfill.dag.context import context_of_task
from backfill.dag.params import resolve_params
from backfill.exceptions import BackfillError
from backfill.keys import backfill_run_id
from backfill.states import RunType
from backfill.store.claims import Claim
from backfill.store.dates import PlannedDate
from workers.context import TaskContext, build_context
from workers.masking import Masker
from workers.outcome import error_text
from workers.secret_values import secrets_within
from workers.task_instance import Database, TaskInstance

#: No run and no task instance has this id.
_NOT_THERE = -1


class RenderedTask(NamedTuple):
    """The template fields of one task instance."""

    dag_id: str
    task_id: str
    map_index: int
    #: By name; values that JSON lacks are texts.
    fields: dict[str, Any]
    #: Why they cannot be rendered, in one sentence.
    error: str | None = None
    #: Why there are none yet.
    note: str | None = None


class FirstRun(NamedTuple):
    """The run whose templates are rendered, as it will be."""

    date: PlannedDate
    run_id: str
    conf: Mapping[str, Any]

    @classmethod
    def of(cls, date: PlannedDate, run_id: str | None, conf: Mapping[str, Any]) -> FirstRun:
        """Return the run of a date; one that is not there yet gets the run id of a backfill."""
        return cls(date, run_id or backfill_run_id(date.logical_date), conf)


def rehearse_templates(
    dag: DAG, run: FirstRun, instances: Iterable[tuple[str, int]], *, database: Database, mask: Masker
) -> list[RenderedTask]:
    """Return the rendered fields of task instances, given by task id and map index, of one run.

    `database` runs transactions that only read. What a template pulls from tasks that have not run yet stands as a placeholder.
    """
    return [_rendered(dag, run, task_id, index, database, mask) for task_id, index in instances]


def _rendered(dag: DAG, run: FirstRun, task_id: str, map_index: int, database: Database, mask: Masker) -> RenderedTask:
    operator = dag.task_dict[task_id]
    if operator.has_many_instances and map_index < 0:
        return RenderedTask(dag.dag_id, task_id, map_index, {}, note="its map indexes are known only in the run")
    claim = _claim(operator, run, map_index)
    mask = mask.copy()
    mask.learn(secrets_within(claim.conf))
    ti = _NotYetRun(claim, hostname="", task=operator, database=database)
    context = build_context(ti=ti, claim=claim, dag=dag, database=database)
    token = context_of_task.set(context)
    try:
        return RenderedTask(dag.dag_id, task_id, map_index, _fields(dag, operator, context, claim, mask))
    except Exception as error:  # noqa: BLE001  # templates and what they call are user code
        text = str(error) if isinstance(error, BackfillError) else error_text(error)
        return RenderedTask(dag.dag_id, task_id, map_index, {}, error=mask(" ".join(text.split())))
    finally:
        context_of_task.reset(token)


def _fields(dag: DAG, operator: Any, context: TaskContext, claim: Claim, mask: Masker) -> dict[str, Any]:
    params = context["params"] = resolve_params(dag, operator, claim.conf)
    mask.learn(secrets_within(params))
    task = context["task"] = context["ti"].task = operator.unmap(claim.map_index, context)
    task.render_template_fields(context)
    return {field: _plain(getattr(task, field), mask) for field in task.template_fields}


def _plain(value: Any, mask: Masker) -> Any:
    """Return `value` in a form that JSON has, without secrets."""
    match value:
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {mask(str(key)): _plain(member, mask) for key, member in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_plain(member, mask) for member in value]
        case _:
            return mask(str(value))


class _ToCome:
    """Stands for a value that a task has yet to leave; what is taken out of it is to come as well."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __str__(self) -> str:
        return f"<{self._name}>"

    __repr__ = __str__

    def __getitem__(self, key: object) -> _ToCome:
        if isinstance(key, int) and not isinstance(key, bool) and key > 0:
            raise IndexError(key)  # whoever goes through it finds one
        return _ToCome(f"{self._name}[{key!r}]")


class _NotYetRun(TaskInstance):
    """A task instance that may read what others left, and leaves nothing."""

    def xcom_push(self, key: str, value: Any) -> None:
        """Leave nothing: this is no attempt."""

    def xcom_pull(
        self, task_ids: Any = None, dag_id: Any = None, key: str = "return_value", *args: Any, **how: Any
    ) -> Any:
        """Return what others left under `key`, or a placeholder where they have not run yet."""
        found = super().xcom_pull(task_ids, dag_id, key, *args, **how)
        one = task_ids is None or isinstance(task_ids, str)
        if found is None or (found == [] and one):
            return _ToCome(f"XCom {key} of {task_ids or 'any task'}")
        return found


def _claim(operator: Any, run: FirstRun, map_index: int) -> Claim:
    """Return what a worker would have claimed, as far as it can be known."""
    now = datetime.now(UTC)
    date = run.date
    return Claim(
        task_instance_id=_NOT_THERE,
        attempt_id="",
        dag_run_id=date.dag_run_id or _NOT_THERE,
        dag_id=operator.dag_id,
        task_id=operator.task_id,
        run_id=run.run_id,
        map_index=map_index,
        try_number=1,
        max_tries=operator.retries,
        infrastructure_failures=0,
        start_date=now,
        first_start_date=now,
        queued_at=None,
        pool=operator.pool,
        pool_slots=operator.pool_slots,
        queue=operator.queue or "",
        executor=operator.executor or "",
        operator=operator.operator_name,
        priority_weight=operator.priority_weight,
        logical_date=date.logical_date,
        data_interval_start=date.data_interval_start,
        data_interval_end=date.data_interval_end,
        run_type=RunType.BACKFILL,
        external_trigger=False,
        conf=dict(run.conf),
        run_start_date=now,
        job_id=None,
        job_params={},
        dag_pickle_hash=None,
        dag_source={},
    )
