"""What a failure that the coordinator writes does to the rest of a run with `fail_stop` (S3.19, S6.8)."""

from __future__ import annotations

from backfill.dag import DAG
from backfill.keys import TaskInstanceKey
from backfill.store.attempts import Stopped, stop_run_after_failure
from backfill.store.database import Tx


def stop_rest_of_run(tx: Tx, dag: DAG, dag_run_id: int, failed: TaskInstanceKey) -> list[Stopped]:
    """Stop the rest of a run in which `failed` has just been written, if the DAG asks for that; return what was stopped."""
    if not dag.fail_stop:
        return []
    spared = {failed.task_id} | {task.task_id for task in dag.tasks if task.is_teardown}
    return stop_run_after_failure(tx, dag_run_id, spared_task_ids=spared, error=f"fail_stop: {failed} failed")
