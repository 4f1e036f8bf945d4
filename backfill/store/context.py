"""What the template context asks of the database beyond the claimed row (S12.2, S12.3)."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from backfill.store.database import Tx
from backfill.store.statements import statement


class PreviousSuccess(NamedTuple):
    """Dates of the latest earlier run that ended as `success`: the `prev_*_success` of the context."""

    logical_date: datetime
    data_interval_start: datetime
    data_interval_end: datetime
    start_date: datetime | None
    end_date: datetime | None


_SELECT_PREVIOUS_SUCCESS = statement("""
select logical_date, data_interval_start, data_interval_end, start_date, end_date
from dag_run
where dag_id = :dag_id and logical_date < :logical_date and state = 'success'
order by logical_date desc limit 1
""")


def select_previous_success(tx: Tx, dag_id: str, logical_date: datetime) -> PreviousSuccess | None:
    """Return the latest successful run of the DAG before `logical_date`, of any type; None if there is none."""
    row = tx.execute(_SELECT_PREVIOUS_SUCCESS, {"dag_id": dag_id, "logical_date": logical_date}).one_or_none()
    return None if row is None else PreviousSuccess(*row)


_COUNT_EXPANDED = statement("""
select count(*) from task_instance
where dag_run_id = :dag_run_id and task_id = :task_id and map_index >= 0 and state <> 'removed'
""")


def count_expanded(tx: Tx, dag_run_id: int, task_id: str) -> int:
    """Return how many indexes the mapped task has in this run: `expanded_ti_count`; 0 if it is not expanded."""
    return int(tx.execute(_COUNT_EXPANDED, {"dag_run_id": dag_run_id, "task_id": task_id}).scalar_one())


_FIND_RUN = statement("""
select id from dag_run
where dag_id = :dag_id
  and (run_id = :run_id or (cast(:run_id as text) is null and logical_date = cast(:logical_date as timestamptz)))
""")


def find_run(tx: Tx, dag_id: str, *, run_id: str | None = None, logical_date: datetime | None = None) -> int | None:
    """Return the id of the DAG's run of that run id, else of that date, for a pull from elsewhere; None if there is none."""
    values = {"dag_id": dag_id, "run_id": run_id, "logical_date": logical_date}
    found: int | None = tx.execute(_FIND_RUN, values).scalar_one_or_none()
    return found
