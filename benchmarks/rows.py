"""What the rows of a finished job tell, all by the database's clock."""

from __future__ import annotations

from benchmarks.ground import Ground
from benchmarks.processes import MeasureFailed

_SPAN = """
select count(*), extract(epoch from max(a.end_date) - min(t.queued_at)), extract(epoch from max(a.end_date) - min(a.start_date))
from task_instance t join task_attempt a on a.task_instance_id = t.id
where t.dag_id = :dag_id and a.outcome = 'success'
"""

_GAPS = """
select extract(epoch from started - ended) from (
    select a.start_date as started, lag(a.end_date) over (partition by t.dag_run_id order by t.task_id) as ended
    from task_instance t join task_attempt a on a.task_instance_id = t.id
    where t.dag_id = :dag_id
) as pairs where ended is not null
"""

_FIRST_START = """
select extract(epoch from min(a.start_date))
from task_instance t join task_attempt a on a.task_instance_id = t.id where t.dag_id = :dag_id
"""


def seconds_from_dispatch(ground: Ground, dag_id: str, expected: int) -> float:
    """Return the seconds from the first dispatch to the last end; `MeasureFailed` unless `expected` attempts succeeded."""
    [(count, from_dispatch, _)] = ground.rows(_SPAN, dag_id=dag_id)
    check(count, expected)
    return float(from_dispatch)


def seconds_from_start(ground: Ground, dag_id: str, expected: int) -> float:
    """Return the seconds from the first start to the last end; `MeasureFailed` unless `expected` attempts succeeded."""
    [(count, _, from_start)] = ground.rows(_SPAN, dag_id=dag_id)
    check(count, expected)
    return float(from_start)


def gaps(ground: Ground, dag_id: str) -> list[float]:
    """Return the seconds between the end of each task of a chain and the start of the next; ids are in the chain's order."""
    return [float(gap) for (gap,) in ground.rows(_GAPS, dag_id=dag_id)]


def first_start(ground: Ground, dag_id: str) -> float:
    """Return when the first attempt began, in seconds since the epoch."""
    [(moment,)] = ground.rows(_FIRST_START, dag_id=dag_id)
    return float(moment)


def check(count: int, expected: int) -> None:
    """Raise `MeasureFailed` unless as many attempts succeeded as were asked for."""
    if count != expected:
        raise MeasureFailed(f"{count} of {expected} attempts succeeded")
