"""DAGs that jobs were made for. The row's lock guards limits that hold for a DAG over all jobs (S5.1)."""

from __future__ import annotations

from sqlalchemy import text

from backfill.store.database import Tx

_TOUCH_DAG = text("""
insert into dag (dag_id, fileloc) values (:dag_id, :fileloc)
on conflict (dag_id) do update set fileloc = excluded.fileloc, last_used_at = now()
""")


def touch_dag(tx: Tx, dag_id: str, fileloc: str | None) -> None:
    """Note that a job is made for the DAG; `fileloc` is the file it comes from, None if it was built in memory."""
    tx.execute(_TOUCH_DAG, {"dag_id": dag_id, "fileloc": fileloc})
