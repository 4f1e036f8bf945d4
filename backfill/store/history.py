"""What earlier runs of a DAG tell about the next ones."""

from __future__ import annotations

from sqlalchemy import text

from backfill.store.database import Tx

#: Only the latest runs are looked at: they are the most alike, and the cost does not grow with the history.
LATEST_RUNS = 100

_MEDIANS = text("""
with latest as (
    select id from dag_run where dag_id = :dag_id order by logical_date desc limit :runs
)
select ti.task_id,
       percentile_cont(0.5) within group (order by extract(epoch from attempt.end_date - attempt.start_date)) as seconds
from latest
join task_instance ti on ti.dag_run_id = latest.id
join task_attempt attempt on attempt.task_instance_id = ti.id
where attempt.outcome = 'success' and attempt.end_date is not null
group by ti.task_id
""")


def median_durations(tx: Tx, dag_id: str, *, runs: int = LATEST_RUNS) -> dict[str, float]:
    """Return by task the median seconds of its successful attempts in the latest runs of the DAG; none without one."""
    return {row.task_id: float(row.seconds) for row in tx.execute(_MEDIANS, {"dag_id": dag_id, "runs": runs})}
